package profile

import (
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/xdppath"
)

// Stage is a part of what a packet takes.
type Stage string

// The stages, in the order they are shown.
const (
	// StageGenerator makes live frames and sends them to the program under test. A
	// NIC does that, or another machine.
	StageGenerator  Stage = "generator"
	StageReceive    Stage = "receive"  // the driver's NAPI poll
	StageProgram    Stage = "program"  // XDP programs, the helpers they call
	StageRedirect   Stage = "redirect" // xdp_do_redirect, enqueueing
	StageBulkQueue  Stage = "bulk-queue"
	StageTransmit   Stage = "transmit"   // ndo_xdp_xmit
	StageCompletion Stage = "completion" // of transmission
	StageReturn     Stage = "return"     // of frames and pages, page_pool
	StageDMA        Stage = "dma"
	StageSoftirq    Stage = "softirq" // softirq and NAPI
	StageLocks      Stage = "locks"
	// StageSink is the veth that receives at the end of the chain, and its program.
	// Another machine is that for a NIC.
	StageSink Stage = "sink"
	// StageStack is the network stack, for frames that it is given.
	StageStack Stage = "stack"
	// StageObserver is tracing programs, and sampling itself.
	StageObserver Stage = "observer"
	// StageOther is all that is no packet's: interrupts, other tasks.
	StageOther Stage = "other"
	StageIdle  Stage = "idle"
	// StageUnattributed is time for which there is no sample, and samples in code
	// that has no name.
	StageUnattributed Stage = "unattributed"
)

var stages = []Stage{
	StageGenerator, StageReceive, StageProgram, StageRedirect, StageBulkQueue, StageTransmit, StageCompletion, StageReturn, StageDMA,
	StageSoftirq, StageLocks, StageSink, StageStack, StageObserver, StageOther, StageIdle, StageUnattributed,
}

// fromPath are the stages that package xdppath gives functions by their names.
var fromPath = map[xdppath.Stage]Stage{
	xdppath.StageProgram: StageProgram, xdppath.StageRedirect: StageRedirect, xdppath.StageBulkQueue: StageBulkQueue,
	xdppath.StageCompletion: StageCompletion, xdppath.StageReturn: StageReturn, xdppath.StagePagePool: StageReturn, xdppath.StageDMA: StageDMA,
}

// rules place the functions that package xdppath has no stage for; the first that fits
// wins. A trailing * stands for anything.
var rules = []struct {
	stage Stage
	names []string
}{
	{StageObserver, []string{"bpf_trace_run*", "__traceiter_*", "trace_event_raw_*", "perf_trace_*", "perf_event_*", "perf_swevent_*", "bpf_overflow_handler"}},
	{StageLocks, []string{"_raw_spin_*", "_raw_read_*", "_raw_write_*", "native_queued_spin_*", "queued_spin_*", "queued_read_*",
		"queued_write_*", "__pv_queued_spin_*", "mutex_*", "__mutex_*"}},
	{StageSoftirq, []string{"net_rx_action", "__napi_poll", "handle_softirqs", "__do_softirq", "do_softirq*", "__do_softirq_*",
		"__local_bh_enable_ip", "__local_bh_disable_ip", "napi_*", "__napi_*", "____napi_schedule", "__raise_softirq_irqoff", "raise_softirq*",
		"skb_defer_free_flush", "run_ksoftirqd", "irq_exit_rcu", "__irq_exit_rcu", "cpu_map_kthread_run"}},
	{StageStack, []string{"netif_receive_skb*", "__netif_receive_skb*", "process_backlog", "gro_*", "kfree_skb*", "__kfree_skb*",
		"sk_skb_reason_drop", "build_skb*", "__build_skb*", "__xdp_build_skb*"}},
}

// transmitters call a driver's ndo_xdp_xmit, or ndo_start_xmit.
var transmitters = []string{"bq_xmit_all", "generic_xdp_tx", "veth_xdp_tx_bq"}

// base is where a chain of frames comes from: the frames outside of it say nothing
// of the packet.
type base int

const (
	notBase base = iota
	fromPoll
	fromSoftirq
	fromGenerator
	fromInterrupt
	fromIdle
)

var bases = []struct {
	base  base
	names []string
}{
	{fromPoll, []string{"__napi_poll", "napi_poll", "cpu_map_kthread_run"}},
	{fromSoftirq, []string{"net_rx_action"}},
	{fromGenerator, []string{"xdp_test_run_batch", "bpf_test_run_xdp_live", "bpf_prog_test_run_xdp"}},
	{fromInterrupt, []string{"asm_sysvec_*", "sysvec_*", "asm_common_interrupt", "common_interrupt", "asm_exc_*", "irq_exit_rcu", "__irq_exit_rcu"}},
	{fromIdle, []string{"do_idle", "cpu_startup_entry"}},
}

// outermost are the functions that a call chain ends in.
var outermost = []string{"entry_*", "ret_from_fork*", "secondary_startup_*", "start_secondary", "asm_*", "common_startup_64", "do_syscall_64"}

func matches(patterns []string, name string) bool {
	name, _, _ = strings.Cut(name, ".")
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(name, prefix)
		}
		return name == pattern
	})
}

func baseOf(name string) base {
	for _, b := range bases {
		if matches(b.names, name) {
			return b.base
		}
	}
	return notBase
}

// byName is the stage of a function that its name tells, "" when it does not.
func byName(name string) Stage {
	for _, r := range rules {
		if matches(r.names, name) {
			return r.stage
		}
	}
	return fromPath[xdppath.StageOf(name)]
}

// classify is the stage of a call chain, the innermost frame first. sink tells that
// a poll under way is that of the sink.
//
// The innermost function that has a stage decides. A driver's own functions have
// none by name: those called by bq_xmit_all are its ndo_xdp_xmit, those called by
// __napi_poll its poll.
func classify(frames []Frame, sink bool) Stage {
	if len(frames) == 0 {
		return StageOther
	}
	if frames[0].Function == "" {
		return StageUnattributed
	}
	var stage Stage // of the innermost function that has one
	for i, f := range frames {
		own := byName(f.Function)
		if own == StageBulkQueue { // which only the poll that redirects has
			sink = false
		}
		if own == StageObserver { // whatever it calls
			return StageObserver
		}
		base := baseOf(f.Function)
		switch {
		case stage != "":
		case own != "" && (base == notBase || i == 0):
			stage = own
		case base == fromPoll:
			stage = StageReceive
		case i+1 < len(frames) && matches(transmitters, frames[i+1].Function):
			stage = StageTransmit
		}
		switch base {
		case fromPoll:
			if sink && (stage == StageReceive || stage == StageProgram) {
				return StageSink
			}
			return stage
		case fromSoftirq:
			return StageSoftirq
		case fromGenerator:
			return StageGenerator
		case fromInterrupt:
			return StageOther
		case fromIdle:
			return StageIdle
		}
	}
	if matches(outermost, frames[len(frames)-1].Function) {
		return StageOther
	}
	return unwound(stage, frames[0].Function, sink)
}

// unwound is the stage of a chain that the kernel could not follow to its end, which
// happens at the first and the last instructions of BPF programs.
func unwound(stage Stage, function string, sink bool) Stage {
	switch {
	case stage == "":
		return StageOther
	case isProgram(function) && strings.HasSuffix(function, "_generate"):
		return StageGenerator
	case sink && stage == StageProgram:
		return StageSink
	}
	return stage
}

package profile

import (
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// base is where a chain of frames comes from: the frames outside of it say nothing
// of the packet.
type base int

const (
	notBase base = iota
	fromPoll
	fromReceive // the receive softirq around polls
	fromSoftirq // all softirqs
	fromGenerator
	fromInterrupt
	fromIdle
)

func baseOf(name string) base {
	switch {
	case functions.Has(name, functions.Poll):
		return fromPoll
	case functions.Has(name, functions.SoftirqLoop):
		return fromReceive
	case functions.Has(name, functions.CallsAction):
		return fromSoftirq
	case functions.Has(name, functions.Generator):
		return fromGenerator
	case functions.Has(name, functions.Interrupt):
		return fromInterrupt
	case functions.Has(name, functions.Idle):
		return fromIdle
	}
	return notBase
}

// byName is the stage of a function that its name tells, "" when it does not.
func byName(name string) functions.Stage {
	if isProgram(name) && strings.HasSuffix(name, "_stack_end") { // it ends a chain's packets in the stack
		return functions.StageStack
	}
	if s := functions.StageOf(name); s != functions.StagePagePool {
		return s
	}
	return functions.StageReturn
}

// classify is the stage of a call chain, the innermost frame first, or what the CPU did
// in place of the packet's work. sink tells that a poll under way is that of the sink, by
// whose task the CPU was in.
//
// The innermost function that has a stage decides. A driver's own functions have
// none by name: those called by bq_xmit_all are its ndo_xdp_xmit, those called by
// __napi_poll its poll. A poll is the packet's in whatever task it runs: softirqs
// borrow the one that they interrupt.
func classify(frames []Frame, sink bool, by task) (functions.Stage, Outside) {
	if len(frames) == 0 {
		return "", by.outside()
	}
	if frames[0].Function == "" {
		return functions.StageUnattributed, by.elsewhere()
	}
	var stage functions.Stage // of the innermost function that has one
	for i, f := range frames {
		own, base := byName(f.Function), baseOf(f.Function)
		if own == functions.StageBulkQueue && base == notBase { // which only the poll that redirects has
			sink = false
		}
		switch {
		case own == functions.StageObserver: // whatever it calls
			stage = own
		case stage != "":
		case i == 0 && base == fromPoll: // what is around the driver's poll
			stage = functions.StageSoftirq
		case own != "" && (base == notBase || i == 0):
			stage = own
		case base == fromPoll:
			stage = functions.StageReceive
		case i+1 < len(frames) && functions.Has(frames[i+1].Function, functions.Transmits):
			stage = functions.StageTransmit
		}
		if base != notBase {
			if base == fromInterrupt && by != sender && isException(f.Function) {
				return "", by.outside()
			}
			return onBase(base, frames[:i], stage, sink, by)
		}
	}
	if functions.Has(frames[len(frames)-1].Function, functions.Outermost) {
		return functions.StageOther, by.elsewhere()
	}
	return unwound(stage, frames[0].Function, sink, by)
}

// onBase is the stage of a call chain that comes from base. inner are the frames inside
// of that, stage is that of the innermost function that has one.
func onBase(base base, inner []Frame, stage functions.Stage, sink bool, by task) (functions.Stage, Outside) {
	observed := stage == functions.StageObserver
	switch base {
	case fromPoll:
		if sink && (stage == functions.StageReceive || stage == functions.StageProgram) {
			stage = functions.StageSink
		}
		return stage, Inside
	case fromReceive:
		if observed {
			return stage, Inside
		}
		return functions.StageSoftirq, Inside
	case fromSoftirq: // of another action than net_rx_action
		if n := len(inner); n > 0 && byName(inner[n-1].Function) != functions.StageSoftirq {
			return "", interruption(inner)
		}
		return functions.StageSoftirq, Inside
	case fromGenerator:
		if where := interruption(inner); where == Scheduler {
			return "", where
		}
		if observed {
			return stage, by.elsewhere()
		}
		return functions.StageGenerator, by.elsewhere()
	case fromIdle:
		return "", Idle
	}
	if slices.ContainsFunc(inner, schedulesPoll) {
		return functions.StageSoftirq, Inside
	}
	return "", interruption(inner)
}

// isException tells the entries that a task's own instructions cause, by a page fault for
// example.
func isException(function string) bool {
	return strings.HasPrefix(function, "asm_exc_") && function != "asm_exc_nmi"
}

// schedulesPoll tells the functions by which a device's interrupt asks for a poll.
func schedulesPoll(f Frame) bool {
	return strings.HasPrefix(strings.TrimLeft(f.Function, "_"), "napi_schedule")
}

// unwound is the stage of a chain that the kernel could not follow to its end, which
// happens at the first and the last instructions of BPF programs.
func unwound(stage functions.Stage, function string, sink bool, by task) (functions.Stage, Outside) {
	switch {
	case stage == "":
		return functions.StageOther, by.elsewhere()
	case isProgram(function) && strings.HasSuffix(function, "_generate"):
		return functions.StageGenerator, by.elsewhere()
	case sink && stage == functions.StageProgram:
		return functions.StageSink, Inside
	case stage == functions.StageProgram:
		return stage, Inside
	}
	return stage, by.elsewhere()
}

// StageOfCalls is the stage of a chain of calls by their names, the innermost first, in the
// task that sends the packets. sink tells that a poll under way is that of the sink. What
// does nothing for a packet is in [functions.StageOther].
func StageOfCalls(calls []string, sink bool) functions.Stage {
	frames := make([]Frame, len(calls))
	for i, name := range calls {
		frames[i].Function = name
	}
	stage, outside := classify(frames, sink, sender)
	if outside != Inside || stage == "" {
		return functions.StageOther
	}
	return stage
}

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// Measurement is what a guest counted.
type Measurement struct {
	Host host.Fingerprint `json:"host"`
	// Build is what the guest found of the build that ran in it.
	Build *record.LabBuild `json:"build,omitempty"`
	// Mapped is how the interfaces' memory is mapped, as the guest found it; empty for
	// veth, which has none to map.
	Mapped DMA `json:"mapped,omitempty"`
	// Uncounted are indirect branches of the path that cannot be counted.
	Uncounted []string `json:"uncounted,omitempty"`
	// Stamp is how many instructions the indirect branch of the observer's time stamp
	// takes, 0 when there is none. A window holds one.
	Stamp int `json:"stamp"`
	// Bulks are in the order asked for.
	Bulks []BulkCount `json:"bulks"`
	// Codes are what was loaded while slots were traced, each a [Traced.Code].
	Codes []GuestCode `json:"codes,omitempty"`
	// Program is what was counted of a program of the user's, in place of bulks.
	Program *progcount.Counted `json:"program,omitempty"`

	traces []programRun // of Program.Traced, as they were cut outside of the guest
	memory int          // what it takes, in bytes, as it is estimated
}

// BulkCount is what a packet of a scenario goes through at one bulk. On veth that is all
// from the generator's call to the packet's end. On wires it is what runs in the NAPI
// polls of the interface that redirects and of the one it redirects to, and in the
// transmission by that one.
type BulkCount struct {
	// Scenario is empty for [DefaultScenario].
	Scenario string `json:"scenario,omitempty"`
	Bulk     int    `json:"bulk"`
	// Refused says why nothing was counted, in one line; Failed that it was no lack of the
	// kernel's.
	Refused string `json:"refused,omitempty"`
	Failed  bool   `json:"failed,omitempty"`
	// Unprobed says why no kprobe counted indirect branches, in one line: those of the trace are taken, see [Measurement.fromTraces].
	Unprobed string `json:"unprobed,omitempty"`
	// Unsettled says which of them kprobes could not count, in one line.
	Unsettled string `json:"unsettled,omitempty"`
	// Instructions per packet: the least of all windows of Window packets, as the
	// others hold a timer's tick. Without an exact clock it is time in ns, and means
	// nothing. On wires it is the median of windows within a poll, so that it lacks
	// what completes transmission; nil for bursts that are not whole polls.
	Instructions *float64 `json:"instructions"`
	// Spread is that of a row: nil on veth.
	Spread  *float64 `json:"spread,omitempty"`
	Windows int      `json:"windows"`
	// Ns is the time of a packet in ns, of the whole chain as `bench` takes it, on wires
	// of windows within a poll. Nil unless time was measured.
	Ns     *stat.Quantity `json:"ns,omitempty"`
	Window int            `json:"window"`
	// Sent, Redirected and Received are packets of the slots that instructions were
	// taken from, on wires of all slots.
	Sent       uint64 `json:"sent"`
	Redirected uint64 `json:"redirected"`
	Received   uint64 `json:"received"`
	// Sites are the indirect branches that every packet, or every bulk, goes through.
	Sites []record.LabSite `json:"sites"`
	// NotExecuted are those with a probe that nothing went through.
	NotExecuted []record.LabPlace `json:"not-executed,omitempty"`
	// Functions are entries of functions per packet.
	Functions []record.LabFunction `json:"functions"`
	// Traced is the slot that is traced from outside, Trace what came of it there. Untraced says why none is.
	Traced   *Traced          `json:"traced,omitempty"`
	Untraced string           `json:"untraced,omitempty"`
	Trace    *record.LabTrace `json:"-"`
	// Doubts are what is to be said of the row's trace, a sentence each.
	Doubts []string `json:"-"`
}

// doubts are all that is to be said of a row's count.
func (b *BulkCount) doubts() []string {
	if b.Unsettled == "" {
		return b.Doubts
	}
	return append([]string{b.Unsettled}, b.Doubts...)
}

// The parts of a chain over wires that are told apart.
const (
	InPoll  = "in-poll"  // NAPI polls of the interface that redirects
	OutXmit = "out-xmit" // transmission by the one it redirects to
	OutPoll = "out-poll" // NAPI polls of that one, which complete transmission
	Worker  = "worker"   // system calls of the worker that forwards, where one does
)

// parts are those of a packet's way on wires.
func (b *BulkCount) parts() []string {
	all := []string{InPoll, OutXmit, OutPoll}
	if byWorker(redirect.Scenario(b.Scenario)) {
		all = append(all, Worker)
	}
	return all
}

// byWorker tells whether a worker in user space forwards.
func byWorker(s redirect.Scenario) bool { return slices.Contains(redirect.WorkerScenarios(), s) }

// window is the least distance of two time stamps, in packets: some lie between two
// ticks of a kernel with 1000 a second, which takes one every million instructions.
const window = 128

// slots a bulk is measured in: nearly all have a window without a tick. Where the scheduler takes part, few windows have
// none of what it does from time to time: redirect-cpu differed by 8 instructions a packet between two builds of unthunk.
const slots, slotsBeyond = 6, 24

// timeOf is what measuring time takes in a guest.
const timeOf = 10 * time.Second

// add counts a span's packets, and takes its shortest window when that is the shortest.
func (b *BulkCount) add(span redirect.Span) {
	b.Sent, b.Redirected, b.Received = b.Sent+span.Sent, b.Redirected+span.Redirected, b.Received+span.Received
	b.Window = span.Window
	for _, ns := range span.Windows {
		b.Windows++
		per := float64(ns) / float64(span.Window)
		if b.Instructions == nil || per < *b.Instructions {
			b.Instructions = &per
		}
	}
}

// hit is what a probe counts apart: the part of the chain that was at work, and the
// target of the branch.
type hit struct {
	probe  int
	part   string
	target uint64
}

// hits reads the counters. What is no part's is left out where parts are told apart.
func (p *probes) hits() (map[hit]uint64, error) {
	raw, err := p.Hits()
	if err != nil {
		return nil, err
	}
	out := make(map[hit]uint64)
	for h, n := range raw {
		part, ok := p.parts[work{h.Ifindex, h.Transmits, h.Called}]
		if ok || p.parts == nil {
			out[hit{h.Place, part, h.Target}] += n
		}
	}
	return out, nil
}

// during returns what is counted while send runs, and the packets that it sends. A slot
// that lost packets is sent again.
func (p *probes) during(send sender) (hits map[hit]uint64, packets uint64, err error) {
	for range tries {
		before, err := p.hits()
		if err != nil {
			return nil, 0, err
		}
		packets, err = send()
		// A softirq that a tick left to ksoftirqd lets a veth's ring run over.
		if errors.Is(err, rounds.ErrDisagree) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		hits, err = p.hits()
		for t, n := range before {
			if hits[t] -= n; hits[t] == 0 {
				delete(hits, t)
			}
		}
		return hits, packets, err
	}
	return nil, 0, fmt.Errorf("%w in each of %d slots", rounds.ErrDisagree, tries)
}

const tries = 5

// slotOf sends a slot of the veth chain.
func slotOf(ctx context.Context, arm *redirect.Measurement) sender {
	return func() (uint64, error) {
		span, ok, err := arm.Span(ctx)
		if err == nil && !ok {
			err = span.Disagree()
		}
		return span.Sent, err
	}
}

// count adds one count to a bulk's.
func (p *probes) count(b *BulkCount, t hit, per float64) {
	s, isSite := p.sites[t.probe]
	if !isSite {
		b.Functions = append(b.Functions, record.LabFunction{Function: p.Places[t.probe].Function, Part: t.part, PerPacket: per})
		return
	}
	name := ""
	// Symbols are older than the programs of a chain, which may lie where others were.
	if f, off, ok := p.kernel.Symbols.Find(t.target); ok && off == 0 && f.Module != "bpf" {
		name = f.Name
	}
	executed := s.executed
	if s.Check.Preamble() && s.executed > 0 { // the probe stands where the register still has the function
		preamble, _ := p.kernel.Preamble(t.target)
		executed += preamble.Instructions
	}
	for i := range b.Sites {
		if x := &b.Sites[i]; x.Function == s.Function && x.Offset == s.Offset && x.Part == t.part && x.Target == name {
			x.PerPacket += per
			return
		}
	}
	b.Sites = append(b.Sites, record.LabSite{
		Function: s.Function, Offset: s.Offset, Jump: s.Jump, Kind: string(s.Kind), Check: string(s.Check),
		Stage: string(s.Stage), Pointer: s.Pointer, Target: name, Part: t.part, Executed: executed, PerPacket: per,
	})
}

// leftOut adds the sites of the redirect path whose probes were not executed.
func (p *probes) leftOut(b *BulkCount, executed map[int]bool) {
	for probe, s := range p.sites {
		if !executed[probe] && !s.beyond {
			b.NotExecuted = append(b.NotExecuted, record.LabPlace{Function: s.Function, Offset: s.Offset, Pointer: s.Pointer})
		}
	}
}

func (b *BulkCount) sort() {
	slices.SortFunc(b.NotExecuted, func(x, y record.LabPlace) int {
		return cmp.Or(strings.Compare(x.Function, y.Function), cmp.Compare(x.Offset, y.Offset))
	})
	slices.SortFunc(b.Sites, func(x, y record.LabSite) int {
		return cmp.Or(strings.Compare(x.Part, y.Part), cmp.Compare(y.PerPacket, x.PerPacket),
			strings.Compare(x.Function, y.Function), cmp.Compare(x.Offset, y.Offset), strings.Compare(x.Target, y.Target))
	})
	slices.SortFunc(b.Functions, func(x, y record.LabFunction) int {
		return cmp.Or(strings.Compare(x.Part, y.Part), strings.Compare(x.Function, y.Function))
	})
}

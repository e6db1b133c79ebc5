package redirect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
)

// Chain is one chain on one core, for callers that run rounds of their own.
type Chain struct {
	rig *rig
}

// Build makes the i-th chain of a namespace whose thread runs on cpu. Close it
// before the namespace.
func Build(lab *netlab.Namespace, i int, scenario Scenario, cpu int) (*Chain, error) {
	spec := chainSpec{Scenario: scenario, Mode: Native, Size: DefaultSize, Place: OneCore}
	r, err := build(lab, i, spec, cores{generator: cpu, tested: cpu, other: cpu}, extras{})
	if err != nil {
		return nil, err
	}
	return &Chain{r}, nil
}

// BuildRow makes the i-th chain of a namespace whose thread runs on cpu, for a row
// of place [OneCore], with the program that [Chain.Phases] reads. Close it before
// the namespace.
func BuildRow(lab *netlab.Namespace, i int, row Row, cpu int) (*Chain, error) {
	cpus, err := pickCores(rounds.OnCPU(cpu), OneCore)
	if err != nil {
		return nil, err
	}
	r, err := build(lab, i, row.chainSpec, cpus, extras{phases: true})
	if err != nil {
		return nil, err
	}
	return &Chain{r}, nil
}

// PhaseProgram notes where the chain is for each sample of a perf event that it is
// attached to, for [Chain.Phases].
func (c *Chain) PhaseProgram() *ebpf.Program { return c.rig.progs.Phase }

// Phases appends to old what was noted from the n-th sample on, and returns it with
// how many samples there were.
func (c *Chain) Phases(n uint64, old []chain.Phase) ([]chain.Phase, uint64, error) {
	return c.rig.progs.Phases(n, old)
}

// Devices are the interfaces of the chain: the one whose NAPI runs the program
// under test, the one it redirects to, and the one where the sink is.
func (c *Chain) Devices() (tested, out, sink int) { return c.rig.tested, c.rig.out, c.rig.sink }

// Sink is the program that ends the chain.
func (c *Chain) Sink() *ebpf.Program { return c.rig.progs.Sink }

// SetPortProgram makes the devmap run a program for each frame on its way out;
// nil ends that. Requires at least Linux 5.8.
func (c *Chain) SetPortProgram(p *ebpf.Program) error {
	var want, got ebpf.ProgramID
	if p != nil {
		info, err := p.Info()
		if err != nil {
			return fmt.Errorf("read program: %w", err)
		}
		want, _ = info.ID()
	}
	err := c.rig.lab.Do(func() (err error) {
		if err = c.rig.progs.AddPort(0, c.rig.out, p); err == nil {
			got, err = c.rig.progs.PortProgram(0)
		}
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("the devmap runs program %d, not %d", got, want)
	}
	return err
}

// Close unloads the programs.
func (c *Chain) Close() error { return c.rig.Close() }

// Arm is a chain at one bulk, measured slot by slot.
type Arm struct {
	arm *arm
}

// Arm returns an arm that has sent its first slot.
func (c *Chain) Arm(ctx context.Context, bulk int) (*Arm, error) {
	a, err := newArm(c.rig, bulk, &RawRow{})
	if err != nil {
		return nil, err
	}
	return &Arm{a}, a.warmUp(ctx)
}

// Span is a time in which a chain did nothing but its work.
type Span struct {
	Start, End uint64 // CLOCK_MONOTONIC in ns
	Frames     uint64
	// Counts are frames of the whole slot.
	rounds.Counts
	// Windows are the times of parts of Window frames each, in ns.
	Windows []uint64
	Window  int
}

// NsPerFrame is the time of a frame.
func (s Span) NsPerFrame() float64 { return float64(s.End-s.Start) / float64(s.Frames) }

// Span measures one slot: the time between its second time stamp and its last. It
// returns false when the slot's packet counts disagree; the counts are there then,
// and nothing else.
func (a *Arm) Span(ctx context.Context) (Span, bool, error) {
	s, _, err := a.arm.send(ctx)
	span := Span{Counts: counts(s), Window: a.arm.window}
	if err != nil || !a.arm.count(s) || len(s.Stamps) < 3 {
		return span, false, err
	}
	for i := 2; i < len(s.Stamps); i++ {
		span.Windows = append(span.Windows, s.Stamps[i]-s.Stamps[i-1])
	}
	span.Start, span.End = s.Stamps[1], s.Stamps[len(s.Stamps)-1]
	span.Frames = uint64(len(span.Windows) * span.Window)
	return span, true, nil
}

// SetWindow makes windows of at least frames frames, in whole bulks.
func (a *Arm) SetWindow(frames int) { a.arm.setWindow(frames) }

// Lengthen makes slots n times as long, where the chain can hold as many frames.
func (a *Arm) Lengthen(n int) {
	if (a.arm.windows+2)*a.arm.window*n < a.arm.rig.capacity() {
		a.arm.window *= n
	}
}

// Slot measures for about 3 ms, unless lengthened.
func (a *Arm) Slot(ctx context.Context) error { return a.arm.slot(ctx) }

// Ns is the time of the whole chain in ns per frame: the 10th percentile of the
// windows of all slots so far. It fails when the packet counts of more than one
// slot in twenty disagreed.
func (a *Arm) Ns() (float64, error) {
	row := a.arm.row
	if row.Slots.Unusable() || len(a.arm.ns) == 0 {
		return 0, row.Counts.Disagree()
	}
	return rounds.Undisturbed(a.arm.ns), nil
}

// Calls are how often something happens for one redirected packet, between the
// receiving poll that redirects it and the program that ends the chain.
type Calls struct {
	// Xmits are calls of ndo_xdp_xmit, Softirqs of the NET_RX softirq's
	// action, Polls NAPI polls of the device redirected to, Redirects hits
	// of the tracepoint xdp_redirect.
	Xmits, Softirqs, Polls, Redirects float64
}

// Calls counts calls for d, by tracepoint programs: polls are those of In. It is all
// 0 when nothing arrived, and an error when frames do not leave by Out.
func (b *Borrowed) Calls(ctx context.Context, d time.Duration) (Calls, error) {
	o, err := observe.New(observe.Config{Netns: b.netns, From: b.In, Polled: b.In})
	if err != nil {
		return Calls{}, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	seen, err := o.Seen()
	if err = errors.Join(err, o.Close(), ctx.Err()); err != nil {
		return Calls{}, err
	}
	if tried := seen.Redirects + seen.Errors; tried > 0 && seen.Errors+seen.Drops > tried/1000 {
		return Calls{}, fmt.Errorf("%w: of %d frames that came, %d could not be redirected and %d were refused by the device they were to leave by", rounds.ErrDisagree, tried, seen.Errors, seen.Drops)
	}
	if seen.Redirects == 0 {
		return Calls{}, nil
	}
	return perFrame(seen, seen.Redirects), nil
}

func perFrame(seen observe.Seen, frames uint64) Calls {
	each := func(n uint64) float64 { return float64(n) / float64(frames) }
	return Calls{each(seen.Calls), each(seen.Softirqs), each(seen.Polls), each(seen.Redirects)}
}

// Count counts calls in one slot, by tracepoint programs.
func (a *Arm) Count(ctx context.Context) (calls Calls, err error) {
	r := a.arm.rig
	o, err := observe.New(observe.Config{Netns: r.lab.Inode, From: r.tested, Polled: r.sink})
	if err != nil {
		return calls, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	s, _, err := a.arm.send(ctx)
	if err != nil {
		return calls, err
	}
	seen, err := o.Seen()
	if err != nil {
		return calls, err
	}
	if s.Received == 0 {
		return calls, errors.New("count calls: no frame arrived")
	}
	return perFrame(seen, s.Received), nil
}

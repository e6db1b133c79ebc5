package redirect

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"unthunk/internal/bpf/observe"
	"unthunk/netlab"
)

// Chain is one chain on one core, for callers that run rounds of their own.
type Chain struct {
	rig *rig
}

// PickCPU returns the core under test: want, or with -1 the last one this
// process may run on.
func PickCPU(want int) (int, error) {
	cpus, err := pickCores(want, OneCore)
	return cpus.tested, err
}

// Build makes the i-th chain of a namespace whose thread runs on cpu. Close it
// before the namespace.
func Build(lab *netlab.Namespace, i int, scenario Scenario, cpu int) (*Chain, error) {
	spec := chainSpec{Scenario: scenario, Mode: Native, Size: DefaultSize, Place: OneCore}
	r, err := build(lab, i, spec, cores{generator: cpu, tested: cpu, other: cpu}, false)
	if err != nil {
		return nil, err
	}
	return &Chain{r}, nil
}

// Tested and Sink are the program under test and the one that ends the chain.
func (c *Chain) Tested() *ebpf.Program { return c.rig.progs.Tested }
func (c *Chain) Sink() *ebpf.Program   { return c.rig.progs.Sink }

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

// Slot measures for about 3 ms.
func (a *Arm) Slot(ctx context.Context) error { return a.arm.slot(ctx) }

// Ns is the time of the whole chain in ns per frame: the 10th percentile of the
// windows of all slots so far. It fails when the packet counts of more than one
// slot in twenty disagreed.
func (a *Arm) Ns() (float64, error) {
	row := a.arm.row
	if float64(row.BadSlots) > maxBad*float64(row.Slots) || len(a.arm.ns) == 0 {
		return 0, fmt.Errorf("packet counts disagree: %d sent, %d redirected, %d received", row.Sent, row.Tested, row.Received)
	}
	return undisturbed(a.arm.ns), nil
}

// Calls are how often something happens for one redirected packet, between the
// receiving poll that redirects it and the program that ends the chain.
type Calls struct {
	// Xmits are calls of ndo_xdp_xmit, Softirqs of the NET_RX softirq's
	// action, Polls NAPI polls of the device redirected to, Redirects hits
	// of the tracepoint xdp_redirect.
	Xmits, Softirqs, Polls, Redirects float64
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
	each := func(n uint64) float64 { return float64(n) / float64(s.Received) }
	return Calls{each(seen.Calls), each(seen.Softirqs), each(seen.Polls), each(seen.Redirects)}, nil
}

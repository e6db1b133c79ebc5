package redirect

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
)

// NICs names the interfaces of a chain over wires: Generator's frames arrive at In,
// which redirects them to Out, and those arrive at Sink. All have XDP of their own.
type NICs struct{ Generator, In, Out, Sink string }

// Wired is a chain over wires.
type Wired struct {
	// In and Out are the indexes of the interface that redirects, and of the one
	// it redirects to.
	In, Out int

	rig  *rig
	live traffic.Live
}

// nicWindow is how many frames are between two time stamps: the devmap hands so many
// at once to ndo_xdp_xmit (DEV_MAP_BULK_SIZE in kernel/bpf/devmap.c).
const nicWindow = 16

// BuildNICs makes a chain of interfaces, which it takes from this thread's network
// namespace into lab. Close it before lab. Requires Linux 5.18 and drivers with XDP.
func BuildNICs(ctx context.Context, lab *netlab.Namespace, names NICs) (w *Wired, err error) {
	r := &rig{spec: chainSpec{Scenario: Map, Mode: Native, Size: DefaultSize, Place: OneCore}, lab: lab, counted: true, patience: emulated}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build chain over wires: %w", err), r.Close())
		}
	}()
	var generator int
	for _, nic := range []struct {
		name    string
		ifindex *int
	}{{names.Generator, &generator}, {names.In, &r.tested}, {names.Out, &r.out}, {names.Sink, &r.sink}} {
		if *nic.ifindex, err = lab.Take(nic.name); err != nil {
			return nil, err
		}
	}
	if r.progs, err = chain.Load(chain.Config{Program: Map.program(), Clock: chain.TestedClock, Bursts: true}); err != nil {
		return nil, err
	}
	// Many drivers have queues for redirected frames only while they run an XDP
	// program themselves: the generator's and Out are given ones, which meet nothing.
	if err := lab.Attach(r.progs.Sink, r.sink, link.XDPDriverMode); err != nil {
		return nil, err
	}
	for _, ifindex := range []int{generator, r.out} {
		if err := lab.Attach(r.progs.Generate, ifindex, link.XDPDriverMode); err != nil {
			return nil, err
		}
	}
	if err := lab.Attach(r.progs.Tested, r.tested, link.XDPDriverMode); err != nil {
		return nil, err
	}
	err = lab.Do(func() error {
		if err := r.progs.SendTo(generator); err != nil {
			return err
		}
		if err := r.progs.AddPort(0, r.out, nil); err != nil {
			return err
		}
		return awaitUp(ctx, generator, r.tested, r.out, r.sink)
	})
	if err != nil {
		return nil, err
	}
	frame, err := r.frame()
	return &Wired{In: r.tested, Out: r.out, rig: r, live: traffic.Live{Program: r.progs.Generate, Frame: frame}}, err
}

// Send sends frames, a multiple of burst, in bursts, each after the one before has
// arrived, and returns what was counted, with the times between every 16 frames of the
// first thousand, in ns.
func (w *Wired) Send(ctx context.Context, burst, frames int) (Span, error) {
	span := Span{Window: nicWindow}
	if err := w.rig.progs.ResetBursts(nicWindow, burst, frames); err != nil {
		return span, err
	}
	w.live.Batch = burst
	var s chain.State
	for last, idle := uint64(0), 0; s.Sent < uint64(frames); last = s.Sent {
		err := w.rig.lab.Do(func() error {
			_, err := w.live.Send(ctx, (waitingFrames+burst-1)/burst*burst)
			return err
		})
		if err != nil {
			return span, err
		}
		if s, err = w.rig.settle(ctx); err != nil {
			return span, err
		}
		if idle++; s.Sent > last {
			idle = 0
		}
		if idle == maxIdle || s.Received < s.Sent {
			break
		}
	}
	span.Counts = counts(s)
	for i := 1; i < len(s.Stamps); i++ {
		span.Windows = append(span.Windows, s.Stamps[i]-s.Stamps[i-1])
	}
	if span.Sent != uint64(frames) || !span.Agree(1) {
		return span, span.Disagree()
	}
	return span, nil
}

// emulated is a patience for wires that are emulated by a thread which may get its CPU
// late, while time in the guest runs on.
const emulated = 30_000

// While a burst is under way the generator makes frames that it drops: so many of both
// at a time, and so often in vain.
const (
	waitingFrames = 1 << 13
	maxIdle       = 16
)

// Close unloads the programs. The interfaces go back with the namespace.
func (w *Wired) Close() error { return w.rig.Close() }

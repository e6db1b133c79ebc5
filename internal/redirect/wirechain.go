package redirect

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

// WireDevices names the devices of a wire chain: the frames of Generator arrive at In, which redirects them to Out, and
// those arrive at Sink. All have XDP of their own.
type WireDevices struct{ Generator, In, Out, Sink string }

// Wires are the devices of chains over wires between NICs, as a guest has them.
type Wires struct {
	// In and Out are the indexes of the device that redirects, and of the one it redirects to.
	In, Out int

	namespace                *netlab.Namespace
	generator, in, out, sink netlab.Device
}

// WireChain is a chain over wires.
type WireChain struct {
	chain  *Chain
	live   traffic.Live
	wires  *Wires
	worker *worker // nil where the kernel forwards
}

// WireScenarios are those that chains over wires can have.
func WireScenarios() []Scenario { return append([]Scenario{Map, TX, Drop, Pass}, WorkerScenarios()...) }

// WorkerScenarios are those in which a worker in user space forwards (packages xsk and datapath): only chains over wires have
// them.
func WorkerScenarios() []Scenario { return []Scenario{ForwardCopy, ForwardZeroCopy} }

// WireWindow is how many frames are between two time stamps: the devmap hands that many at once to ndo_xdp_xmit
// (DEV_MAP_BULK_SIZE in kernel/bpf/devmap.c).
const WireWindow = 16

// TakeWires takes devices from this thread's network namespace into namespace: when that ends, they go back.
func TakeWires(namespace *netlab.Namespace, names WireDevices) (*Wires, error) {
	w := &Wires{namespace: namespace}
	for _, nic := range []struct {
		name string
		to   *netlab.Device
	}{{names.Generator, &w.generator}, {names.In, &w.in}, {names.Out, &w.out}, {names.Sink, &w.sink}} {
		var err error
		if *nic.to, err = namespace.Take(nic.name); err != nil {
			return nil, err
		}
	}
	w.In, w.Out = w.in.Index, w.out.Index
	return w, nil
}

// Build makes the i-th chain of the namespace of wires. Close it before the next. Requires Linux 5.18 and drivers with XDP.
func (w *Wires) Build(ctx context.Context, i int, scenario Scenario) (chained *WireChain, err error) {
	c := &Chain{
		spec:      ChainSpec{Scenario: scenario, Mode: Native, Size: DefaultSize, Layout: OneCore},
		namespace: w.namespace, number: i, counted: true, patience: patience{most: emulatedPolls},
		generator: w.generator, tested: w.in, out: w.out, sink: w.sink,
	}
	chained = &WireChain{chain: c, wires: w}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build chain over wires: %w", err), chained.Close())
		}
	}()
	c.programs, err = chain.Load(chain.Config{
		Program: scenario.program(), Clock: chain.TestedClock, Bursts: true, StackEnd: scenario == Pass,
	})
	if err != nil {
		return chained, err
	}
	if err := c.fillDispatcher(); err != nil {
		return chained, err
	}
	if mode, ok := workerModes[scenario]; ok {
		// Before any program: some drivers look at the fill ring when theirs is attached, and never again.
		if err := chained.startWorker(ctx, mode); err != nil {
			return chained, err
		}
	}
	// Many drivers have queues for redirected frames only while they run an XDP program themselves: the
	// generator's and Out are given ones, which meet nothing.
	onGenerator := c.programs.Generate
	if scenario == TX {
		onGenerator = c.programs.Sink
	}
	for _, attach := range []struct {
		to      netlab.Device
		program *ebpf.Program
	}{{c.sink, c.programs.Sink}, {c.generator, onGenerator}, {c.out, c.programs.Generate}, {c.tested, c.programs.Tested}} {
		if err := attach.to.Attach(attach.program, link.XDPDriverMode); err != nil {
			return chained, err
		}
	}
	if scenario == Pass {
		if err := c.tested.EndStack(c.programs.StackEnd); err != nil {
			return chained, err
		}
	}
	err = w.namespace.Do(func() error {
		if err := c.programs.SendTo(c.generator.Index); err != nil {
			return err
		}
		if scenario == Map {
			if err := c.programs.AddPort(0, c.out.Index, nil); err != nil {
				return err
			}
		}
		return device.AwaitUp(ctx, c.generator.Index, c.tested.Index, c.out.Index, c.sink.Index)
	})
	if err != nil {
		return chained, err
	}
	frame, err := scenario.frame(DefaultSize)
	chained.live = traffic.Live{Program: c.programs.Generate, Frame: frame}
	return chained, err
}

// workerModes are how workers' sockets are bound.
var workerModes = map[Scenario]xsk.Mode{ForwardCopy: xsk.Copy, ForwardZeroCopy: xsk.ZeroCopy}

// startWorker makes the worker that forwards.
func (w *WireChain) startWorker(ctx context.Context, mode xsk.Mode) error {
	err := w.wires.namespace.Do(func() (err error) {
		w.worker, err = newWorker(ctx, w.wires.In, w.wires.Out, mode)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.chain.programs.Sockets.Put(uint32(0), uint32(w.worker.in.FD())); err != nil {
		return fmt.Errorf("update sockets: %w", err)
	}
	w.worker.start()
	return nil
}

// Send sends frames, a multiple of burst, in bursts, each after the one before has arrived. It returns what was counted,
// with the times between every 16 frames of the first thousand, in ns.
func (w *WireChain) Send(ctx context.Context, burst, frames int) (Span, error) {
	span := Span{Window: WireWindow}
	if err := w.chain.programs.ResetBursts(WireWindow, burst, frames); err != nil {
		return span, err
	}
	w.live.Batch = burst
	var s chain.State
	for last, idle := uint64(0), 0; s.Sent < uint64(frames); last = s.Sent {
		err := w.chain.namespace.Do(func() error {
			_, err := w.live.Send(ctx, (waitingFrames+burst-1)/burst*burst)
			return err
		})
		if err != nil {
			return span, err
		}
		if s, err = w.chain.settle(ctx); err != nil {
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

// emulatedPolls is half a minute: wires are emulated by a thread that may get its CPU late, while time in the guest runs
// on.
const emulatedPolls = 30_000

// While a burst is under way the generator makes frames that it drops. waitingFrames is how many of both it makes at a
// time, maxIdle how often it does so in vain.
const (
	waitingFrames = 1 << 13
	maxIdle       = 16
)

// Close unloads the programs.
func (w *WireChain) Close() error {
	var errs []error
	if w.worker != nil {
		errs = append(errs, w.worker.Close())
	}
	for _, d := range []netlab.Device{w.wires.generator, w.wires.in, w.wires.out, w.wires.sink, w.chain.idle} {
		if d.Index != 0 && d.Attached() {
			errs = append(errs, d.Detach())
		}
	}
	return errors.Join(append(errs, w.chain.Close())...)
}

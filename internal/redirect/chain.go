package redirect

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Chain is a chain of devices and their programs, ready to run. Its thread is that of the namespace.
type Chain struct {
	spec      ChainSpec
	cpus      cores
	namespace *netlab.Namespace
	number    int // of the chain within its namespace
	programs  *chain.Programs
	counted   bool
	patience  patience
	// generator is the device that the generator sends through, tested the one whose NAPI runs the program under test,
	// out the one it redirects to, and sink the one that receives there.
	generator, tested, out, sink netlab.Device
	// elsewhere counts frames that arrive where no program of the chain runs; nil when there are none.
	elsewhere arrivals
	// verdicts counts what the program under test says, where it is none of this package's; else nil.
	verdicts *verdicts
	// source sends packets in place of the generator's live frames; nil where those are sent. sent is how many of a slot.
	source source
	sent   uint64
	// packets are what live frames are made of; nil when all are alike. exact chains keep them here.
	packets *ebpf.Map
	// filler is a program that does nothing, and idle the device that it is attached to: see [Chain.fillDispatcher].
	filler *ebpf.Program
	idle   netlab.Device
	// twin is set when another chain has the same programs: see [run.buildTwins].
	twin bool
}

// variant is what a chain's programs do besides moving frames.
type variant int

const (
	counting   variant = iota // count frames and take the time
	uncounted                 // nothing, to price the counting
	withPhases                // as counting, and note where the chain is; see [Chain.Phases]
	exact                     // as counting, so that two chains take the same instructions; see [BuildExact]
	twin                      // as counting, with the program of the same chain without the redirect; see [run.buildTwins]
)

// Build makes the i-th chain of a namespace whose thread runs on cpu. Close it before the namespace.
func Build(ctx context.Context, namespace *netlab.Namespace, i int, scenario Scenario, cpu int) (*Chain, error) {
	spec := ChainSpec{Scenario: scenario, Mode: Native, Size: DefaultSize, Layout: OneCore}
	return build(ctx, namespace, i, spec, cores{generator: cpu, tested: cpu, other: cpu}, counting)
}

// BuildTarget makes the i-th chain of a namespace whose thread runs on cpu, with the target or, for the same packets, with
// a program that drops. Close it before the namespace.
func BuildTarget(ctx context.Context, namespace *netlab.Namespace, i int, t *Target, drops bool, cpu int) (*Chain, error) {
	spec := ChainSpec{Scenario: Prog, Mode: Native, Size: DefaultSize, Layout: OneCore, Target: t}
	if drops {
		spec = spec.without()
	}
	return build(ctx, namespace, i, spec, cores{generator: cpu, tested: cpu, other: cpu}, counting)
}

// BuildRow makes the i-th chain of a namespace whose thread runs on cpu, for a row of the layout [OneCore], with the
// program that [Chain.Phases] reads. Close it before the namespace.
func BuildRow(ctx context.Context, namespace *netlab.Namespace, i int, row Row, cpu int) (*Chain, error) {
	cpus, err := pickCores(rounds.OnCPU(cpu), OneCore)
	if err != nil {
		return nil, err
	}
	return build(ctx, namespace, i, row.ChainSpec, cpus, withPhases)
}

// build makes the i-th chain of a namespace:
//
//	generator → gNa ==veth== gNb → program under test → tNa ==veth== tNb → sink
//
// The sinks are attached first: a veth takes redirected frames only when its peer has an XDP program. The generator is
// attached to a device that receives nothing: then it is in the BPF dispatcher before BPF_PROG_TEST_RUN puts it there,
// which would wait for RCU twice.
func build(
	ctx context.Context, namespace *netlab.Namespace, i int, spec ChainSpec, cpus cores, v variant,
) (c *Chain, err error) {
	c = &Chain{
		spec: spec, cpus: cpus, namespace: namespace, number: i,
		counted: v != uncounted, patience: patience{most: patientPolls}, twin: v == twin,
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build chain %s: %w", spec.Scenario, err), c.Close())
			c = nil
		}
	}()
	if c.generator, c.tested, err = c.vethPair(0, "g"); err != nil {
		return c, err
	}
	index := 0
	if spec.Scenario == Prog { // of which a namespace has one
		index = NextIndex
	}
	if c.out, c.sink, err = c.vethPair(index, "t"); err != nil {
		return c, err
	}
	config := c.config(v)
	if spec.Scenario.intoStack() {
		if c.packets, err = tcpSegments(); err != nil {
			return c, err
		}
		config.Packets, config.MadeBytes = c.packets, 2*DefaultSize
	}
	if c.programs, err = chain.Load(config); err != nil {
		return c, err
	}
	if err := namespace.Do(func() error { return c.programs.SendTo(c.generator.Index) }); err != nil {
		return c, err
	}
	if err := c.sink.Attach(c.programs.Sink, link.XDPDriverMode); err != nil {
		return c, err
	}
	if err := c.out.Attach(c.programs.Generate, link.XDPDriverMode); err != nil {
		return c, err
	}
	if spec.Target != nil {
		if err := c.setUpTarget(); err != nil {
			return c, err
		}
	}
	if connect := spec.Scenario.connection(); connect != nil {
		if err := connect(c, ctx); err != nil {
			return c, err
		}
	}
	if v == exact {
		if err := c.makeExact(ctx); err != nil {
			return c, err
		}
	}
	return c, c.attachTested(ctx)
}

// vethPair makes two connected devices, the first with an index or, with 0, any. Their names are unique on the machine:
// [netlab.Device.ThreadNAPI] asks for it.
func (c *Chain) vethPair(index int, kind string) (a, b netlab.Device, err error) {
	name := func(end string) string {
		return fmt.Sprintf("%s%d%s%s", kind, c.number, end, strconv.FormatUint(uint64(c.namespace.Inode&0xffffff), 36))
	}
	return c.namespace.VethPairAt(index, name("a"), name("b"))
}

// The most frames that the generator may have under way when they arrive on another CPU. A veth's ring holds 256
// (VETH_RING_SIZE in drivers/net/veth.c); the counter is read a little late.
const (
	vethLimit   = 128
	cpumapQueue = 2048
	cpumapLimit = 1024
)

// config is what is fixed when the chain's programs are loaded.
func (c *Chain) config(v variant) chain.Config {
	config := chain.Config{
		Program:    c.spec.Scenario.program(),
		Operation:  c.spec.Operation.op,
		Spins:      c.spec.Operation.spins,
		Uncounted:  v == uncounted,
		Clock:      chain.GeneratorClock,
		OutIfindex: c.out.Index,
		CPU:        c.cpus.other,
		Phases:     v == withPhases,
		Drop:       v == twin,
	}
	if c.spec.Layout == TwoCore {
		config.Limit, config.Clock = vethLimit, chain.TestedClock
	}
	if t := c.spec.Target; t != nil {
		config.Packets, config.MadeBytes, config.DriverCounts = t.packets, t.madeBytes(), true
	}
	switch s := c.spec.Scenario; {
	case v == exact: // slots are short, and nothing runs beside the chain: nobody has to wait
		config.Frags, config.Egress, config.IntoStack = ways[s].frags, s == Egress, s.intoStack()
		if ways[s].origin != liveFrames {
			config.Clock = chain.TestedClock
		}
	case s == XSK:
		config.Most = xskRing - traffic.MaxBatch
	case s == CPU:
		config.LimitToSink = true
		if c.spec.Layout == OneCore {
			config.Limit = cpumapLimit
		}
	}
	if v == uncounted {
		config.Clock = chain.NoClock
	}
	return config
}

// attachTested attaches the program under test, last.
func (c *Chain) attachTested(ctx context.Context) error {
	mode := link.XDPDriverMode
	if c.spec.Mode == Generic {
		mode = link.XDPGenericMode
		if err := c.tested.EnableGRO(); err != nil {
			return err
		}
	}
	if err := c.tested.Attach(c.programs.Tested, mode); err != nil {
		return err
	}
	if c.spec.Layout == TwoCore {
		return c.tested.ThreadNAPI(ctx, c.cpus.tested)
	}
	return nil
}

// addPort makes a device the i-th port of the devmap.
func (c *Chain) addPort(i int, d netlab.Device) error {
	return c.namespace.Do(func() error { return c.programs.AddPort(i, d.Index, nil) })
}

func (c *Chain) connectPort(context.Context) error { return c.addPort(0, c.out) }

func (c *Chain) connectTwoPorts(context.Context) error {
	out, sink, err := c.vethPair(0, "u")
	if err != nil {
		return err
	}
	if err := sink.Attach(c.programs.Sink, link.XDPDriverMode); err != nil {
		return err
	}
	return errors.Join(c.addPort(0, c.out), c.addPort(1, out))
}

func (c *Chain) connectCPU(context.Context) error {
	return c.programs.AddCPU(c.cpus.other, cpumapQueue)
}

func (c *Chain) connectBack(context.Context) error {
	return c.generator.Attach(c.programs.Sink, link.XDPDriverMode)
}

func (c *Chain) connectSocket(ctx context.Context) error {
	return c.namespace.Do(func() error {
		s, err := newSocketSink(ctx, c.tested.Index, 0)
		if err != nil {
			return err
		}
		c.elsewhere = s
		if err := c.programs.Sockets.Put(uint32(0), uint32(s.socket.FD())); err != nil {
			return fmt.Errorf("update sockets: %w", err)
		}
		return nil
	})
}

func (c *Chain) connectStack(context.Context) error {
	c.elsewhere = &stackDrops{device: c.tested}
	return nil
}

// PhaseProgram notes where the chain is for each sample of a perf event that it is attached to, for [Chain.Phases].
func (c *Chain) PhaseProgram() *ebpf.Program { return c.programs.Phase }

// Phases appends to old what was noted from the n-th sample on, and returns it with how many samples there were.
func (c *Chain) Phases(n uint64, old []chain.Phase) ([]chain.Phase, uint64, error) {
	return c.programs.Phases(n, old)
}

// Devices returns the indexes of the chain's devices: the one whose NAPI runs the program under test, the one that the
// program redirects to, and the one where the sink is.
func (c *Chain) Devices() (tested, out, sink int) { return c.tested.Index, c.out.Index, c.sink.Index }

// FindSinks calls find for each device where the chain's sink is, on the thread of their namespace, for the state words
// of its NAPIs: [Chain.Phases] reads them where a target is in the chain, which does not say what it has seen.
func (c *Chain) FindSinks(find func(ifindex int) ([]uint64, error)) error {
	var words []uint64
	for _, d := range []netlab.Device{c.sink, c.generator} {
		err := c.namespace.Do(func() error {
			more, err := find(d.Index)
			words = append(words, more...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.programs.SetSinks(words)
}

// Tested is the program under test.
func (c *Chain) Tested() *ebpf.Program { return c.programs.Tested }

// Sink is the program that ends the chain.
func (c *Chain) Sink() *ebpf.Program { return c.programs.Sink }

// Close unloads the programs. The devices end with the namespace.
func (c *Chain) Close() error {
	var errs []error
	if c.elsewhere != nil {
		errs = append(errs, c.elsewhere.Close())
	}
	if c.source != nil {
		errs = append(errs, c.source.Close())
	}
	if c.verdicts != nil {
		c.verdicts.close()
	}
	if c.programs != nil {
		errs = append(errs, c.programs.Close())
	}
	errs = append(errs, c.packets.Close(), c.filler.Close())
	return errors.Join(errs...)
}

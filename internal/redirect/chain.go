package redirect

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Frames the generator may have under way when the frames' end is on another
// CPU. A veth's ring holds 256 (VETH_RING_SIZE in drivers/net/veth.c); the
// counter is read a little late.
const (
	vethLimit   = 128
	cpumapQueue = 2048
	cpumapLimit = 1024
)

// rig is one chain, ready to run.
type rig struct {
	spec    chainSpec
	lab     *netlab.Namespace
	progs   *chain.Programs
	counted bool
	// patience is how many ms without a frame are waited for one, at least 1000.
	patience int
	// lossy is set once frames have been waited for in vain.
	lossy bool
	// tested is the device whose NAPI runs the program under test, out the
	// one it redirects to, and sink the one that receives there.
	tested, out, sink int
	xsk               *xskSink // of XSK only
	stackBefore       uint64   // of Pass only: StackDrops at the last reset
}

// extras are what a chain is built with besides its spec: nothing counted, or the
// program that notes where the chain is.
type extras struct {
	uncounted, phases bool
}

// build makes the i-th chain of a namespace:
//
//	generator → gNa ==veth== gNb → program under test → tNa ==veth== tNb → sink
//
// The sinks are attached first: a veth takes redirected frames only when its
// peer has an XDP program. The generator is attached to a device that
// receives nothing: it then stands in the BPF dispatcher already when
// BPF_PROG_TEST_RUN comes to put it there, which would wait for RCU twice.
func build(lab *netlab.Namespace, i int, spec chainSpec, cpus cores, also extras) (r *rig, err error) {
	r = &rig{spec: spec, lab: lab, counted: !also.uncounted}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build chain %s: %w", spec.Scenario, err), r.Close())
		}
	}()

	// Names are unique on the machine: ThreadNAPI asks for it.
	name := func(kind, end string) string {
		return fmt.Sprintf("%s%d%s%s", kind, i, end, strconv.FormatUint(uint64(lab.Inode&0xffffff), 36))
	}
	ga, gb, err := lab.VethPair(name("g", "a"), name("g", "b"))
	if err != nil {
		return r, err
	}
	ta, tb, err := lab.VethPair(name("t", "a"), name("t", "b"))
	if err != nil {
		return r, err
	}
	r.tested, r.out, r.sink = gb, ta, tb

	cfg := chain.Config{
		Program:    spec.Scenario.program(),
		Operation:  spec.Operation.op,
		Spins:      spec.Operation.spins,
		Uncounted:  also.uncounted,
		Clock:      chain.GeneratorClock,
		OutIfindex: ta,
		CPU:        cpus.other,
		Phases:     also.phases,
	}
	if spec.Place == TwoCore {
		cfg.Limit, cfg.Clock = vethLimit, chain.TestedClock
	}
	if spec.Scenario == XSK {
		cfg.Most = xskRing - traffic.MaxBatch
	}
	if spec.Scenario == CPU {
		cfg.LimitToSink = true
		if spec.Place == OneCore {
			cfg.Limit = cpumapLimit
		}
	}
	if also.uncounted {
		cfg.Clock = chain.NoClock
	}
	if r.progs, err = chain.Load(cfg); err != nil {
		return r, err
	}

	if err := lab.Do(func() error { return r.progs.SendTo(ga) }); err != nil {
		return r, err
	}
	if err := lab.Attach(r.progs.Sink, tb, link.XDPDriverMode); err != nil {
		return r, err
	}
	if err := lab.Attach(r.progs.Generate, ta, link.XDPDriverMode); err != nil {
		return r, err
	}
	switch spec.Scenario {
	case Map, MapHash, Multi:
		if err := lab.Do(func() error { return r.progs.AddPort(0, ta, nil) }); err != nil {
			return r, err
		}
	case CPU:
		if err := r.progs.AddCPU(cpus.other, cpumapQueue); err != nil {
			return r, err
		}
	case TX:
		if err := lab.Attach(r.progs.Sink, ga, link.XDPDriverMode); err != nil {
			return r, err
		}
	case XSK:
		if err := lab.Do(func() (err error) { r.xsk, err = newXSKSink(gb, 0); return err }); err != nil {
			return r, err
		}
		if err := r.progs.Sockets.Put(uint32(0), uint32(r.xsk.fd)); err != nil {
			return r, fmt.Errorf("update sockets: %w", err)
		}
	}
	if spec.Scenario == Multi {
		ua, ub, err := lab.VethPair(name("u", "a"), name("u", "b"))
		if err != nil {
			return r, err
		}
		if err := lab.Attach(r.progs.Sink, ub, link.XDPDriverMode); err != nil {
			return r, err
		}
		if err := lab.Do(func() error { return r.progs.AddPort(1, ua, nil) }); err != nil {
			return r, err
		}
	}

	mode := link.XDPDriverMode
	if spec.Mode == Generic {
		mode = link.XDPGenericMode
		if err := lab.EnableGRO(name("g", "b")); err != nil {
			return r, err
		}
	}
	if err := lab.Attach(r.progs.Tested, gb, mode); err != nil {
		return r, err
	}
	if spec.Place == TwoCore {
		return r, lab.ThreadNAPI(name("g", "b"), cpus.tested)
	}
	return r, nil
}

// frame is the content of the chain's frames.
func (r *rig) frame() ([]byte, error) {
	if r.spec.Scenario == Pass {
		return traffic.UnknownFrame(r.spec.Size)
	}
	return traffic.UDPFrame(r.spec.Size)
}

// reset starts a slot with a time stamp every window frames.
func (r *rig) reset(window int) (err error) {
	if r.xsk != nil {
		r.xsk.drain()
	}
	if r.spec.Scenario == Pass {
		if r.stackBefore, err = r.lab.StackDrops(r.tested); err != nil {
			return err
		}
	}
	return r.progs.Reset(window)
}

// capacity is the largest number of frames a slot may hold.
func (r *rig) capacity() int {
	if r.xsk != nil {
		return xskRing
	}
	return 1 << 24
}

// settle waits until every frame sent has arrived, or until none has come for
// a second, and returns the slot's counts. On one core there is nothing to
// wait for but a softirq that was left to ksoftirqd; a NAPI thread may have to
// wait for its CPU. A chain that has lost frames once is waited for 20 ms only.
func (r *rig) settle(ctx context.Context) (chain.State, error) {
	var last uint64
	patience := max(r.patience, 1000)
	if r.lossy {
		patience = 20
	}
	for quiet := 0; ; quiet++ {
		s, err := r.state()
		if err != nil || !r.counted || s.Received >= s.Sent*r.spec.Scenario.copies() || quiet == patience {
			if quiet == patience {
				r.lossy = true
			}
			return s, err
		}
		if err := ctx.Err(); err != nil {
			return s, err
		}
		if s.Received != last {
			last, quiet = s.Received, 0
		}
		time.Sleep(time.Millisecond)
	}
}

// state reads the sink first: what it has received, the others have counted.
func (r *rig) state() (chain.State, error) {
	var outside uint64
	if r.xsk != nil {
		outside = r.xsk.received()
	}
	if r.spec.Scenario == Pass {
		now, err := r.lab.StackDrops(r.tested)
		if err != nil {
			return chain.State{}, err
		}
		outside = now - r.stackBefore
	}
	s, err := r.progs.State()
	s.Received += outside
	return s, err
}

// Close unloads the programs. Devices go with the namespace.
func (r *rig) Close() error {
	var errs []error
	if r.xsk != nil {
		errs = append(errs, r.xsk.Close())
	}
	if r.progs != nil {
		errs = append(errs, r.progs.Close())
	}
	return errors.Join(errs...)
}

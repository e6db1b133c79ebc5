package redirect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
)

// BuildExact makes the chain of a row for a guest whose clock counts instructions: two such chains take the same ones. It
// also makes those that [Scenarios] does not list, on one CPU, in a namespace that has no other chain. Close it before
// the namespace. Requires at least Linux 5.18 for live frames, which scenarios with another source do without.
func BuildExact(ctx context.Context, namespace *netlab.Namespace, row Row, cpu int) (*Chain, error) {
	return build(ctx, namespace, 0, row.ChainSpec, cores{generator: cpu, tested: cpu, other: cpu}, exact)
}

// makeExact does what is done for exact chains alone.
func (c *Chain) makeExact(ctx context.Context) error {
	s := c.spec.Scenario
	if s.ByCPUThread() {
		if err := c.preferCPUThread(ctx); err != nil {
			return err
		}
	}
	if ways[s].frags {
		for _, d := range []netlab.Device{c.generator, c.tested, c.out, c.sink} {
			if err := d.SetMTU(fragsMTU); err != nil {
				return err
			}
		}
	}
	if err := c.openSource(ctx); err != nil {
		return err
	}
	if s.onceEach() && c.spec.Mode == Native && c.source == nil {
		return nil
	}
	return c.fillDispatcher()
}

// fillDispatcher attaches a fourth program to a device that receives nothing. The dispatcher (arch/x86/net/bpf_jit_comp.c)
// compares a program's address with those of all others in a tree: among three programs one is found sooner than the
// others, and which one it is depends on where they lie.
func (c *Chain) fillDispatcher() (err error) {
	if c.idle, _, err = c.vethPair(0, "f"); err != nil {
		return err
	}
	c.filler, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "filler", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	return c.idle.Attach(c.filler, link.XDPDriverMode)
}

// preferCPUThread lets the thread of the cpumap's entry run as soon as it has frames: at the end of each batch, before
// the generator's next one. By itself it would run when the scheduler finds that the generator had its share. The generator
// is of the same class, below it: from and to a fair task each switch does what the time says, as averages and deadlines.
func (c *Chain) preferCPUThread(ctx context.Context) error {
	info, err := c.programs.CPUs.Info()
	if err != nil {
		return fmt.Errorf("read cpumap: %w", err)
	}
	id, _ := info.ID()
	name := fmt.Sprintf("cpumap/%d/map:%d", c.cpus.other, id) // __cpu_map_entry_alloc in kernel/bpf/cpumap.c
	pid, err := netlab.KernelThread(func(got string) bool {
		return got == name || len(got) == 15 && strings.HasPrefix(name, got) // before Linux 5.17
	})
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("find thread %s: no such kernel thread", name)
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 2}
	if err := unix.SchedSetAttr(pid, &attr, 0); err != nil {
		return fmt.Errorf("prefer thread %s: %w", name, err)
	}
	attr.Priority, attr.Flags = 1, unix.SCHED_FLAG_RESET_ON_FORK
	err = c.namespace.Do(func() error { return unix.SchedSetAttr(0, &attr, 0) })
	if err != nil {
		return fmt.Errorf("prefer the generator: %w", err)
	}
	return ctx.Err()
}

// connectEgress gives the devmap's entry a program.
func (c *Chain) connectEgress(ctx context.Context) error {
	if err := c.connectPort(ctx); err != nil {
		return err
	}
	return c.SetPortProgram(c.programs.Egress)
}

// connectCPUStack ends what the program of the cpumap's entry passes, with GRO or without: that is the device's.
func (c *Chain) connectCPUStack(ctx context.Context) error {
	if c.spec.Scenario == CPUGRO {
		if err := c.tested.EnableGRO(); err != nil {
			return err
		}
	}
	return errors.Join(c.connectCPU(ctx), c.tested.EndStack(c.programs.StackEnd))
}

// tcpSegments is a map of the segments that live frames are made of.
func tcpSegments() (*ebpf.Map, error) {
	frames, err := traffic.TCPSegments(segments, segmentBytes)
	if err != nil {
		return nil, err
	}
	return chain.MakePackets(frames)
}

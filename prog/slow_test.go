package prog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/bpf/replay"
)

// slowing is a program that passes, and turns a loop 200 000 times in each run after so many.
func slowing(t testing.TB, after int32) Program {
	const turns = 200_000
	number := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	function := func(name string) *btf.Func { // a callback needs one
		return &btf.Func{Name: name, Type: &btf.FuncProto{Return: number}, Linkage: btf.StaticFunc}
	}
	return assembled(t, ebpf.AttachXDP, func(count int) asm.Instructions {
		return asm.Instructions{
			btf.WithFuncMetadata(asm.LoadMapValue(asm.R1, count, 0), function("slowing")),
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.Add.Imm(asm.R2, 1),
			asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
			asm.JLE.Imm(asm.R2, after, "out"),
			asm.Mov.Imm(asm.R1, turns),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("turn"),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnLoop.Call(),
			asm.Mov.Imm(asm.R0, 2).WithSymbol("out"),
			asm.Return(),
			btf.WithFuncMetadata(asm.Mov.Imm(asm.R0, 0).WithSymbol("turn"), function("turn")),
			asm.Return(),
		}
	})
}

// A call is planned by what runs took so far: of a program that became a thousand times slower it took minutes. It is
// cut, and planned anew.
func TestBecomesSlow(t *testing.T) {
	r := opened(t, made(t, "udp4,tcp4"), Options{}, slowing(t, 5000))
	begun := time.Now()
	samples, err := r.Round(t.Context(), 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Logf("%v: %.0f ns a packet", took, samples[0].Cost[0])
	if took > 20*time.Second {
		t.Errorf("a round of 100 ms took %v", took)
	}
	if samples[0].Cost[0] < 100e3 {
		t.Errorf("%.0f ns a packet, of a loop of 200 000 turns", samples[0].Cost[0])
	}
}

// A signal that another thread gets ends ctx: the thread in the test run has to be told.
func TestCancelledInCall(t *testing.T) {
	r := opened(t, made(t, "udp4,tcp4"), Options{}, slowing(t, 0))
	sites, err := r.place()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err = r.runWindows(ctx, []replay.Window{{Site: sites[1], Program: 1, Group: 2, Timed: 200_000}}, 0)
	if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// endsAfter is a context that has ended when it was asked so many times.
type endsAfter struct {
	context.Context
	asked, times int
}

func (c *endsAfter) Err() error {
	if c.asked++; c.asked > c.times {
		return context.Canceled
	}
	return nil
}

// A run of a packet can take long, and no signal ends it: the context is asked before each.
func TestCancelledBetweenPackets(t *testing.T) {
	p := slowing(t, 0)
	ctx := &endsAfter{Context: t.Context(), times: 3}
	if _, err := New(ctx, made(t, "udp4,udp6,tcp4,tcp6,arp"), Options{}, p); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

// The verifier takes seconds for a large program, and its system call cannot be left: a round that loads programs anew ends
// all the same when ctx does, and closes what it gets then.
func TestCancelledInReload(t *testing.T) {
	p := slowing(t, 0)
	r := opened(t, made(t, "udp4"), Options{}, p)
	ctx, cancel := context.WithCancel(t.Context())
	release, late := make(chan struct{}), make(chan *ebpf.Program, 1)
	r.programs[0].Reload = func() (*ebpf.Program, error) {
		cancel()
		select {
		case <-release:
		case <-time.After(time.Minute):
			return nil, errors.New("the round waits for it")
		}
		fresh, err := p.Loaded.Clone()
		late <- fresh
		return fresh, err
	}
	_, err := r.Round(ctx, time.Second)
	close(release)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want %v", err, context.Canceled)
	}
	for fresh := <-late; fresh.FD() >= 0; { // the test ends by its own timeout when nobody closes it
		time.Sleep(time.Millisecond)
	}
}

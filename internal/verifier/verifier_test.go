package verifier

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// refusedAfter is a program that the verifier refuses after so many turns of a loop of two instructions, beside one that
// it takes, which is in a tail-call table.
func refusedAfter(turns int32) *ebpf.CollectionSpec {
	xdp := func(ins ...asm.Instruction) *ebpf.ProgramSpec {
		return &ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: ins}
	}
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"table": {
			Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1,
			Contents: []ebpf.MapKV{{Key: uint32(0), Value: "bad"}},
		}},
		Programs: map[string]*ebpf.ProgramSpec{
			"aright": xdp(asm.Mov.Imm(asm.R0, 2), asm.Return()),
			"bad": xdp(
				asm.LoadMapPtr(asm.R2, 0).WithReference("table"),
				asm.Mov.Imm(asm.R1, 0),
				asm.Add.Imm(asm.R1, 1).WithSymbol("turn"),
				asm.JLT.Imm(asm.R1, turns, "turn"),
				asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), // a number is no pointer
				asm.Return(),
			),
		},
	}
}

// All that the verifier says of a small program can be 1 GiB: it is not read unless it is wanted, and fits.
func TestVerifierLog(t *testing.T) {
	testutil.Root(t)
	const why = "R1 invalid mem access 'scalar'"
	for _, test := range []struct {
		turns int32
		whole bool
		least int // lines
		most  int
	}{
		{10, false, 1, 5},
		{10, true, 25, 60},
		{1000, true, 2000, 6000},
		{60_000, false, 1, 5},
		{60_000, true, 3, 6},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c, err := Load(refusedAfter(test.turns), ebpf.CollectionOptions{}, test.whole)
		runtime.ReadMemStats(&after)
		if err == nil {
			c.Close()
			t.Fatal("it is taken")
		}
		refused, ok := errors.AsType[*ebpf.VerifierError](err)
		if !ok {
			t.Fatal(err)
		}
		if short := err.Error(); !test.whole && !strings.Contains(short, why) {
			t.Errorf("%+v: %s", test, short)
		}
		text := strings.Join(refused.Log, "\n")
		if n := len(refused.Log); n < test.least || n > test.most || !strings.Contains(text, why) {
			t.Errorf("%+v: %d lines: %.1000s", test, n, text)
		}
		if short := strings.HasPrefix(text, "(all that the verifier says may be "); short != (test.whole && test.most < 10) {
			t.Errorf("%+v: %.1000s", test, text)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
			t.Errorf("%+v: %d MiB", test, took>>20)
		}
	}
}

// closing tells when it is closed.
type closing chan struct{}

// Nothing is loaded when the context has ended, and where the verifier has a flaw no option of package ebpf is spoken of.
func TestLoadContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := LoadContext(ctx, &ebpf.CollectionSpec{}, ebpf.CollectionOptions{}, false); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("loaded %v, %v, want %v", c, err, context.Canceled)
	}
	if c, err := LoadContext(t.Context(), &ebpf.CollectionSpec{}, ebpf.CollectionOptions{}, false); c == nil || err != nil {
		t.Errorf("loaded %v, %v", c, err)
	}
	err := explained(fmt.Errorf("load program: %w (hit verifier bug, increase LogSizeStart to fit the log)", unix.EFAULT))
	if !errors.Is(err, unix.EFAULT) || strings.Contains(err.Error(), "LogSizeStart") || !strings.Contains(err.Error(), "dmesg") {
		t.Error(err)
	}
	if err := explained(nil); err != nil {
		t.Error(err)
	}
}

func (c closing) Close() error { close(c); return nil }

// What takes long is left when the context ends, and closed when it is there.
func TestAwait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	got, err := Await(ctx, func() (closing, error) { return closing(make(chan struct{})), nil })
	if got == nil || err != nil {
		t.Fatalf("loaded %v, %v", got, err)
	}
	failed := errors.New("refused")
	if _, err := Await(ctx, func() (closing, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("%v, want %v", err, failed)
	}
	late, release := closing(make(chan struct{})), make(chan struct{})
	got, err = Await(ctx, func() (closing, error) {
		cancel()
		<-release
		return late, nil
	})
	close(release)
	if got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("loaded %v, %v, want %v", got, err, context.Canceled)
	}
	<-late
	if _, err := Await(ctx, func() (closing, error) { panic("loads though nobody waits") }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

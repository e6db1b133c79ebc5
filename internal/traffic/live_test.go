package traffic

import (
	"context"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// dropper returns a source whose frames are all dropped.
func dropper(t testing.TB, batch int) *Live {
	t.Helper()
	testutil.Root(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	frame, err := UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	return &Live{Program: prog, Frame: frame, Batch: batch}
}

// counter returns a source whose frames are dropped and counted, and what reads the
// number of frames and of their bytes.
func counter(t *testing.T, batch int) (*Live, func() (frames, bytes uint64)) {
	t.Helper()
	testutil.Root(t)
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // data_end of struct xdp_md
			asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), // data
			asm.Sub.Reg(asm.R2, asm.R3),
			asm.LoadMapValue(asm.R1, counts.FD(), 0),
			asm.Mov.Imm(asm.R3, 1),
			asm.AddAtomic.Mem(asm.R1, asm.R3, asm.DWord, 0),
			asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 8),
			asm.Mov.Imm(asm.R0, 1), asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	frame, err := UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	return &Live{Program: prog, Frame: frame, Batch: batch}, func() (frames, bytes uint64) {
		var both [2]uint64
		if err := counts.Lookup(uint32(0), &both); err != nil {
			t.Fatal(err)
		}
		return both[0], both[1]
	}
}

// As many frames as were asked for reach the program, also where the last batch is not
// full, and each is whole. What a signal of Go's broke off is sent once more.
func TestSend(t *testing.T) {
	live, counts := counter(t, 64)
	for _, n := range []int{1, 64, 1000, 1 << 16} {
		before, _ := counts()
		d, err := live.Send(t.Context(), n)
		for try := 0; errors.Is(err, unix.EINTR) && try < 20; try++ {
			before, _ = counts()
			d, err = live.Send(t.Context(), n)
		}
		if err != nil {
			t.Fatal(err)
		}
		if frames, bytes := counts(); frames-before != uint64(n) || bytes != 60*frames {
			t.Errorf("%d frames, %d bytes of all %d, want %d and %d", frames-before, bytes, frames, n, 60*frames)
		}
		if d < 0 {
			t.Errorf("a frame took %v", d)
		}
	}
}

func TestSendRefuses(t *testing.T) {
	live := dropper(t, MaxBatch+1)
	if _, err := live.Send(t.Context(), 1); !errors.Is(err, unix.E2BIG) {
		t.Errorf("a batch of %d: %v, want E2BIG", live.Batch, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	live.Batch = 1
	if _, err := live.Send(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

func BenchmarkSend(b *testing.B) {
	live := dropper(b, 64)
	b.ReportAllocs()
	frames := 0
	for b.Loop() {
		if _, err := live.Send(b.Context(), 1<<14); err != nil {
			b.Fatal(err)
		}
		frames += 1 << 14
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
}

package traffic

import (
	"context"
	"errors"
	"testing"
	"time"

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

func TestSend(t *testing.T) {
	live := dropper(t, 64)
	d, err := live.Send(t.Context(), 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	if d <= 0 || d > time.Millisecond {
		t.Errorf("a dropped frame took %v", d)
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

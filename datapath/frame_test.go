package datapath

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/unthunk/unthunk/xsk"
)

// Frames of one part and of several in one batch, each of which the program makes longer and
// shorter at both ends, arrive as the program left them; what there is no room for is refused.
func TestAdjust(t *testing.T) {
	for _, c := range []xsk.Config{{Frames: 256, FrameSize: 2048}, {Frames: 256, FrameSize: 3000, Unaligned: true, Headroom: 10}} {
		u := newUMEM(t, c)
		in, out := newMemory(t, u, 64), newMemory(t, u, 64)
		var got, want [][]byte
		out.Sent = func(parts [][]byte) { got = append(got, bytes.Join(parts, nil)) }
		rng := rand.New(rand.NewPCG(1, 2))
		done, refused := 0, 0
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Batch: 16, Program: func(frames []Frame, actions []Action) {
			for i := range frames {
				f := &frames[i]
				whole := joined(f)
				for range 4 {
					n := rng.IntN(700) - 350
					before, last := len(f.Data), len(f.Part(f.Parts()-1))
					if f.AdjustHead(n) {
						done++
						if whole = append(make([]byte, max(0, -n)), whole[max(0, n):]...); n < 0 {
							clear(f.Data[:-n])
						}
					} else if refused++; len(f.Data) != before {
						t.Errorf("a refused move left %d of %d bytes", len(f.Data), before)
					}
					if n = -n; f.AdjustTail(n) {
						done++
						if n > 0 {
							p := f.Part(f.Parts() - 1)
							clear(p[len(p)-n:])
							whole = append(whole, make([]byte, n)...)
						} else {
							whole = whole[:len(whole)+n]
						}
					} else {
						refused++
					}
					if n < 0 && last > 400 && len(f.Part(f.Parts()-1)) == last && f.Parts() > 1 {
						t.Errorf("last part of %d bytes not cut by %d", last, -n)
					}
				}
				if int(f.Len) != len(whole) || !bytes.Equal(joined(f), whole) {
					t.Fatalf("%d bytes in %d parts, Len %d, want %d", len(joined(f)), f.Parts(), f.Len, len(whole))
				}
				if i%5 != 0 {
					actions[i] = Redirect(1)
					want = append(want, whole)
				}
			}
		}})
		for i := range 500 {
			f := make([]byte, 60+i*17%5000)
			for j := range f {
				f[j] = byte(rng.Uint32())
			}
			in.Inject(f)
			if i%7 == 0 {
				poll(t, d)
			}
		}
		for poll(t, d) > 0 {
		}
		if len(got) != len(want) || len(got) < 100 {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: %d bytes, want %d", i, len(got[i]), len(want[i]))
			}
		}
		if done < 100 || refused < 100 {
			t.Errorf("%d moves, %d refused: not both are tried", done, refused)
		}
	}
}

// joined is all of a frame.
func joined(f *Frame) (b []byte) {
	for i := range f.Parts() {
		b = append(b, f.Part(i)...)
	}
	return b
}

// What is in front of a received frame is as documented, and no byte more.
func TestAdjustLimits(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 16, FrameSize: 2048, Headroom: 32})
	in := newMemory(t, u, 8)
	called := false
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in}, Program: func(frames []Frame, _ []Action) {
		f := &frames[0]
		const front, back = xsk.KernelHeadroom + 32, 2048 - xsk.KernelHeadroom - 32 - 100
		for _, tt := range []struct {
			name string
			move func(int) bool
			n    int
			want bool
		}{
			{"head", f.AdjustHead, -front - 1, false}, {"head", f.AdjustHead, -front, true}, {"head", f.AdjustHead, front, true},
			{"head", f.AdjustHead, 87, false}, {"head", f.AdjustHead, 86, true}, {"head", f.AdjustHead, -86, true},
			{"tail", f.AdjustTail, back + 1, false}, {"tail", f.AdjustTail, back, true}, {"tail", f.AdjustTail, -back, true},
			{"head", f.AdjustHead, math.MinInt, false}, {"head", f.AdjustHead, math.MaxInt, false},
			{"tail", f.AdjustTail, math.MinInt, false}, {"tail", f.AdjustTail, math.MaxInt, false},
			{"tail", f.AdjustTail, -87, false}, {"tail", f.AdjustTail, -86, true}, {"tail", f.AdjustTail, 0, true},
		} {
			if got := tt.move(tt.n); got != tt.want {
				t.Errorf("%s by %d: %v, want %v", tt.name, tt.n, got, tt.want)
			}
		}
		called = true
		if len(f.Data) != 14 || f.Len != 14 {
			t.Errorf("%d bytes, Len %d: want 14", len(f.Data), f.Len)
		}
	}})
	in.Inject(make([]byte, 100))
	if poll(t, d); !called {
		t.Error("the program was not called")
	}
}

// A program that reads parts and moves both ends allocates nothing.
func TestAdjustAllocatesNothing(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 64, FrameSize: 2048})
	in, out := newMemory(t, u, 16), newMemory(t, u, 16)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: func(frames []Frame, actions []Action) {
		for i := range frames {
			f := &frames[i]
			if !f.AdjustHead(-4) || !f.AdjustTail(-1) || len(f.Part(1)) == 0 {
				t.Error("not adjusted")
			}
			actions[i] = Redirect(1)
		}
	}})
	frame := make([]byte, 3000)
	if n := testing.AllocsPerRun(100, func() { in.Inject(frame); d.Poll() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

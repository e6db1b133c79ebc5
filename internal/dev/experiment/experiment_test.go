package experiment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func worker(t testing.TB, way Way) *Worker {
	t.Helper()
	w, err := New(way)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// outcome is all that a worker leaves behind.
type outcome struct {
	Frames  [][]byte
	Tx      [ports][]Desc
	Bytes   [ports]uint64
	Given   []uint64
	Dropped uint64
}

func (w *Worker) outcome(rx []Desc) outcome {
	var o outcome
	for _, d := range rx {
		if end := d.Addr + uint64(d.Len); end >= d.Addr && end <= uint64(len(w.core.umem)) {
			o.Frames = append(o.Frames, bytes.Clone(w.core.umem[d.Addr:end]))
		}
	}
	for i := range w.core.ports {
		p := &w.core.ports[i]
		if p.frames != uint64(p.produced) {
			o.Dropped |= 1 << 63
		}
		o.Tx[i] = append([]Desc(nil), p.ring[:p.produced]...)
		o.Bytes[i] = p.bytes
	}
	o.Given = append([]uint64(nil), w.core.fill[:w.core.given]...)
	o.Dropped += w.core.dropped
	return o
}

// flow returns a good frame to the n-th destination.
func flow(t testing.TB, n uint32) []byte {
	t.Helper()
	f, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	setDestination(f, address(n))
	return f
}

func with(f []byte, at int, b ...byte) []byte {
	copy(f[at:], b)
	return f
}

// summed is the frame with a right checksum.
func summed(f []byte) []byte {
	setDestination(f, binary.BigEndian.Uint32(f[30:]))
	return f
}

var odd = []struct {
	name string
	make func(t testing.TB) []byte
	port int // -1 when dropped
}{
	{"first flow", func(t testing.TB) []byte { return flow(t, 0) }, 0},
	{"port 3", func(t testing.TB) []byte { return flow(t, 11) }, 3},
	{"last flow", func(t testing.TB) []byte { return flow(t, Flows-1) }, (Flows - 1) % ports},
	{"no route", func(t testing.TB) []byte { return flow(t, Flows) }, -1},
	{"destination 0", func(t testing.TB) []byte { f := flow(t, 0); setDestination(f, 0); return f }, -1},
	{"IPv6", func(t testing.TB) []byte { return with(flow(t, 1), 12, 0x86, 0xdd) }, -1},
	{"ARP", func(t testing.TB) []byte { return with(flow(t, 1), 12, 0x08, 0x06) }, -1},
	{"options", func(t testing.TB) []byte { return summed(with(flow(t, 1), 14, 0x46)) }, -1},
	{"version 5", func(t testing.TB) []byte { return summed(with(flow(t, 1), 14, 0x55)) }, -1},
	{"too long by one", func(t testing.TB) []byte { return summed(with(flow(t, 1), 16, 0, 47)) }, -1},
	{"shorter than its header", func(t testing.TB) []byte { return summed(with(flow(t, 1), 16, 0, 19)) }, -1},
	{"padded", func(t testing.TB) []byte { return summed(with(flow(t, 1), 16, 0, 20)) }, 1},
	{"checksum", func(t testing.TB) []byte { return with(flow(t, 1), 24, 0xde, 0xad) }, -1},
	{"other TTL, checksum not corrected", func(t testing.TB) []byte { return with(flow(t, 1), 22, 63) }, -1},
	{"marked already", func(t testing.TB) []byte { return summed(with(flow(t, 9), 15, 0xff)) }, 1},
	{"header only", func(t testing.TB) []byte { return summed(with(flow(t, 2), 16, 0, 20))[:34] }, 2},
	{"one byte short of a header", func(t testing.TB) []byte { return flow(t, 2)[:33] }, -1},
	{"empty", func(t testing.TB) []byte { return nil }, -1},
}

// What becomes of odd frames, in every way, by itself and in every company.
func TestRedirect(t *testing.T) {
	for _, way := range Ways() {
		t.Run(way.String(), func(t *testing.T) {
			for _, tt := range odd {
				w := worker(t, way)
				frame := tt.make(t)
				rx := []Desc{{Addr: 5*Chunk + Headroom, Len: uint32(len(frame))}}
				copy(w.core.umem[rx[0].Addr:], frame)
				sent := w.Redirect(rx)
				got := w.outcome(rx)
				want := outcome{Frames: [][]byte{frame}, Given: []uint64{5 * Chunk}, Dropped: 1}
				if frame == nil {
					want.Frames[0] = []byte{}
				}
				if tt.port >= 0 {
					want.Dropped = 0
					want.Tx[tt.port] = rx
					want.Bytes[tt.port] = uint64(len(frame))
					// Independent of the code under test.
					f := bytes.Clone(frame)
					copy(f, frame[6:12])
					copy(f[6:], frame[:6])
					n := binary.BigEndian.Uint32(frame[30:]) - address(0)
					f[15] = uint8(n) << 2
					want.Frames[0] = summed(f)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", tt.name, diff)
				}
				if sent != 1-want.Dropped {
					t.Errorf("%s: %d sent", tt.name, sent)
				}
			}
		})
	}
}

// All ways leave the same behind, of numbers of frames around those of a bulk too.
func TestAgree(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 63, 64, 65, 79, 200, 1000} {
		var want outcome
		for i, way := range Ways() {
			w := worker(t, way)
			var rx []Desc
			for j := range n {
				frame := odd[j*j%len(odd)].make(t)
				rx = append(rx, Desc{Addr: uint64(j*7%Chunks)*Chunk + Headroom, Len: uint32(len(frame))})
				copy(w.core.umem[rx[j].Addr:], frame)
			}
			w.core.ports[1].up = false
			w.core.devmap[2] = none
			sent := w.Redirect(rx)
			got := w.outcome(rx)
			if sent+got.Dropped != uint64(n) || len(got.Given) != n {
				t.Errorf("%v of %d: %d sent, %d dropped, %d returned", way, n, sent, got.Dropped, len(got.Given))
			}
			if i == 0 {
				want = got
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v of %d differs from %v: %s", way, n, Ways()[0], diff)
			}
		}
	}
}

// Descriptors that lie outside the area are dropped.
func TestBadDescriptors(t *testing.T) {
	for _, way := range Ways() {
		w := worker(t, way)
		rx := []Desc{
			{Addr: Chunk * Chunks, Len: 60}, {Addr: Chunk*Chunks - 59, Len: 60},
			{Addr: ^uint64(0), Len: 60}, {Addr: ^uint64(0) - 59, Len: 60}, {Addr: 0, Len: ^uint32(0)},
		}
		if sent := w.Redirect(rx); sent != 0 || w.core.dropped != uint64(len(rx)) {
			t.Errorf("%v: %d sent, %d dropped", way, sent, w.core.dropped)
		}
	}
}

// Redirected again and again, as the benchmark does it, all frames stay good.
func TestRounds(t *testing.T) {
	for _, way := range Ways() {
		w := worker(t, way)
		rx, err := w.Fill(60)
		if err != nil {
			t.Fatal(err)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			if sent := w.Redirect(rx); sent != Chunks {
				t.Fatalf("%v: %d of %d sent", way, sent, Chunks)
			}
		}); allocs != 0 {
			t.Errorf("%v: %v allocations", way, allocs)
		}
		for i := range w.core.ports {
			if p := &w.core.ports[i]; p.frames == 0 || p.bytes != 60*p.frames {
				t.Errorf("%v: port %d: %d frames of %d bytes", way, i, p.frames, p.bytes)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, way := range []Way{{"interfaces", 2}, {"bulk-32", 12}, {}} {
		if w, err := New(way); err == nil {
			w.Close()
			t.Errorf("%v was made", way)
		}
	}
	w := worker(t, Ways()[0])
	for _, size := range []int{0, 41, 1515, 9000} {
		if _, err := w.Fill(size); err == nil {
			t.Errorf("frames of %d bytes", size)
		}
	}
}

// Whatever two frames hold, all ways make the same of them.
func FuzzRedirect(f *testing.F) {
	for i, tt := range odd {
		f.Add(tt.make(f), odd[(i+1)%len(odd)].make(f), uint8(3))
	}
	workers := make([]*Worker, len(Ways()))
	for i, way := range Ways() {
		workers[i] = worker(f, way)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, n uint8) {
		var want outcome
		for i, w := range workers {
			*w.core = core{umem: w.core.umem, routes: w.core.routes, devmap: w.core.devmap}
			for i := range w.core.ports {
				w.core.ports[i].up = i != 5
			}
			var rx []Desc
			for j := range int(n) % (Poll + 16) {
				frame := a
				if j%3 == 1 {
					frame = b
				}
				frame = frame[:min(len(frame), Chunk-Headroom)]
				rx = append(rx, Desc{Addr: uint64(j)*Chunk + Headroom, Len: uint32(len(frame))})
				copy(w.core.umem[rx[j].Addr:], frame)
			}
			w.Redirect(rx)
			if got := w.outcome(rx); i == 0 {
				want = got
			} else if !reflect.DeepEqual(want, got) { // which is much faster than cmp.Diff
				t.Fatalf("%v differs from %v: %s", w.way, workers[0].way, cmp.Diff(want, got))
			}
		}
	})
}

// The experiment: one iteration redirects Chunks frames of 60 bytes.
// ns/packet is CPU time.
func BenchmarkRedirect(b *testing.B) {
	for _, way := range Ways() {
		b.Run(fmt.Sprint(way), func(b *testing.B) {
			w := worker(b, way)
			rx, err := w.Fill(60)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			n, began := uint64(0), testutil.CPUTime(b)
			for b.Loop() {
				n += w.Redirect(rx)
			}
			b.ReportMetric(float64(testutil.CPUTime(b)-began)/float64(n), "ns/packet")
		})
	}
}

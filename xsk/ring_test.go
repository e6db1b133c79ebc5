package xsk

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// layout is a ring's layout, as the kernel's on x86-64.
var layout = unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}

const testRing = 8

// ringMemory is memory for a ring of testRing descriptors, with both indices at
// start.
func ringMemory(start uint32) []byte {
	mem := make([]byte, 192+testRing*16)
	binary.NativeEndian.PutUint32(mem, start)
	binary.NativeEndian.PutUint32(mem[64:], start)
	return mem
}

func fakeUMEM(t testing.TB, c Config) *UMEM {
	t.Helper()
	u, err := NewUMEM(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// pair is one ring seen from both sides.
func pair(t *testing.T, start uint32) (produce, consume ring[Desc]) {
	t.Helper()
	mem := ringMemory(start)
	var err error
	if produce, err = newRing[Desc](mem, layout, testRing); err != nil {
		t.Fatal(err)
	}
	if consume, err = newRing[Desc](mem, layout, testRing); err != nil {
		t.Fatal(err)
	}
	produce.own, produce.peer, consume.own, consume.peer = start, start, start, start
	return produce, consume
}

func TestRingWrapsAndFills(t *testing.T) {
	for _, start := range []uint32{0, 5, 1<<32 - 3} {
		produce, consume := pair(t, start)
		sent, got := uint64(0), uint64(0)
		in, out := make([]Desc, 5), make([]Desc, 3)
		for range 100 {
			for i := range in {
				in[i] = Desc{Addr: sent + uint64(i), Len: uint32(i), Options: 1}
			}
			sent += uint64(produce.put(in))
			for _, d := range out[:consume.take(out)] {
				if d.Addr != got || d.Options != 1 {
					t.Fatalf("start %d: descriptor %+v, want address %d", start, d, got)
				}
				got++
			}
		}
		if sent-got > testRing || got < 290 {
			t.Errorf("start %d: %d sent, %d received", start, sent, got)
		}
		if n := produce.put(make([]Desc, 2*testRing)); uint64(n) != testRing-(sent-got) {
			t.Errorf("start %d: a ring with %d of %d took %d more", start, sent-got, testRing, n)
		}
		if n := produce.put(in); n != 0 {
			t.Errorf("start %d: a full ring took %d", start, n)
		}
		if n := consume.take(make([]Desc, 2*testRing)); n != testRing {
			t.Errorf("start %d: a full ring gave %d", start, n)
		}
	}
}

// One publish a batch: the kernel's side must not see a part of it.
func TestPublishOnce(t *testing.T) {
	produce, consume := pair(t, 0)
	if n := produce.room(4); n != 4 {
		t.Fatalf("room for %d", n)
	}
	if n := consume.ready(4); n != 0 {
		t.Fatalf("%d ready before anything was put", n)
	}
	produce.put(make([]Desc, 4))
	if n := consume.ready(8); n != 4 {
		t.Fatalf("%d ready, want 4", n)
	}
}

// sixFrames is a ring of seven descriptors from an index on, of which the third and the fourth are one frame.
func sixFrames(t *testing.T, start uint32) *TX {
	t.Helper()
	produce, _ := pair(t, start)
	tx := &TX{ring: produce, read: start}
	if n := tx.put([]Desc{{Addr: 1}, {Addr: 2}, {Addr: 3, Options: Continued}, {Addr: 4}, {Addr: 5}, {Addr: 6}, {Addr: 7}}); n != 7 {
		t.Fatalf("put %d", n)
	}
	return tx
}

// A kernel that sends frames and then drops one publishes what it has read; one that drops the first it reads does not.
func TestDropped(t *testing.T) {
	for _, start := range []uint32{0, 1<<32 - 3} {
		tx := sixFrames(t, start)
		for _, call := range []struct {
			published uint32 // how many the kernel has read, as it says after the call
			want      uint64
		}{{2, 2}, {2, 4}, {4, 5}, {6, 6}, {6, 7}, {7, 7}} {
			before := tx.consumed()
			tx.consumer.Store(start + call.published)
			if tx.dropped(before, start); tx.lastDropped.Addr != call.want {
				t.Errorf("start %d, %d published: dropped %d, want %d", start, call.published, tx.lastDropped.Addr, call.want)
			}
		}
	}
}

// A kernel that does not publish what it has read says by completions how far it is at least: also of what an earlier call sent.
func TestDroppedUnpublished(t *testing.T) {
	for _, start := range []uint32{0, 1<<32 - 3} {
		tx := sixFrames(t, start)
		for _, call := range []struct {
			completed uint32 // since the beginning, with the frame that was dropped
			want      uint64
		}{{4, 4}, {5, 5}, {5, 6}, {9, 7}, {7, 7}} { // one comes back late, 9 were never put
			if tx.dropped(tx.consumed(), start+call.completed); tx.lastDropped.Addr != call.want {
				t.Errorf("start %d, %d completed: dropped %d, want %d", start, call.completed, tx.lastDropped.Addr, call.want)
			}
		}
	}
}

func TestNewRingRefuses(t *testing.T) {
	mem := ringMemory(0)
	for name, tt := range map[string]struct {
		off unix.XDPRingOffset
		n   int
	}{
		"not a power of two": {layout, 3},
		"none":               {layout, 0},
		"too long":           {layout, 16},
		"entries outside":    {unix.XDPRingOffset{Consumer: 64, Flags: 128, Desc: 1 << 40}, 8},
		"index outside":      {unix.XDPRingOffset{Producer: 1 << 63, Consumer: 64, Flags: 128, Desc: 192}, 8},
		"odd index":          {unix.XDPRingOffset{Producer: 2, Consumer: 64, Flags: 128, Desc: 192}, 8},
	} {
		if _, err := newRing[Desc](mem, tt.off, tt.n); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"odd size":    {FrameSize: 3000},
		"small":       {FrameSize: 1024},
		"large":       {FrameSize: 1 << 16},
		"headroom":    {Headroom: DefaultFrameSize - KernelHeadroom},
		"no frames":   {Frames: -1},
		"many frames": {Frames: 1 << 30},
		"checksum":    {SoftwareChecksum: true},
	} {
		if u, err := NewUMEM(c); err == nil {
			u.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUMEM(t *testing.T) {
	for _, c := range []Config{{Frames: 16}, {Frames: 16, FrameSize: 3000, Unaligned: true}, {Frames: 16, HugePages: true}} {
		u := fakeUMEM(t, c)
		size := uint64(u.config.FrameSize)
		chunks := make([]uint64, 20)
		if n := u.Alloc(chunks); n != 16 || u.Available() != 0 {
			t.Fatalf("%+v: %d chunks, %d left", c, n, u.Available())
		}
		if chunks[0] != 0 || chunks[15] != 15*size {
			t.Errorf("%+v: chunks %v", c, chunks)
		}
		for _, a := range []uint64{0, 1, size - 1, size, 15*size + 7} {
			if u.Base(a) != a/size*size || u.Index(a) != int(a/size) {
				t.Errorf("%+v: address %d is in chunk %d at %d", c, a, u.Index(a), u.Base(a))
			}
		}
		for d, want := range map[Desc]bool{
			{Addr: 0, Len: uint32(size)}:            true,
			{Addr: 0, Len: uint32(size) + 1}:        false,
			{Addr: size - 1, Len: 1}:                true,
			{Addr: size - 1, Len: 2}:                false,
			{Addr: 16 * size, Len: 0}:               false,
			{Addr: 1<<64 - 1, Len: 1}:               false,
			{Addr: 15 * size, Len: 1<<32 - 1}:       false,
			{Addr: 15*size + size - 4, Len: 4}:      true,
			{Addr: 1<<64 - 2048, Len: 1<<32 - 2048}: false,
		} {
			if u.Valid(d) != want || (u.Data(d) != nil) != want {
				t.Errorf("%+v: %+v is valid: %v", c, d, !want)
			}
		}
		if err := u.Free([]uint64{16 * size}); err == nil {
			t.Errorf("%+v: freed a chunk that does not exist", c)
		}
		if err := u.Free(chunks[:16]); err != nil {
			t.Error(err)
		}
		if err := u.Free(chunks[:1]); err == nil {
			t.Errorf("%+v: freed more chunks than there are", c)
		}
	}
}

func TestTxMetadata(t *testing.T) {
	u := fakeUMEM(t, Config{Frames: 2, FrameSize: 2048, TxMetadata: true})
	d := Desc{Addr: 2048 + TxMetadataSize, Len: 60}
	if err := u.SetTxMetadata(&d, TxMetadata{Checksum: true, ChecksumStart: 34, ChecksumOffset: 6, Timestamp: true,
		LaunchTime: 77}); err != nil {
		t.Fatal(err)
	}
	b := u.Bytes()[2048:]
	if d.Options != HasMetadata || b[0] != 7 || b[8] != 34 || b[10] != 6 || b[16] != 77 {
		t.Errorf("options %#x, metadata %v", d.Options, b[:24])
	}
	if ns, err := u.TxTimestamp(d.Addr); err != nil || ns != 34|6<<16 {
		t.Errorf("timestamp %d, %v", ns, err)
	}
	near := Desc{Addr: 2048 + TxMetadataSize - 1, Len: 60}
	if err := u.SetTxMetadata(&near, TxMetadata{}); err == nil {
		t.Error("metadata across the start of a chunk")
	}
	if err := u.SetTxMetadata(&Desc{Addr: 1 << 40}, TxMetadata{}); err == nil {
		t.Error("metadata outside of the UMEM")
	}
}

// Whatever is in the memory a ring is mapped on, nothing that comes out of it
// reaches out of the UMEM, and nothing hangs.
func FuzzRing(f *testing.F) {
	f.Add(ringMemory(0), []byte{1, 2, 3, 4}, false)
	full := ringMemory(0)
	binary.NativeEndian.PutUint32(full, testRing)
	binary.NativeEndian.PutUint64(full[192:], 1<<63)
	binary.NativeEndian.PutUint32(full[200:], 1<<31)
	f.Add(full, []byte{8, 8}, true)
	aligned := fakeUMEM(f, Config{Frames: 4})
	unaligned := fakeUMEM(f, Config{Frames: 4, FrameSize: 3000, Unaligned: true})
	f.Fuzz(func(t *testing.T, content, steps []byte, odd bool) {
		u := aligned
		if odd {
			u = unaligned
		}
		mem := make([]byte, 192+testRing*16)
		copy(mem, content)
		descs, err := newRing[Desc](mem, layout, testRing)
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := newRing[uint64](mem, layout, testRing)
		if err != nil {
			t.Fatal(err)
		}
		rx, tx := RX{ring: descs, umem: u}, TX{ring: descs, umem: u}
		fill, completion := Fill{ring: addrs, umem: u}, Completion{ring: addrs, umem: u}
		if len(steps) > 64 {
			steps = steps[:64]
		}
		for i, step := range steps {
			frames, chunks := make([]Desc, step%16), make([]uint64, step%16)
			for _, d := range frames[:rx.Take(frames)] {
				b := u.Data(d)
				if b == nil {
					t.Fatalf("RX gave %+v", d)
				}
				for j := range b {
					b[j] = 1
				}
			}
			for _, a := range chunks[:completion.Take(chunks)] {
				if a >= uint64(len(u.Bytes())) {
					t.Fatalf("completion gave %#x", a)
				}
			}
			if n := fill.Put(chunks); n > len(chunks) {
				t.Fatalf("fill took %d of %d", n, len(chunks))
			}
			if n := tx.Put(frames); n > len(frames) {
				t.Fatalf("TX took %d of %d", n, len(frames))
			}
			if i < len(content) {
				// The other side writes on.
				copy(mem[int(content[i])%len(mem):], content[i:])
			}
		}
	})
}

func BenchmarkRings(b *testing.B) {
	const batch = 64
	mem := make([]byte, 192+2048*16)
	u := fakeUMEM(b, Config{Frames: 4096})
	r, err := newRing[Desc](mem, layout, 2048)
	if err != nil {
		b.Fatal(err)
	}
	rx, tx := RX{ring: r, umem: u}, TX{ring: r, umem: u}
	frames := make([]Desc, batch)
	for i := range frames {
		frames[i] = Desc{Addr: uint64(i)*2048 + 256, Len: 60}
	}
	b.ReportAllocs()
	for b.Loop() {
		if tx.Put(frames) != batch || rx.Take(frames) != batch {
			b.Fatal("a ring is full or empty")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/frame")
}

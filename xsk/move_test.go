package xsk

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Owners in these tests.
const (
	filled Owner = 7
	sent   Owner = 8
)

// rings is a socket's rings with both sides of each: the kernel puts into rx and completion, and takes from tx and fill.
type rings struct {
	rx         RX
	tx         TX
	fill       Fill
	completion Completion

	received, transmitted ring[Desc]
	completed, given      ring[uint64]
}

func newRings(t *testing.T, u *UMEM, start uint32) *rings {
	t.Helper()
	r := &rings{}
	r.received, r.rx.ring = pair(t, start)
	r.tx.ring, r.transmitted = pair(t, start)
	r.completed, r.completion.ring = chunkPair(t, start)
	r.fill.ring, r.given = chunkPair(t, start)
	r.rx.umem, r.tx.umem, r.completion.umem, r.fill.umem = u, u, u, u
	return r
}

// chunkPair is pair of a ring of chunks.
func chunkPair(t *testing.T, start uint32) (produce, consume ring[uint64]) {
	t.Helper()
	mem := ringMemory(start)
	for _, r := range []*ring[uint64]{&produce, &consume} {
		var err error
		if *r, err = newRing[uint64](mem, layout, testRing); err != nil {
			t.Fatal(err)
		}
		r.own, r.peer = start, start
	}
	return produce, consume
}

// Frames go from ring to ring up to the first that may not, wherever the rings wrap.
func TestMoveFrames(t *testing.T) {
	for _, size := range []int{2048, 4096} {
		u, s := fakeUMEM(t, Config{Frames: 16, FrameSize: size}), uint64(size)
		good := []Desc{{256, 60, 0}, {s + 256, uint32(s) - 256, 0}, {3*s - 1, 1, 0}, {15*s + 8, 100, 0}}
		for name, tt := range map[string]struct {
			frames []Desc
			most   int
			want   int
		}{
			"all":                {good, 8, 4},
			"at most 3":          {good, 3, 3},
			"none":               {nil, 8, 0},
			"another's chunk":    {slices.Insert(slices.Clone(good), 2, Desc{5*s + 256, 60, 0}), 8, 2},
			"one twice":          {append(slices.Clone(good), good[1]), 8, 4},
			"outside":            {append(slices.Clone(good), Desc{16 * s, 60, 0}), 8, 4},
			"far outside":        {append(slices.Clone(good), Desc{-s + 1, 60, 0}), 8, 4},
			"beyond its chunk":   {append(slices.Clone(good), Desc{4*s + 256, uint32(s) - 255, 0}), 8, 4},
			"too long":           {append(slices.Clone(good), Desc{4 * s, 1<<32 - 1, 0}), 8, 4},
			"empty":              {append(slices.Clone(good), Desc{4*s + 256, 0, 0}), 8, 4},
			"of several parts":   {append(slices.Clone(good), Desc{4*s + 256, 60, Continued}), 8, 4},
			"with other options": {append(slices.Clone(good), Desc{4*s + 256, 60, 1 << 31}), 8, 4},
		} {
			for _, start := range []uint32{0, 6, 1<<32 - 3} {
				in, out := newRings(t, u, start), newRings(t, u, start+3)
				owners := slices.Repeat([]Owner{filled}, 16)
				owners[5] = sent
				in.received.put(tt.frames)
				n, bytes := in.rx.Move(&out.tx, tt.most, owners, filled, sent)
				got, left := make([]Desc, testRing), make([]Desc, testRing)
				got, left = got[:out.transmitted.take(got)], left[:in.rx.ring.take(left)]
				wantBytes, wantOwners := uint64(0), slices.Repeat([]Owner{filled}, 16)
				wantOwners[5] = sent
				for _, d := range tt.frames[:tt.want] {
					wantBytes += uint64(d.Len)
					wantOwners[d.Addr/s] = sent
				}
				if n != tt.want || bytes != wantBytes || !slices.Equal(got, tt.frames[:n]) || !slices.Equal(left, tt.frames[n:]) {
					t.Errorf("%s, chunks of %d, from %d on: %d of %d bytes, want %d of %d: %v, left %v",
						name, size, start, n, bytes, tt.want, wantBytes, got, left)
				}
				if diff := cmp.Diff(wantOwners, owners); diff != "" {
					t.Errorf("%s, chunks of %d: owners (-want +got):\n%s", name, size, diff)
				}
			}
		}
	}
}

// Only what a TX ring has room for is moved.
func TestMoveNoRoom(t *testing.T) {
	u := fakeUMEM(t, Config{Frames: 16})
	in, out := newRings(t, u, 0), newRings(t, u, 0)
	out.tx.put(make([]Desc, testRing-2))
	for i := range uint64(5) {
		in.received.put([]Desc{{Addr: i * 4096, Len: 60}})
	}
	owners := slices.Repeat([]Owner{filled}, 16)
	for i, want := range []int{2, 0} {
		if n, _ := in.rx.Move(&out.tx, 8, owners, filled, sent); n != want {
			t.Errorf("move %d: %d frames, want %d", i, n, want)
		}
	}
	if want := slices.Concat([]Owner{sent, sent}, slices.Repeat([]Owner{filled}, 14)); !slices.Equal(owners, want) {
		t.Errorf("owners %v, want %v", owners, want)
	}
}

// Chunks go from ring to ring up to the first that may not.
func TestMoveChunks(t *testing.T) {
	for _, size := range []int{2048, 4096} {
		u, s := fakeUMEM(t, Config{Frames: 16, FrameSize: size}), uint64(size)
		for _, start := range []uint32{0, 6, 1<<32 - 3} {
			for name, tt := range map[string]struct {
				chunks []uint64
				most   int
				want   int
			}{
				"all":             {[]uint64{0, s + 256, 3*s - 1, 15 * s}, 8, 4},
				"at most 2":       {[]uint64{0, s, 2 * s}, 2, 2},
				"another's chunk": {[]uint64{0, 5 * s, s}, 8, 1},
				"one twice":       {[]uint64{0, 1, s}, 8, 1},
				"outside":         {[]uint64{0, 16 * s, s}, 8, 1},
			} {
				from, to := newRings(t, u, start), newRings(t, u, start+5)
				owners := slices.Repeat([]Owner{sent}, 16)
				owners[5] = filled
				from.completed.put(tt.chunks)
				if n := from.completion.Ready(); n != len(tt.chunks) {
					t.Errorf("%s: %d are ready", name, n)
				}
				n := from.completion.Move(&to.fill, tt.most, owners, sent, filled)
				got := make([]uint64, testRing)
				got = got[:to.given.take(got)]
				if n != tt.want || !slices.Equal(got, tt.chunks[:n]) || from.completion.Ready() != len(tt.chunks)-n {
					t.Errorf("%s, chunks of %d, from %d on: %d moved, want %d: %v", name, size, start, n, tt.want, got)
				}
				for i, o := range owners {
					moved := slices.ContainsFunc(tt.chunks[:n], func(a uint64) bool { return a/s == uint64(i) })
					if want := map[bool]Owner{true: filled, false: sent}[moved || i == 5]; o != want {
						t.Errorf("%s: chunk %d is of %d, want %d", name, i, o, want)
					}
				}
			}
		}
	}
}

// What cannot be moved is left to Take, as is all when a UMEM is another or the ring is closed.
func TestMoveNothing(t *testing.T) {
	for name, c := range map[string]Config{
		"unaligned": {Frames: 16, FrameSize: 3000, Unaligned: true}, "metadata": {Frames: 16, RxMetadata: true}, "aligned": {Frames: 16},
	} {
		u, owners := fakeUMEM(t, c), slices.Repeat([]Owner{filled}, 16)
		in, out := newRings(t, u, 0), newRings(t, fakeUMEM(t, Config{Frames: 16}), 0)
		if name == "unaligned" {
			out = newRings(t, u, 0)
		}
		in.received.put([]Desc{{256, 60, 0}})
		in.completed.put([]uint64{256})
		if n, _ := in.rx.Move(&out.tx, 8, owners, filled, sent); n != 0 {
			t.Errorf("%s: %d frames moved", name, n)
		}
		if n := in.completion.Move(&out.fill, 8, owners, filled, sent); n != 0 {
			t.Errorf("%s: %d chunks moved", name, n)
		}
		if name == "metadata" {
			if n := in.completion.Move(&in.fill, 8, owners, filled, sent); n != 0 {
				t.Errorf("%s: %d chunks moved, whose metadata would be another frame's", name, n)
			}
		}
		closed := newRings(t, u, 0)
		closed.rx.ring, closed.completion.ring = ring[Desc]{}, ring[uint64]{}
		n, _ := closed.rx.Move(&closed.tx, 8, owners, filled, sent)
		if n += closed.completion.Move(&closed.fill, 8, owners, filled, sent); n != 0 {
			t.Errorf("%s: %d moved from rings that are closed", name, n)
		}
	}
}

// What is read ahead lies in the UMEM, whatever a ring says, and stays in the ring.
func TestTouch(t *testing.T) {
	for name, c := range map[string]Config{"aligned": {Frames: 4}, "unaligned": {Frames: 4, FrameSize: 3000, Unaligned: true}} {
		u := fakeUMEM(t, c)
		r := newRings(t, u, 6)
		at := uint64(1)
		if c.Unaligned {
			at <<= 48 // the kernel keeps the offset there
		}
		copy(u.Bytes(), []byte{0, 4, 2, 1})
		r.received.put([]Desc{{Addr: at}, {Addr: 1<<48 - 1}, {Addr: 2}, {Addr: 3}})
		if r.rx.Touch(3); r.rx.touched != 6 {
			t.Errorf("%s: read %d, want 4 and 2", name, r.rx.touched)
		}
		if n := r.rx.ready(8); n != 4 {
			t.Errorf("%s: %d frames are left of 4", name, n)
		}
	}
}

// Whatever a RX ring says, what is moved could be taken and put, each from a chunk of the first owner, in order.
func FuzzMove(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0}, uint16(0xffff))
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0}, uint16(3))
	u := fakeUMEM(f, Config{Frames: 16})
	f.Fuzz(func(t *testing.T, content []byte, mine uint16) {
		var frames [testRing]Desc
		for i := range frames {
			var words [16]byte
			if len(content) > i*16 {
				copy(words[:], content[i*16:])
			}
			frames[i] = Desc{
				binary.NativeEndian.Uint64(words[:]), binary.NativeEndian.Uint32(words[8:]), binary.NativeEndian.Uint32(words[12:]),
			}
		}
		in, out := newRings(t, u, 0), newRings(t, u, 0)
		in.received.put(frames[:])
		var owners, after [16]Owner
		for i := range owners {
			if mine&(1<<i) != 0 {
				owners[i] = filled
			}
		}
		after, want := owners, 0
		for _, d := range frames {
			if !u.Valid(d) || d.Len == 0 || d.Options != 0 || after[u.Index(d.Addr)] != filled {
				break
			}
			after[u.Index(d.Addr)] = sent
			want++
		}
		n, _ := in.rx.Move(&out.tx, testRing, owners[:], filled, sent)
		var got [testRing]Desc
		if out.transmitted.take(got[:]) != n || n != want || !slices.Equal(got[:n], frames[:n]) || owners != after {
			t.Errorf("%d of %v moved: %v, want %d; owners %v, want %v", n, frames, got[:n], want, owners, after)
		}
	})
}

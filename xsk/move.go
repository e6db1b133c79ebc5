package xsk

import "unsafe"

// Owner says who has a chunk, for [RX.Move] and [Completion.Move]. What its values mean is up to their caller.
type Owner uint32

// Move moves frames that nobody is to look at into the TX ring of another socket on the same UMEM: descriptors go from ring to
// ring in one pass, most of them at most. It returns how many, and how many bytes their frames have; they leave with the next
// [Socket.Kick].
//
// owners has an element for each chunk of the UMEM, by [UMEM.Index]. A frame is moved when its chunk is from's, and it is to's
// then. Move ends before a frame that is not, that [RX.Take] or [TX.Put] would refuse, or that has several descriptors: what it
// leaves is for Take. That is all where chunks are unaligned, or not of 2048 or 4096 bytes.
func (r *RX) Move(t *TX, most int, owners []Owner, from, to Owner) (n int, bytes uint64) {
	u := r.umem
	if !u.movable() || t.umem != u {
		return 0, 0
	}
	most = t.room(r.ready(most))
	for n < most {
		in, out := r.row(n, most-n), t.row(n, most-n)
		k := min(len(in), len(out))
		var moved int
		var size uint64
		if u.mask+1 == uint64(unsafe.Sizeof(large{})) {
			moved, size = moveFrames[large](out[:k], in[:k], owners, from, to)
		} else {
			moved, size = moveFrames[small](out[:k], in[:k], owners, from, to)
		}
		n, bytes = n+moved, bytes+size
		if moved < k {
			break
		}
	}
	r.drop(n)
	t.publish(n)
	return n, bytes
}

// small and large are chunks. With the size a constant the loops below keep all they need in registers.
type (
	small [2048]byte
	large [4096]byte
)

// movable says whether chunks can be moved: they are small or large.
func (u *UMEM) movable() bool {
	size := uintptr(u.mask) + 1
	return size == unsafe.Sizeof(small{}) || size == unsafe.Sizeof(large{})
}

// moveFrames is Move for frames in a row. Who writes the RX ring may lie about each of them, as an XDP program that somebody
// else attached can: each word is read once, and a frame stays whose data is not within one chunk, of from's.
func moveFrames[chunk small | large](out, in []Desc, owners []Owner, from, to Owner) (n int, bytes uint64) {
	size := uint64(unsafe.Sizeof(*new(chunk)))
	out = out[:len(in)]
	for i := range in {
		f, g := &in[i], &out[i]
		// The length and the options, which must be 0, are read, compared and written as one. The last of an empty frame's bytes
		// is none.
		a, length := f.Addr, uint64(f.Len)|uint64(f.Options)<<32
		number := a / size
		if length-1 > ^a&(size-1) || number >= uint64(len(owners)) || owners[number] != from {
			return i, bytes
		}
		owners[number] = to
		g.Addr, g.Len, g.Options = a, uint32(length), uint32(length>>32)
		bytes += length
	}
	return len(in), bytes
}

// Move gives chunks of frames that were transmitted to another socket on the same UMEM to receive into, most at most, and
// returns how many. owners is that of [RX.Move]: it ends before a chunk that is not from's. A UMEM of unaligned chunks, of
// other sizes or with [Config.RxMetadata] it leaves to [Completion.Take].
func (c *Completion) Move(f *Fill, most int, owners []Owner, from, to Owner) (n int) {
	u := c.umem
	if !u.movable() || u.config.RxMetadata || f.umem != u {
		return 0
	}
	most = f.room(c.ready(most))
	for n < most {
		in, out := c.row(n, most-n), f.row(n, most-n)
		k := min(len(in), len(out))
		var moved int
		if u.mask+1 == uint64(unsafe.Sizeof(large{})) {
			moved = moveChunks[large](out[:k], in[:k], owners, from, to)
		} else {
			moved = moveChunks[small](out[:k], in[:k], owners, from, to)
		}
		n += moved
		if moved < k {
			break
		}
	}
	c.drop(n)
	f.publish(n)
	return n
}

// moveChunks is Move for chunks in a row.
func moveChunks[chunk small | large](out, in []uint64, owners []Owner, from, to Owner) int {
	size := uint64(unsafe.Sizeof(*new(chunk)))
	out = out[:len(in)]
	for i, a := range in {
		number := a / size
		if number >= uint64(len(owners)) || owners[number] != from {
			return i
		}
		owners[number] = to
		out[i] = a // the kernel cuts an aligned chunk's address itself
	}
	return len(in)
}

// row is entries that lie in a row in memory, from the skip-th on of those that are this side's, n at most.
func (r *ring[E]) row(skip, n int) []E {
	at := int((r.own + uint32(skip)) & r.mask)
	return r.entries[at:min(at+n, len(r.entries))]
}

// drop gives the places of the first n entries back to the producer.
func (r *ring[E]) drop(n int) {
	if n > 0 {
		r.own += uint32(n)
		r.consumer.Store(r.own)
	}
}

// publish gives the first n entries to the consumer.
func (r *ring[E]) publish(n int) {
	if n > 0 {
		r.own += uint32(n)
		r.producer.Store(r.own)
	}
}

package xsk

import "golang.org/x/sys/unix"

// Desc describes a frame, or a part of one, in a UMEM: struct xdp_desc.
type Desc struct {
	Addr    uint64 // of the first byte, an offset into the UMEM
	Len     uint32 // in bytes
	Options uint32 // Continued, HasMetadata
}

// Bits of Desc.Options.
const (
	// Continued is set on all descriptors of a frame but its last.
	Continued = unix.XDP_PKT_CONTD
	// HasMetadata says that a [TxMetadata] lies before the frame.
	HasMetadata = unix.XDP_TX_METADATA
)

// room is how many entries a producing ring takes, and at most want. The kernel
// is asked only when what was last seen does not do.
func (r *ring[E]) room(want int) int {
	if r.entries == nil { // closed
		return 0
	}
	size := uint32(len(r.entries))
	free := size - (r.own - r.peer)
	if free < uint32(want) {
		consumer := r.consumer.Load()
		// A consumer ahead of the producer, or more than the ring behind: not
		// what a kernel writes. What was last seen stays.
		if r.own-consumer <= size {
			r.peer = consumer
			free = size - (r.own - consumer)
		}
	}
	return min(want, int(free))
}

// ready is how many entries a consuming ring has, and at most want.
func (r *ring[E]) ready(want int) int {
	if r.entries == nil { // closed
		return 0
	}
	have := r.peer - r.own
	if have < uint32(want) {
		producer := r.producer.Load()
		if producer-r.own <= uint32(len(r.entries)) {
			r.peer = producer
			have = producer - r.own
		}
	}
	return min(want, int(have))
}

// put writes entries and publishes them with one store.
func (r *ring[E]) put(entries []E) int {
	n := r.room(len(entries))
	if n == 0 {
		return 0
	}
	at := r.own & r.mask
	k := copy(r.entries[at:], entries[:n])
	copy(r.entries, entries[k:n])
	r.own += uint32(n)
	r.producer.Store(r.own)
	return n
}

// take copies entries out and gives their places back with one store.
func (r *ring[E]) take(entries []E) int {
	n := r.ready(len(entries))
	if n == 0 {
		return 0
	}
	at := r.own & r.mask
	k := copy(entries[:n], r.entries[at:])
	copy(entries[k:n], r.entries)
	r.own += uint32(n)
	r.consumer.Store(r.own)
	return n
}

// wantsWakeup says whether the kernel waits for a call (XDP_RING_NEED_WAKEUP).
func (r *ring[E]) wantsWakeup() bool { return r.flags.Load()&unix.XDP_RING_NEED_WAKEUP != 0 }

// Size is the ring's length in entries, 0 when the socket has none of it.
func (r *ring[E]) Size() int { return len(r.entries) }

// Fill is the ring of chunks to receive into.
type Fill struct {
	ring[uint64]
	umem *UMEM
}

// Put gives chunks to the kernel and returns how many it took: fewer when the
// ring is full. Addresses may lie anywhere within a chunk; the kernel receives
// into all of it.
func (f *Fill) Put(chunks []uint64) int {
	n := f.room(len(chunks))
	if n == 0 {
		return 0
	}
	if f.umem.config.RxMetadata {
		f.umem.forget(chunks[:n])
	}
	if mask := f.umem.mask; mask != 0 {
		// The kernel cuts an aligned chunk's address itself.
		return f.put(chunks[:n])
	}
	for i, a := range chunks[:n] {
		f.entries[(f.own+uint32(i))&f.mask] = f.umem.Base(a)
	}
	f.own += uint32(n)
	f.producer.Store(f.own)
	return n
}

// untouched says whether nothing was ever put into the ring.
func (f *Fill) untouched() bool { return f.own == 0 }

// Room is how many chunks the ring would take now, at most want.
func (f *Fill) Room(want int) int { return f.room(want) }

// NeedsWakeup says whether the kernel waits for [Socket.WakeFill].
func (f *Fill) NeedsWakeup() bool { return len(f.entries) > 0 && f.wantsWakeup() }

// Completion is the ring of chunks whose frames were transmitted.
type Completion struct {
	ring[uint64]
	umem *UMEM
	// Bad is how many addresses were not of the UMEM.
	Bad uint64
}

// Take returns chunks from the kernel, by the addresses they were put into the
// TX ring with.
func (c *Completion) Take(chunks []uint64) int {
	n := c.take(chunks)
	chunks = chunks[:n]
	size := c.umem.size
	for _, a := range chunks {
		if a >= size {
			return c.sort(chunks)
		}
	}
	return n
}

// produced is how many chunks the kernel has put into the ring, modulo 2^32.
func (c *Completion) produced() uint32 {
	if c.entries == nil { // closed
		return c.own
	}
	return c.producer.Load()
}

// Ready is how many chunks Take would return now.
func (c *Completion) Ready() int { return c.ready(len(c.entries)) }

// sort drops the addresses that are not of the UMEM.
func (c *Completion) sort(chunks []uint64) int {
	n := 0
	for _, a := range chunks {
		if a >= c.umem.size {
			c.Bad++
			continue
		}
		chunks[n] = a
		n++
	}
	return n
}

// RX is the ring of received frames.
type RX struct {
	ring[Desc]
	umem *UMEM
	// Bad is how many descriptors did not describe data within one chunk.
	Bad     uint64
	touched byte // what Touch read last
}

// Take returns received frames. In multi-buffer mode one frame may be several
// descriptors, and a batch may end within one.
func (r *RX) Take(frames []Desc) int {
	n := r.take(frames)
	u := r.umem
	if u.mask == 0 {
		for i := range frames[:n] {
			frames[i].Addr = flat(frames[i].Addr)
		}
		return r.keepValid(frames[:n])
	}
	// One chunk's end for all: a power of two.
	frames = frames[:n]
	size, mask := u.size, u.mask
	for i := range frames {
		if a := frames[i].Addr; a >= size || a&mask+uint64(frames[i].Len) > mask+1 {
			return r.keepValid(frames)
		}
	}
	return n
}

// Touch reads a byte of each of the next received frames, most at most, which has their cache lines come at the same time.
func (r *RX) Touch(most int) {
	mem, sum := r.umem.mem, byte(0)
	most = r.ready(most)
	for n := 0; n < most; {
		row := r.row(n, most-n)
		for i := range row {
			a := row[i].Addr
			if r.umem.mask == 0 {
				a = flat(a)
			}
			if a < uint64(len(mem)) {
				sum |= mem[a]
			}
		}
		n += len(row)
	}
	r.touched = sum
}

// keepValid drops the descriptors whose data does not lie within one chunk, and
// returns how many are left.
func (r *RX) keepValid(frames []Desc) int {
	n := 0
	for _, d := range frames {
		if !r.umem.Valid(d) {
			r.Bad++
			continue
		}
		frames[n] = d
		n++
	}
	return n
}

// flat is the address in the UMEM of an unaligned chunk's data: the kernel keeps
// the offset into the chunk in the upper 16 bits (XSK_UNALIGNED_BUF_OFFSET_SHIFT).
func flat(addr uint64) uint64 { return addr&(1<<48-1) + addr>>48 }

// TX is the ring of frames to transmit.
type TX struct {
	ring[Desc]
	umem *UMEM
	// Bad is how many descriptors Put refused since they were empty or reached
	// out of their chunk: the kernel would count them and never give them back.
	Bad uint64

	read        uint32 // the entry after the one that was dropped last
	lastDropped Desc
}

// Put gives whole frames to the kernel and returns how many descriptors it took:
// fewer when the ring is full, or when the next frame is not valid ([TX.Sendable]),
// which counts as Bad. They leave with the next [Socket.Kick].
func (t *TX) Put(frames []Desc) int {
	n := t.room(len(frames))
	if sendable := t.sendable(frames[:n]); sendable < n {
		t.Bad++
		n = sendable
	}
	for n > 0 && n < len(frames) && frames[n-1].Options&Continued != 0 {
		n--
	}
	return t.put(frames[:n])
}

// sendable is how many descriptors the kernel would take before one that it would not.
func (t *TX) sendable(frames []Desc) int {
	size, mask := t.umem.size, t.umem.mask
	for i := range frames {
		d := &frames[i]
		// One chunk's end for all where they are a power of two, as in RX.Take. The last of an empty frame's bytes is none.
		a, last := d.Addr, uint64(d.Len)-1
		if (a >= size || last > ^a&mask || d.Options&^(Continued|HasMetadata) != 0) && !t.Sendable(*d) {
			return i
		}
	}
	return len(frames)
}

// Sendable says whether the kernel would take a descriptor: data within one
// chunk, and some (xp_aligned_validate_desc in net/xdp/xsk_queue.h).
func (t *TX) Sendable(d Desc) bool {
	return d.Len != 0 && t.umem.Valid(d) && d.Options&^(Continued|HasMetadata) == 0
}

// Room is how many descriptors the ring would take now, at most want.
func (t *TX) Room(want int) int { return t.room(want) }

// Pending is how many descriptors the kernel has not read yet.
func (t *TX) Pending() int { return len(t.entries) - t.room(len(t.entries)) }

// consumed is the first entry that the kernel has not read yet.
func (t *TX) consumed() uint32 {
	if t.entries == nil { // closed
		return t.own
	}
	return t.consumer.Load()
}

// dropped notes that a call of the kernel's ended with a frame that it dropped. before is the first entry that was unread before the
// call, and completed how many have come back after it, at least as many of which are read.
// The kernel publishes what it has read where it sent a frame too, since Linux 6.17, else when it finds no more.
func (t *TX) dropped(before, completed uint32) {
	if t.entries == nil { // closed
		return
	}
	if int32(before-t.read) > 0 {
		t.read = before
	}
	now := t.consumed()
	if int32(completed-now) > 0 && int32(t.own-completed) >= 0 {
		now = completed
	}
	if int32(now-t.read) > 0 {
		t.read = now
	} else {
		for more := true; more && t.read != t.own; t.read++ {
			more = t.entries[t.read&t.mask].Options&Continued != 0
		}
	}
	t.lastDropped = t.entries[(t.read-1)&t.mask]
}

// NeedsWakeup says whether the kernel waits for [Socket.Kick].
func (t *TX) NeedsWakeup() bool { return len(t.entries) > 0 && t.wantsWakeup() }

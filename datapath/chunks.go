package datapath

import "math/bits"

// owner says where a chunk is.
type owner uint16

const (
	notOurs owner = iota // another's, or in the UMEM
	unused               // on the free stack
	held                 // being worked on
	lent                 // handed to another worker, and not back
	firstPort
)

// Three states for each port: chunks to receive into, the last or only part of a
// frame to transmit, and another part.
func filling(port int) owner                 { return firstPort + owner(3*port) }
func sending(port int) owner                 { return firstPort + owner(3*port) + 1 }
func sendingPart(port int) owner             { return firstPort + owner(3*port) + 2 }
func (d *Datapath) index(addr uint64) uint64 { return index(addr, d.reciprocal) }

// index is the number of the chunk at an address: a division that is exact below
// 2^52 for chunks of up to 4096 bytes.
func index(addr, reciprocal uint64) uint64 {
	n, _ := bits.Mul64(addr, reciprocal)
	return n
}

// release puts a chunk on the free stack, or gives it back to the worker it belongs to.
func (d *Datapath) release(addr uint64) {
	if d.isForeign(addr) {
		d.giveBack(addr)
		return
	}
	d.owner[d.index(addr)] = unused
	d.free = append(d.free, addr)
}

// reclaim takes back the chunks of transmitted frames, onto the free stack.
func (d *Datapath) reclaim(port int) {
	s := &d.slots[port]
	for {
		n := len(d.free)
		got := d.free[n:cap(d.free)]
		got = got[:s.complete(got)]
		whole := d.pass(got, sending(port), unused)
		kept, frames := d.reclaimParts(port, got, whole)
		if d.foreign > 0 {
			kept = d.giveBackSome(got[:kept])
		}
		d.free = d.free[:n+kept]
		s.settle(uint64(frames))
		if len(got) < reclaimAgain {
			return
		}
	}
}

// recycle gives chunks of frames that a port transmitted to another to receive into, as many as that wants. Under load
// all go this way: who owns them is noted once, and not when they come to the free stack and when they leave it.
func (d *Datapath) recycle(from, to int) {
	s, t := &d.slots[from], &d.slots[to]
	n := len(d.free)
	got := d.free[n:cap(d.free)]
	got = got[:min(len(got), t.target-t.filled)]
	got = got[:s.complete(got)]
	whole := d.pass(got, sending(from), filling(to))
	filled := t.fill(got[:whole])
	t.filled += filled
	d.own(got[filled:whole], unused)
	kept, frames := d.reclaimParts(from, got, whole)
	d.free = append(d.free, got[filled:kept]...)
	s.settle(uint64(frames))
}

// pass gives chunks of one owner to another, from the first on as long as they are that owner's, and returns how many
// it was. It is a function of its own as hold is.
//
//go:noinline
func (d *Datapath) pass(chunks []uint64, from, to owner) int {
	owners, reciprocal := d.owner, d.reciprocal
	for i, a := range chunks {
		o := &owners[index(a, reciprocal)]
		if *o != from {
			return i
		}
		*o = to
	}
	return len(chunks)
}

// reclaimParts takes back the chunks from whole on, which may be parts of frames, and drops those that the port did not
// have. It returns how many are left, those before too, and how many frames they were.
func (d *Datapath) reclaimParts(port int, chunks []uint64, whole int) (kept, frames int) {
	kept, frames = whole, whole
	last, part := sending(port), sendingPart(port)
	for _, a := range chunks[whole:] {
		o := &d.owner[d.index(a)]
		switch *o {
		case last:
			frames++
		case part:
		default:
			d.slots[port].counters.Bad++
			continue
		}
		*o = unused
		chunks[kept] = a
		kept++
	}
	return kept, frames
}

// own notes who owns chunks.
//
//go:noinline
func (d *Datapath) own(chunks []uint64, by owner) {
	owners, reciprocal := d.owner, d.reciprocal
	for _, a := range chunks {
		owners[index(a, reciprocal)] = by
	}
}

// reclaimAgain is how many chunks make it worth asking for more.
const reclaimAgain = 1024

// settle counts frames whose chunks came back. Those that were not sent are
// counted already, and are some of them.
func (s *slot) settle(frames uint64) {
	c := &s.counters
	owed := c.Unsent - s.settled
	n := min(frames, owed)
	s.settled += n
	frames -= n
	c.Transmitted += frames
	c.InFlight -= min(frames, c.InFlight)
}

// refill gives a port chunks to receive into, most at most.
func (d *Datapath) refill(port, most int) {
	s := &d.slots[port]
	n := min(s.target-s.filled, most)
	if n <= 0 {
		return
	}
	chunks := d.free[len(d.free)-n:]
	n = s.fill(chunks)
	d.own(chunks[:n], filling(port))
	// What it did not take stays, under what it took.
	copy(chunks, chunks[n:])
	d.free = d.free[:len(d.free)-n]
	s.filled += n
}

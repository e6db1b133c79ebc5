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
	last, part := sending(port), sendingPart(port)
	for {
		n := len(d.free)
		got := d.free[n:cap(d.free)]
		got = got[:s.complete(got)]
		kept := d.reclaimWhole(got, last)
		frames := kept
		for _, a := range got[kept:] {
			o := &d.owner[d.index(a)]
			switch *o {
			case last:
				frames++
			case part:
			default:
				s.counters.Bad++
				continue
			}
			*o = unused
			got[kept] = a
			kept++
		}
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

// reclaimWhole takes back chunks from the first on, as long as each has all of a frame, and returns how many it was.
func (d *Datapath) reclaimWhole(chunks []uint64, last owner) int {
	owners, reciprocal := d.owner, d.reciprocal
	for i, a := range chunks {
		o := &owners[index(a, reciprocal)]
		if *o != last {
			return i
		}
		*o = unused
	}
	return len(chunks)
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

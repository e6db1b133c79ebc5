package datapath

import (
	"math/bits"

	"github.com/unthunk/unthunk/xsk"
)

// owner says where a chunk is: a state in the upper 4 bits, and of what a port has the port in the next 14. Of a frame to transmit
// the input that it came from is in the lowest 14: so it is known what became of the frames of each input, and nothing is noted
// of a frame that was not noted before.
type owner = xsk.Owner

const (
	portBits  = 14 // of a port: see MaxPorts
	stateUnit = 1 << (2 * portBits)
)

const (
	notOurs    owner = iota * stateUnit // another's, or in the UMEM
	unused                              // on the free stack
	held                                // being worked on
	lent                                // handed to another worker, and not back
	toFill                              // a port's, to receive into
	toSend                              // a port's: the last or only part of a frame to transmit
	toSendPart                          // a port's: another part
	notSent                             // a port's: the last part of a frame that it will not transmit
)

func filling(port int) owner        { return toFill | owner(port)<<portBits }
func sending(port, input int) owner { return toSend | owner(port)<<portBits | owner(input) }
func sendingPart(port int) owner    { return toSendPart | owner(port)<<portBits }

func stateOf(o owner) owner { return o &^ (stateUnit - 1) }
func inputOf(o owner) int   { return int(o & (1<<portBits - 1)) }

// with says whether a port has a chunk, by its owner.
func with(o owner, port int) bool { return o >= toFill && int(o>>portBits&(1<<portBits-1)) == port }

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
		kept := d.completed(port, got, unused)
		if d.foreign > 0 {
			kept = d.giveBackSome(got[:kept])
		}
		d.free = d.free[:n+kept]
		if len(got) < reclaimAgain {
			return
		}
	}
}

// recycle gives chunks of frames that a port transmitted to another to receive into, as many as that wants. Under load
// all go this way: who owns them is noted once, and not when they come to the free stack and when they leave it.
func (d *Datapath) recycle(from, to int) {
	s, t := &d.slots[from], &d.slots[to]
	if s.kind == kindXSK && t.kind == kindXSK {
		n := s.xsk.complete(t.xsk, t.target-t.filled, d.owner, sending(from, s.input), filling(to))
		t.filled += n
		d.transmitted(from, s.input, uint64(n))
		if n > 0 && !t.wants() {
			return
		}
	}
	n := len(d.free)
	got := d.free[n:cap(d.free)]
	got = got[:min(len(got), t.target-t.filled)]
	got = got[:s.complete(got)]
	got = got[:d.completed(from, got, filling(to))]
	filled := t.fill(got)
	t.filled += filled
	d.own(got[filled:], unused)
	d.free = append(d.free, got[filled:]...)
}

// completed gives chunks that a port has returned to their next owner, counts the frames that they are the ends of as transmitted, and
// drops those that the port did not have to transmit. It returns how many are left. In general all are whole frames of one input.
func (d *Datapath) completed(port int, chunks []uint64, to owner) (kept int) {
	for kept < len(chunks) {
		o := d.owner[d.index(chunks[kept])]
		n := 0
		if o == sending(port, inputOf(o)) {
			n = d.pass(chunks[kept:], o, to)
			d.transmitted(port, inputOf(o), uint64(n))
			kept += n
		}
		if n < inRow {
			return d.completedMixed(port, chunks, kept, to)
		}
	}
	return kept
}

// inRow is how many frames of one input in a row make it likely that as many of another follow.
const inRow = 8

// completedMixed is completed from a chunk on: parts of frames, and frames of several inputs.
func (d *Datapath) completedMixed(port int, chunks []uint64, from int, to owner) (kept int) {
	kept = from
	input, frames := 0, uint64(0) // in a row
	for _, a := range chunks[from:] {
		o := &d.owner[d.index(a)]
		switch last := *o; {
		case last == sendingPart(port):
		case last == sending(port, inputOf(last)):
			if inputOf(last) != input {
				d.transmitted(port, input, frames)
				input, frames = inputOf(last), 0
			}
			frames++
		case with(last, port) && stateOf(last) == notSent:
		default:
			d.slots[port].counters.Bad++
			continue
		}
		*o = to
		chunks[kept] = a
		kept++
	}
	d.transmitted(port, input, frames)
	return kept
}

// transmitted counts frames of an input whose chunks a port has returned: they have left by it, but for as many as it said were
// not sent, and not which.
func (d *Datapath) transmitted(port, input int, frames uint64) {
	s := &d.slots[port]
	if s.owed > 0 {
		unsent := min(s.owed, frames)
		s.owed -= unsent
		frames -= unsent
		d.addUnsent(port, input, unsent)
	}
	out, in := &s.counters.Outcome, &d.slots[input].counters.Onward
	out.Transmitted += frames
	out.InFlight -= frames
	in.Transmitted += frames
	in.InFlight -= frames
}

// unsent counts a frame that a port took and will not transmit, by its last chunk, which is still to come back. Where that chunk is
// of no frame that the port has to transmit, it was another frame, and the port owes it: the next that comes back counts for it.
func (d *Datapath) unsent(port int, addr uint64) {
	s := &d.slots[port]
	o := &d.owner[d.index(addr)]
	switch {
	case with(*o, port) && stateOf(*o) == toSend:
		d.addUnsent(port, inputOf(*o), 1)
		*o = notSent | *o&(stateUnit-1)
	case s.owed < s.counters.InFlight+s.counters.Transmitted:
		s.owed++
	default: // more than it took
		s.counters.Bad++
	}
}

// addUnsent counts frames of an input that a port took and did not transmit.
func (d *Datapath) addUnsent(port, input int, frames uint64) {
	out, in := &d.slots[port].counters.Outcome, &d.slots[input].counters.Onward
	out.Unsent += frames
	out.InFlight -= frames
	in.Unsent += frames
	in.InFlight -= frames
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

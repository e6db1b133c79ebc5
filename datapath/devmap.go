package datapath

import "unthunk/xsk"

// queue is a port's bulk queue: frames on their way to it, and which input each
// descriptor came from.
type queue struct {
	frames []xsk.Desc
	from   []uint16
	n      int
}

// DevMap is the ports of a datapath by number, each with a bulk queue that is
// handed over when it is full or at the end of the poll, as the kernel's devmap
// does it (struct xdp_dev_bulk_queue).
type DevMap struct {
	slots []slot
	bulk  int
}

func newDevMap(ports, bulk int) DevMap {
	m := DevMap{slots: make([]slot, ports), bulk: bulk}
	for i := range m.slots {
		q := &m.slots[i].queue
		q.frames, q.from = make([]xsk.Desc, bulk), make([]uint16, bulk)
	}
	return m
}

// redirect puts the frames of a batch into the queues that the verdicts name.
// Each frame is one descriptor. It returns how many were forwarded; chunks of
// the others go to drop.
func (d *Datapath) redirect(from int, frames []xsk.Desc, verdicts []Verdict) {
	in := &d.slots[from].counters
	slots := d.slots
	verdicts = verdicts[:len(frames)]
	for i := range frames {
		to := int(verdicts[i]) - 1
		if uint(to) >= uint(len(slots)) || slots[to].kind == kindNone {
			if verdicts[i] == Drop {
				in.DroppedByVerdict++
			} else {
				in.DroppedNoPort++
			}
			d.release(frames[i].Addr)
			continue
		}
		q := &slots[to].queue
		q.frames[q.n] = frames[i]
		q.from[q.n] = uint16(from)
		q.n++
		in.Forwarded++
		if q.n == len(q.frames) {
			d.transmit(to)
		}
	}
}

// redirectParts is redirect for frames of several descriptors.
func (d *Datapath) redirectParts(from int, frames []Frame, descs []xsk.Desc, verdicts []Verdict) {
	in := &d.slots[from].counters
	for i := range frames {
		parts := descs[:frames[i].parts]
		descs = descs[len(parts):]
		to := int(verdicts[i]) - 1
		switch {
		case verdicts[i] == Drop:
			in.DroppedByVerdict++
		case uint(to) >= uint(len(d.slots)) || d.slots[to].kind == kindNone:
			in.DroppedNoPort++
		default:
			q := &d.slots[to].queue
			if q.n+len(parts) > len(q.frames) {
				d.transmit(to)
			}
			for j := range parts {
				q.frames[q.n] = parts[j]
				q.from[q.n] = uint16(from)
				q.n++
			}
			in.Forwarded++
			continue
		}
		for j := range parts {
			d.release(parts[j].Addr)
		}
	}
}

// transmit hands a queue over. What the port has no room for, after it was made
// to go on once, is dropped.
func (d *Datapath) transmit(to int) {
	s := &d.slots[to]
	q := &s.queue
	rest, from := q.frames[:q.n], q.from[:q.n]
	q.n = 0
	pushed := false
	for len(rest) > 0 {
		if s.kind == kindNone { // lost meanwhile
			d.discard(rest, from, reasonNoPort)
			return
		}
		n, err := s.transmit(rest)
		d.accepted(to, rest[:n])
		if n > 0 {
			s.counters.Bulks++
		}
		rest, from = rest[n:], from[n:]
		if len(rest) == 0 {
			return
		}
		if err != nil {
			n := parts(rest)
			d.discard(rest[:n], from[:n], reasonRefused)
			rest, from = rest[n:], from[n:]
			continue
		}
		if pushed {
			d.discard(rest, from, reasonNoRoom)
			return
		}
		pushed = true
		d.push(to)
		if s.kind != kindNone {
			d.reclaim(to)
		}
	}
}

// parts is how many descriptors the first frame has.
func parts(frames []xsk.Desc) int {
	n := 0
	for n < len(frames)-1 && frames[n].Options&xsk.Continued != 0 {
		n++
	}
	return n + 1
}

// accepted notes that a port owns frames to transmit.
func (d *Datapath) accepted(to int, frames []xsk.Desc) {
	c := &d.slots[to].counters
	last, part := sending(to), sendingPart(to)
	var bytes, n uint64
	for i := range frames {
		owner := last
		if frames[i].Options&xsk.Continued != 0 {
			owner = part
		} else {
			n++
		}
		d.owner[d.index(frames[i].Addr)] = owner
		bytes += uint64(frames[i].Len)
	}
	c.Accepted += n
	c.InFlight += n
	c.AcceptedBytes += bytes
}

type reason int

const (
	reasonNoRoom reason = iota
	reasonNoPort
	reasonRefused
)

// discard drops frames that were in a queue. They had been counted as forwarded.
func (d *Datapath) discard(frames []xsk.Desc, from []uint16, why reason) {
	for i := range frames {
		d.release(frames[i].Addr)
		if frames[i].Options&xsk.Continued != 0 {
			continue
		}
		c := &d.slots[from[i]].counters
		c.Forwarded--
		switch why {
		case reasonNoRoom:
			c.DroppedNoRoom++
		case reasonNoPort:
			c.DroppedNoPort++
		case reasonRefused:
			c.DroppedRefused++
		}
	}
}

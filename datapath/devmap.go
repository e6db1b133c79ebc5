package datapath

import "github.com/unthunk/unthunk/xsk"

// queue is a port's bulk queue: frames on their way to it. They came in runs,
// each from one input.
type queue struct {
	frames []xsk.Desc
	n      int
	runs   []run
}

// run is frames of a queue up to, and without, end that came from one input.
type run struct {
	from int
	end  int
}

// add notes that the frames up to n came from an input.
func (q *queue) add(from, n int) {
	q.n = n
	if last := len(q.runs) - 1; last >= 0 && q.runs[last].from == from {
		q.runs[last].end = n
		return
	}
	q.runs = append(q.runs, run{from, n})
}

// queued notes that n more frames, from an input, are in a port's queue.
func (d *Datapath) queued(from, to, n int) {
	q := &d.slots[to].queue
	if q.n == 0 {
		d.pending = append(d.pending, to)
	}
	q.add(from, q.n+n)
}

// from is the input that a frame of the queue came from.
func (q *queue) from(i int) int {
	for _, r := range q.runs {
		if i < r.end {
			return r.from
		}
	}
	panic("datapath: a frame in a bulk queue came from nowhere")
}

// newSlots makes slots for ports of devices (see Config.Devices), each with a bulk queue of bulk descriptors. A
// queue is handed over when it is full or at the end of the poll, as the kernel's
// devmap does it (struct xdp_dev_bulk_queue).
func newSlots(ports, bulk int, devices []int) []slot {
	slots := make([]slot, ports)
	for i := range slots {
		q := &slots[i].queue
		q.frames, q.runs = make([]xsk.Desc, bulk), make([]run, 0, bulk)
		slots[i].device = i
		if devices != nil {
			slots[i].device = devices[i]
		}
	}
	return slots
}

// redirect puts the frames of a batch, of one descriptor each, into the queues
// that their actions name, and frees the chunks of the others. Frames in a row
// with the same action go together.
func (d *Datapath) redirect(from int, frames []xsk.Desc, actions []Action) {
	in := &d.slots[from].counters
	actions = actions[:len(frames)]
	for start := 0; start < len(frames); {
		a := actions[start]
		end := start + 1
		for end < len(actions) && actions[end] == a {
			end++
		}
		same := frames[start:end]
		start = end
		to := a.port()
		if uint(to) >= uint(len(d.slots)) || d.slots[to].kind == kindNone {
			if a == Drop {
				in.DroppedByProgram += uint64(len(same))
			} else {
				in.DroppedNoPort += uint64(len(same))
			}
			for i := range same {
				d.release(same[i].Addr)
			}
			continue
		}
		if d.slots[to].kind == kindRemote {
			in.HandedOver += uint64(len(same))
		} else {
			in.Forwarded += uint64(len(same))
		}
		q := &d.slots[to].queue
		if q.n == 0 && len(same) >= len(q.frames) {
			// What would fill the queue need not go through it.
			d.transmit(to, &queue{frames: same, n: len(same), runs: append(q.runs, run{from, len(same)})})
			continue
		}
		for len(same) > 0 {
			n := copy(q.frames[q.n:], same)
			same = same[n:]
			d.queued(from, to, n)
			if q.n == len(q.frames) {
				d.transmit(to, q)
			}
		}
	}
}

// redirectParts is redirect for frames of several descriptors.
func (d *Datapath) redirectParts(from int, frames []Frame, descs []xsk.Desc, actions []Action) {
	in := &d.slots[from].counters
	for i := range frames {
		parts := descs[:frames[i].parts]
		descs = descs[len(parts):]
		to := actions[i].port()
		switch {
		case actions[i] == Drop:
			in.DroppedByProgram++
		case uint(to) >= uint(len(d.slots)) || d.slots[to].kind == kindNone:
			in.DroppedNoPort++
		default:
			q := &d.slots[to].queue
			if q.n+len(parts) > len(q.frames) {
				d.transmit(to, q)
			}
			d.queued(from, to, copy(q.frames[q.n:], parts))
			if d.slots[to].kind == kindRemote {
				in.HandedOver++
			} else {
				in.Forwarded++
			}
			continue
		}
		for j := range parts {
			d.release(parts[j].Addr)
		}
	}
}

// transmit hands the frames of a queue over to a port. What the port has no room for, after it was made
// to go on once, is dropped.
func (d *Datapath) transmit(to int, q *queue) {
	s := &d.slots[to]
	if s.kind == kindRemote {
		d.handOver(to, q)
		return
	}
	pushed := false
	for at := 0; at < q.n; {
		if s.kind == kindNone { // lost in between
			d.discard(to, q, at, q.n, reasonNoPort)
			break
		}
		rest := q.frames[at:q.n]
		n, err := s.transmit(rest)
		if n > 0 {
			d.accepted(to, q, at, at+n)
		}
		at += n
		if at == q.n {
			break
		}
		if err != nil {
			end := at + parts(rest[n:])
			d.discard(to, q, at, end, reasonRefused)
			at = end
			continue
		}
		if pushed {
			d.discard(to, q, at, q.n, reasonNoRoom)
			break
		}
		pushed = true
		d.push(to)
		if s.kind != kindNone {
			d.reclaim(to)
		}
	}
	q.n, q.runs = 0, q.runs[:0]
}

// parts is how many descriptors the first frame has.
func parts(frames []xsk.Desc) int {
	n := 0
	for n < len(frames)-1 && frames[n].Options&xsk.Continued != 0 {
		n++
	}
	return n + 1
}

// accepted notes that a port owns the frames at … end-1 of a queue, one or more, to transmit.
func (d *Datapath) accepted(to int, q *queue, at, end int) {
	out := &d.slots[to].counters
	out.Bulks++
	d.bulks++
	for _, r := range q.runs {
		if r.end <= at {
			continue
		}
		frames := q.frames[at:min(r.end, end)]
		bytes, options := d.send(frames, sending(to, r.from))
		n := uint64(len(frames))
		if options&xsk.Continued != 0 {
			n -= d.sendParts(frames, sendingPart(to))
		}
		out.Accepted += n
		out.InFlight += n
		out.AcceptedBytes += bytes
		in := &d.slots[r.from]
		in.counters.Onward.InFlight += n
		if device := &d.slots[in.device]; device.bulk != d.bulks {
			device.bulk = d.bulks
			in.counters.Onward.Bulks++
		}
		if at += len(frames); at == end {
			return
		}
	}
}

// send notes who owns descriptors, and returns how many bytes and the options of all together. It is a function of its
// own as hold is.
//
//go:noinline
func (d *Datapath) send(frames []xsk.Desc, to owner) (bytes uint64, options uint32) {
	owners, reciprocal := d.owner, d.reciprocal
	for i := range frames {
		f := &frames[i]
		bytes += uint64(f.Len)
		options |= f.Options
		owners[index(f.Addr, reciprocal)] = to
	}
	return bytes, options
}

// sendParts notes who owns the descriptors that are not the last of their frames, and returns how many those are.
func (d *Datapath) sendParts(frames []xsk.Desc, to owner) (n uint64) {
	for i := range frames {
		if frames[i].Options&xsk.Continued != 0 {
			d.owner[d.index(frames[i].Addr)] = to
			n++
		}
	}
	return n
}

type reason int

const (
	reasonNoRoom reason = iota
	reasonNoPort
	reasonRefused
)

// discard drops the frames at from … end-1 of a queue for a port. They had been counted as
// forwarded, or handed over.
func (d *Datapath) discard(port int, q *queue, from, end int, why reason) {
	s := &d.slots[port]
	for i := from; i < end; i++ {
		d.release(q.frames[i].Addr)
		if q.frames[i].Options&xsk.Continued != 0 {
			continue
		}
		c := &d.slots[q.from(i)].counters
		if s.kind == kindRemote {
			c.HandedOver--
		} else {
			c.Forwarded--
		}
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

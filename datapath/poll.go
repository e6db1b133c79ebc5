package datapath

import (
	"fmt"
	"runtime"

	"github.com/unthunk/unthunk/xsk"
)

// Poll takes a batch from each port, has it decided on, and hands it over. It
// returns how many frames were received, or taken over from other workers. Ports that were lost are closed and
// reported, to Config.Lost or as an error.
//
// Without copies a port that got a full batch may be flushed by one of the next calls only, when it has half of its TX ring full,
// or when it gets less: call Poll until it returns 0 before waiting for the ports, or before Close.
func (d *Datapath) Poll() (frames int, err error) {
	return d.poll(nil)
}

// poll is Poll. watch notes when it begins, after what it waited for who reads counters; it may be nil.
func (d *Datapath) poll(watch *stopwatch) (frames int, err error) {
	// Who wants to read counters, of all workers perhaps, need not wait for its turn.
	for d.wanted.Load() > 0 {
		watch.forget()
		runtime.Gosched()
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return 0, fmt.Errorf("poll datapath: %w", xsk.ErrClosed)
	}
	watch.begin()
	if d.others != nil {
		d.takeBack()
		frames += d.takeOver()
	}
	for _, i := range d.mine {
		if d.slots[i].here() {
			frames += d.receive(i)
		}
	}
	d.finish()
	// Whether the devices are still there is asked seldom while there is work.
	polls := d.polls.Add(1)
	if frames == 0 && polls&63 == 0 || polls&1023 == 0 {
		d.check()
	}
	lost := d.lost
	d.lost = nil
	d.mu.Unlock()
	if len(lost) > 0 {
		err = d.report(lost)
	}
	return frames, err
}

// finish ends a poll: hands queues over, takes transmitted frames back, fills
// ports up.
func (d *Datapath) finish() {
	for _, i := range d.pending {
		if q := &d.slots[i].queue; q.n > 0 {
			d.transmit(i, q)
		}
	}
	d.pending = d.pending[:0]
	mine, wanting := d.mine, 0 // of mine, the first that may want chunks
	for _, i := range mine {
		s := &d.slots[i]
		// Also without new frames: those a kick left behind need another one,
		// and a full ring would stay full.
		if s.here() && s.counters.InFlight > 0 {
			if !s.waits(uint64(d.config.Batch)) {
				d.push(i)
			}
			if !s.here() {
				continue
			}
			for ; wanting < len(mine) && d.foreign == 0; wanting++ {
				if to := mine[wanting]; d.slots[to].wants() {
					if d.recycle(i, to); d.slots[to].wants() {
						break
					}
				}
			}
			if !s.keeps() || d.foreign > 0 {
				d.reclaim(i)
			}
		}
	}
	for _, i := range d.mine {
		if d.slots[i].wants() {
			d.refill(i, len(d.free))
		}
	}
	if d.others != nil {
		d.publishBack()
	}
}

// waits says whether what the port was given may wait for the next poll: in this one it got a full batch, another is likely,
// and there is room for as much.
func (s *slot) waits(batch uint64) bool {
	got := s.counters.Accepted - s.accepted
	s.accepted, s.full = s.counters.Accepted, got >= batch
	if held := s.accepted - s.flushed; s.full && held+got <= s.hold {
		return true
	}
	s.flushed = s.accepted
	return false
}

// keeps says whether chunks of frames that the port has transmitted may stay with it, for ports that want some after the next
// batches: in this poll it got a full batch, and it has room for more.
func (s *slot) keeps() bool { return s.full && s.kind == kindXSK && s.xsk.keeps() }

// receive takes a batch from a port to the queues and returns how many frames it
// was.
func (d *Datapath) receive(port int) (frames int) {
	s := &d.slots[port]
	if d.config.Route != nil {
		if n := d.relay(port); n > 0 {
			return n
		}
	}
	carried := copy(d.descs, s.carry)
	n, err := s.receive(d.descs[carried : carried+d.config.Batch])
	if err != nil {
		d.lose(port, err)
		return 0
	}
	if n == 0 {
		return 0
	}
	s.counters.Batches++
	descs := d.descs[:carried+n]
	whole := carried == 0 && !s.skipping
	if whole {
		n, whole = d.claim(port, descs)
		descs = descs[:n]
	} else {
		descs = descs[:carried+d.keepOwn(port, descs[carried:], 0)]
	}
	s.carry = s.carry[:0]
	if !whole {
		return d.receiveParts(port, descs)
	}
	actions := d.actions[:len(descs)]
	clear(actions)
	s.counters.Received += uint64(len(descs))
	d.config.Program(d.frames[:len(descs)], actions)
	d.redirect(port, descs, actions)
	return len(descs)
}

// relayBatches is how many batches go from ring to ring at once where the driver is not asked for each: no program's arrays
// limit them, and what a poll takes beside its frames is 5 instructions a frame then.
const relayBatches = 4

// relay moves a batch of a port to that where all its frames go, from ring to ring, where both are AF_XDP ports of this
// worker, and returns how many frames it was. What it leaves is for receive: the port has none, or the next cannot go so, as
// there is no room or it is in several parts.
func (d *Datapath) relay(port int) (frames int) {
	s := &d.slots[port]
	if s.kind != kindXSK || len(s.carry) > 0 || s.skipping {
		return 0
	}
	to := d.config.Route(port).port()
	if uint(to) >= uint(len(d.slots)) || d.slots[to].kind != kindXSK {
		return 0
	}
	t := &d.slots[to]
	most := d.config.Batch
	most = max(most, min(relayBatches*most, int(t.hold)))
	frames, bytes := s.xsk.relay(t.xsk, most, d.owner, filling(port), sending(to, port))
	if frames == 0 {
		return 0
	}
	n := uint64(frames)
	s.filled -= frames
	in, out := &s.counters, &t.counters
	in.Batches++
	in.Received += n
	in.ReceivedBytes += bytes
	in.Forwarded += n
	in.Onward.Bulks++
	in.Onward.InFlight += n
	out.Bulks++
	out.Accepted += n
	out.AcceptedBytes += bytes
	out.InFlight += n
	t.input = port
	return frames
}

// claim takes chunks over from a port, drops descriptors in chunks that it did
// not have, and makes frames of the others. It says whether each is a whole
// frame; if not the frames are not made.
func (d *Datapath) claim(port int, descs []xsk.Desc) (n int, whole bool) {
	s := &d.slots[port]
	n, options := d.hold(descs, filling(port))
	s.filled -= n
	if n < len(descs) {
		return d.keepOwn(port, descs, n), false
	}
	if options&xsk.Continued != 0 {
		return n, false
	}
	s.counters.ReceivedBytes += d.frame(port, descs)
	return n, true
}

// hold takes over the chunks of descriptors as long as they are of one owner, and returns how many that were, and
// the options of all together. Each of claim's loops is a function, as their variables do not fit into the
// registers together.
//
//go:noinline
func (d *Datapath) hold(descs []xsk.Desc, from owner) (n int, options uint32) {
	owners, reciprocal := d.owner, d.reciprocal
	for i := range descs {
		o := &owners[index(descs[i].Addr, reciprocal)]
		if *o != from {
			return i, options
		}
		*o = held
		options |= descs[i].Options
	}
	return len(descs), options
}

// frame makes frames of descriptors, one of each, and returns how many bytes they have.
//
//go:noinline
func (d *Datapath) frame(port int, descs []xsk.Desc) (bytes uint64) {
	mem, frames := d.mem, d.frames[:len(descs)]
	for i := range frames {
		a, l := descs[i].Addr, uint64(descs[i].Len)
		bytes += l
		f := &frames[i]
		f.Data, f.Len, f.Port = mem[a:a+l:a+l], uint32(l), uint16(port)
	}
	return bytes
}

// keepOwn drops the descriptors in chunks that a port did not have, from one on, and
// takes over the chunks of the others. It returns how many descriptors are left.
func (d *Datapath) keepOwn(port int, descs []xsk.Desc, from int) int {
	s := &d.slots[port]
	n := from
	for _, desc := range descs[from:] {
		o := &d.owner[d.index(desc.Addr)]
		if *o != filling(port) {
			s.counters.Bad++
			continue
		}
		*o = held
		descs[n] = desc
		n++
	}
	s.filled -= n - from
	return n
}

// receiveParts is receive for batches with frames of several parts. A frame whose
// end is not there is kept until it is. A chain that is too long is one frame,
// refused.
func (d *Datapath) receiveParts(port int, descs []xsk.Desc) int {
	s := &d.slots[port]
	frames, kept, start := 0, 0, 0
	for i := range descs {
		last := descs[i].Options&xsk.Continued == 0
		if !last && i-start+1 < MaxParts {
			continue
		}
		chain := descs[start : i+1]
		start = i + 1
		if !last || s.skipping {
			for _, part := range chain {
				d.release(part.Addr)
				s.counters.ReceivedBytes += uint64(part.Len)
			}
			s.skipping = !last
			if last {
				s.counters.Received++
				s.counters.DroppedRefused++
			}
			continue
		}
		f := &d.frames[frames]
		first := chain[0]
		f.Data = d.mem[first.Addr : first.Addr+uint64(first.Len) : first.Addr+uint64(first.Len)]
		f.Len, f.Port, f.parts = 0, uint16(port), uint16(len(chain))
		for _, part := range chain {
			f.Len += part.Len
		}
		s.counters.ReceivedBytes += uint64(f.Len)
		// Over what was dropped before.
		f.place.first = kept
		kept += copy(descs[kept:], chain)
		frames++
	}
	s.carry = append(s.carry, descs[start:]...)
	s.counters.Received += uint64(frames)
	if frames == 0 {
		return 0
	}
	actions := d.actions[:frames]
	clear(actions)
	d.config.Program(d.frames[:frames], actions)
	d.redirectParts(port, d.frames[:frames], descs[:kept], actions)
	for i := range frames {
		d.frames[i].place.first, d.frames[i].parts = i, 1
	}
	return frames
}

// push makes a port go on with what it has to transmit.
func (d *Datapath) push(port int) {
	s := &d.slots[port]
	unsent, err := s.flush()
	for _, a := range unsent {
		d.unsent(port, a)
	}
	if err != nil {
		d.lose(port, err)
	}
}

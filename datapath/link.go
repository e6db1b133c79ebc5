package datapath

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// fromTo is a ring of one producer and one consumer, each one goroutine at a time. Entries are
// published in bulk. Indices run freely and wrap at 2^32, as those of package xsk's rings.
type fromTo[E any] struct {
	entries []E // a power of two of them
	_       [64]byte
	// The producer's: what it has put, and of that what the consumer may see.
	put      uint32
	produced atomic.Uint32
	_        [64]byte
	// The consumer's: what it last saw of the producer's index.
	seenPut  uint32
	consumed atomic.Uint32
	_        [64]byte
}

// push adds an entry, for which there must be room, and does not publish it.
func (r *fromTo[E]) push(e E) {
	r.entries[r.put&uint32(len(r.entries)-1)] = e
	r.put++
}

// publish gives what was pushed to the consumer and says whether there was something.
func (r *fromTo[E]) publish() bool {
	if r.produced.Load() == r.put {
		return false
	}
	r.produced.Store(r.put)
	return true
}

// ready is how many entries the consumer has.
func (r *fromTo[E]) ready() int {
	own := r.consumed.Load()
	if r.seenPut == own {
		r.seenPut = r.produced.Load()
	}
	return int(r.seenPut - own)
}

// at is the i-th entry that is ready, from 0.
func (r *fromTo[E]) at(i int) *E {
	return &r.entries[(r.consumed.Load()+uint32(i))&uint32(len(r.entries)-1)]
}

// drop gives the places of n entries back to the producer.
func (r *fromTo[E]) drop(n int) { r.consumed.Store(r.consumed.Load() + uint32(n)) }

// handed is a descriptor that a worker hands to another, with the ports it came from and goes to.
type handed struct {
	desc     xsk.Desc
	from, to uint16
}

// linkSize is how many chunks of one worker another can have at a time: more than a TX ring, with
// what it has not looked at yet.
const linkSize = 2 * xsk.DefaultRing

// link is the way from one worker to another: frames there, and their chunks back. Both rings have
// room for all chunks that are lent.
type link struct {
	frames fromTo[handed]
	chunks fromTo[uint64]
	// lent is how many chunks are on the way, at the other worker or on the way back. It is the
	// lender's.
	lent int
}

func newLink() *link {
	l := &link{}
	l.frames.entries, l.chunks.entries = make([]handed, linkSize), make([]uint64, linkSize)
	return l
}

// exchange is what the workers of one UMEM know of each other.
type exchange struct {
	workers int
	worker  []uint16               // that has each port
	home    []uint16               // the worker that each chunk of the UMEM belongs to
	links   []atomic.Pointer[link] // from × workers + to; nil until there is something to hand over
	bells   []bell
}

// link is the one between two workers, nil when nothing was ever handed over.
func (x *exchange) link(from, to int) *link { return x.links[from*x.workers+to].Load() }

// linkTo is link, and makes it. Only the worker it begins at may call it.
func (x *exchange) linkTo(from, to int) *link {
	l := x.link(from, to)
	if l == nil {
		l = newLink()
		x.links[from*x.workers+to].Store(l)
	}
	return l
}

// waiting says whether frames wait for a worker.
func (x *exchange) waiting(self int) bool {
	for from := range x.workers {
		if l := x.link(from, self); l != nil && l.frames.produced.Load() != l.frames.consumed.Load() {
			return true
		}
	}
	return false
}

// lent says whether others have chunks of a worker. Only that worker may call it.
func (x *exchange) lent(self int) bool {
	for to := range x.workers {
		if l := x.link(self, to); l != nil && l.lent > 0 {
			return true
		}
	}
	return false
}

// bell wakes a worker that waits in poll(2). Its eventfd is closed with the workers.
type bell struct {
	fd      int
	waiting atomic.Bool
	polled  bool // by the worker, which holds its mu to write that
}

func newBell() (fd int, err error) {
	if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return -1, fmt.Errorf("make eventfd: %w", err)
	}
	return fd, nil
}

// ring wakes the worker if it waits.
func (b *bell) ring() {
	if !b.waiting.Load() || !b.waiting.CompareAndSwap(true, false) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(b.fd, one[:]) // it fails only when it was rung 2^64 times
}

// close closes the eventfd, once.
func (b *bell) close() error {
	if b.fd < 0 {
		return nil
	}
	fd := b.fd
	b.fd = -1
	return unix.Close(fd)
}

// hush takes what was rung away.
func (b *bell) hush() {
	var n [8]byte
	unix.Read(b.fd, n[:]) // EAGAIN when it was not
}

// handOver gives the frames of a queue to the worker that has their port. What the link has no room for is
// dropped.
func (d *Datapath) handOver(to int, q *queue) {
	worker := int(d.others.worker[to])
	l := d.others.linkTo(d.self, worker)
	n := min(q.n, linkSize-l.lent)
	for n > 0 && n < q.n && q.frames[n-1].Options&xsk.Continued != 0 {
		n-- // whole frames
	}
	at := 0
	for _, r := range q.runs {
		for ; at < min(n, r.end); at++ {
			d.owner[d.index(q.frames[at].Addr)] = lent
			l.frames.push(handed{q.frames[at], uint16(r.from), uint16(to)})
		}
	}
	l.lent += n
	if l.frames.publish() {
		d.others.bells[worker].ring()
	}
	d.discard(to, q, n, q.n, reasonNoRoom)
	q.n, q.runs = 0, q.runs[:0]
}

// takeOver puts what other workers handed over into the bulk queues of this worker's ports, a batch
// from each, and returns how many frames it was.
func (d *Datapath) takeOver() (frames int) {
	for from := range d.others.workers {
		l := d.others.link(from, d.self)
		if l == nil {
			continue
		}
		ready := l.frames.ready()
		n := 0
		for n < ready && n < d.config.Batch {
			n += d.takeFrame(l, n)
			frames++
		}
		if n > 0 {
			l.frames.drop(n)
		}
	}
	return frames
}

// takeFrame takes one frame, which begins at an entry of a link, and returns how many descriptors
// it has. They were published together.
func (d *Datapath) takeFrame(l *link, at int) (n int) {
	first := l.frames.at(at)
	to, from := int(first.to), int(first.from)
	d.slots[from].counters.TakenOver++
	for last := false; !last; n++ {
		desc := l.frames.at(at + n).desc
		d.descs[n] = desc
		d.owner[d.index(desc.Addr)] = held
		last = desc.Options&xsk.Continued == 0
	}
	d.foreign += n
	s := &d.slots[to]
	if s.kind == kindNone {
		d.slots[from].counters.DroppedNoPort++
		for _, desc := range d.descs[:n] {
			d.release(desc.Addr)
		}
		return n
	}
	q := &s.queue
	if q.n+n > len(q.frames) {
		d.transmit(to, q)
	}
	d.queued(from, to, copy(q.frames[q.n:], d.descs[:n]))
	d.slots[from].counters.Forwarded++
	return n
}

// takeBack takes this worker's chunks that others had back, onto the free stack.
func (d *Datapath) takeBack() {
	for to := range d.others.workers {
		l := d.others.link(d.self, to)
		if l == nil || l.lent == 0 {
			continue
		}
		n := l.chunks.ready()
		for i := range n {
			a := *l.chunks.at(i)
			d.owner[d.index(a)] = unused
			d.free = append(d.free, a)
		}
		l.chunks.drop(n)
		l.lent -= n
	}
}

// giveBack gives the chunk of another worker back to it, at the end of the poll.
func (d *Datapath) giveBack(addr uint64) {
	i := d.index(addr)
	d.owner[i] = notOurs
	d.foreign--
	d.others.link(int(d.others.home[i]), d.self).chunks.push(addr)
}

// giveBackSome gives chunks of other workers back and returns how many are left.
func (d *Datapath) giveBackSome(chunks []uint64) int {
	n := 0
	for _, a := range chunks {
		if d.isForeign(a) {
			d.giveBack(a)
			continue
		}
		chunks[n] = a
		n++
	}
	return n
}

// isForeign says whether a chunk belongs to another worker.
func (d *Datapath) isForeign(addr uint64) bool {
	return d.foreign > 0 && int(d.others.home[d.index(addr)]) != d.self
}

// publishBack publishes what giveBack gave.
func (d *Datapath) publishBack() {
	for from := range d.others.workers {
		if l := d.others.link(from, d.self); l != nil {
			l.chunks.publish()
		}
	}
}

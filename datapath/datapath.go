package datapath

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// Frame is a received frame, as a program sees it.
type Frame struct {
	// Data is the frame, or its first part. It lies in the UMEM: what is written
	// to it is transmitted. It must not be kept after the program returns.
	Data []byte
	// Len is the whole frame's length in bytes; more than len(Data) when it has
	// several parts.
	Len uint32
	// Port is the number of the port it came from.
	Port uint16

	parts uint16
}

// Parts is how many chunks the frame lies in.
func (f *Frame) Parts() int { return int(f.parts) }

// Verdict is what happens to a frame.
type Verdict int32

// Drop is the verdict of a frame the program says nothing about.
const Drop Verdict = 0

// Redirect is the verdict that sends a frame out by a port.
func Redirect(port int) Verdict { return Verdict(port) + 1 }

// Program decides on a batch. verdicts has an entry for each frame, all [Drop].
// It is called by one goroutine, with the frames of one port at a time.
type Program func(frames []Frame, verdicts []Verdict)

// Limits and defaults of a [Config].
const (
	DefaultBatch = 64
	MaxBatch     = 4096
	MaxPorts     = 1 << 14
)

// Config is what a datapath is made of.
type Config struct {
	// UMEM is the memory of all frames. The datapath takes Chunks of its free
	// chunks, or all with 0.
	UMEM   *xsk.UMEM
	Chunks int
	// Ports by number; nil is one that is not there yet. The datapath closes
	// them.
	Ports []Port
	// Program is called for every batch.
	Program Program
	// Batch is how many descriptors are taken from a port at once, and the
	// length of a bulk queue; 0 is [DefaultBatch].
	Batch int
	// Lost is called by the worker when a port is lost, from Poll. The port is
	// closed then, and frames to it are dropped until [Datapath.SetPort], which
	// must not be called from Lost. With nil, Run ends with the error.
	Lost func(port int, err error)
}

func (c Config) validate() error {
	switch {
	case c.UMEM == nil:
		return errors.New("datapath without a UMEM")
	case c.Program == nil:
		return errors.New("datapath without a program")
	case len(c.Ports) == 0 || len(c.Ports) > MaxPorts:
		return fmt.Errorf("datapath with %d ports: must be 1 to %d", len(c.Ports), MaxPorts)
	case c.Batch < 1 || c.Batch > MaxBatch:
		return fmt.Errorf("batch of %d: must be 1 to %d", c.Batch, MaxBatch)
	case c.Chunks < 0:
		return fmt.Errorf("datapath with %d chunks", c.Chunks)
	}
	return nil
}

// Datapath is one worker: its ports, its chunks, its program. One goroutine may
// poll it, while others read its counters.
type Datapath struct {
	DevMap

	config Config
	umem   *xsk.UMEM
	mem    []byte
	size   uint64
	// reciprocal is 2^64 over the frame size, rounded up.
	reciprocal uint64

	// mu is held for a poll: counters are those of the end of one.
	mu     sync.Mutex
	closed bool

	free   []uint64 // a stack; its capacity is all chunks
	owner  []owner  // of each chunk of the UMEM
	chunks int      // how many are this datapath's

	descs    []xsk.Desc
	frames   []Frame
	verdicts []Verdict
	pollfds  []unix.PollFd
	polls    uint64
	busy     atomic.Int64
	lost     []error // by port, of this poll
}

// owner says where a chunk is.
type owner uint16

const (
	notOurs owner = iota // another's, or in the UMEM
	unused               // on the free stack
	held                 // being worked on
	firstPort
)

// Three states for each port: chunks to receive into, the last or only part of a
// frame to transmit, and another part.
func filling(port int) owner     { return firstPort + owner(3*port) }
func sending(port int) owner     { return firstPort + owner(3*port) + 1 }
func sendingPart(port int) owner { return firstPort + owner(3*port) + 2 }

// New makes a datapath and fills its ports up. It owns the ports also when it
// returns an error.
func New(c Config) (*Datapath, error) {
	if c.Batch == 0 {
		c.Batch = DefaultBatch
	}
	if err := c.validate(); err != nil {
		return nil, errors.Join(err, closePorts(c.Ports))
	}
	size := c.UMEM.Config().FrameSize
	want := c.Chunks
	if want == 0 {
		want = c.UMEM.Available()
	}
	d := &Datapath{
		DevMap: newDevMap(len(c.Ports), max(c.Batch, MaxParts)),
		config: c, umem: c.UMEM, mem: c.UMEM.Bytes(), size: uint64(size),
		free:     make([]uint64, want),
		owner:    make([]owner, c.UMEM.Config().Frames),
		descs:    make([]xsk.Desc, c.Batch+MaxParts),
		frames:   make([]Frame, c.Batch+MaxParts),
		verdicts: make([]Verdict, c.Batch+MaxParts),
		lost:     make([]error, len(c.Ports)),
	}
	d.reciprocal = ^uint64(0)/uint64(size) + 1
	d.free = d.free[:c.UMEM.Alloc(d.free)]
	d.chunks = len(d.free)
	for _, a := range d.free {
		d.owner[d.index(a)] = unused
	}
	for i, p := range c.Ports {
		d.slots[i].carry = make([]xsk.Desc, 0, MaxParts)
		if p != nil {
			d.slots[i].set(p)
		}
	}
	for i := range d.slots {
		d.refill(i)
	}
	return d, nil
}

func closePorts(ports []Port) error {
	var errs []error
	for _, p := range ports {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

func (d *Datapath) index(addr uint64) uint64 { return index(addr, d.reciprocal) }

// index is the number of the chunk at an address: a division that is exact below
// 2^52 for chunks of up to 4096 bytes.
func index(addr, reciprocal uint64) uint64 {
	n, _ := bits.Mul64(addr, reciprocal)
	return n
}

// release puts a chunk on the free stack.
func (d *Datapath) release(addr uint64) {
	d.owner[d.index(addr)] = unused
	d.free = append(d.free, addr)
}

// Poll takes a batch from each port, has it decided on, and hands it over. It
// returns how many frames were received. Ports that were lost are closed and
// reported, to Config.Lost or as an error.
func (d *Datapath) Poll() (frames int, err error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return 0, fmt.Errorf("poll datapath: %w", xsk.ErrClosed)
	}
	for i := range d.slots {
		if d.slots[i].kind != kindNone {
			frames += d.receive(i)
		}
	}
	d.finish()
	// Whether the devices are still there is asked seldom while there is work.
	d.polls++
	if frames == 0 && d.polls&63 == 0 || d.polls&1023 == 0 {
		d.check()
	}
	d.mu.Unlock()
	return frames, d.report()
}

// finish ends a poll: hands queues over, takes transmitted frames back, fills
// ports up.
func (d *Datapath) finish() {
	for i := range d.slots {
		if d.slots[i].queue.n > 0 {
			d.transmit(i)
		}
	}
	for i := range d.slots {
		s := &d.slots[i]
		// Also without new frames: those a kick left behind need another one,
		// and a full ring would stay full.
		if s.kind != kindNone && s.counters.InFlight > 0 {
			d.push(i)
			if s.kind != kindNone {
				d.reclaim(i)
			}
		}
	}
	for i := range d.slots {
		if s := &d.slots[i]; s.kind != kindNone && s.filled < s.target {
			d.refill(i)
		}
	}
}

// receive takes a batch from a port to the queues and returns how many frames it
// was.
func (d *Datapath) receive(port int) (frames int) {
	s := &d.slots[port]
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
		descs = descs[:carried+d.sort(port, descs[carried:], 0)]
	}
	s.carry = s.carry[:0]
	if !whole {
		return d.receiveParts(port, descs)
	}
	verdicts := d.verdicts[:len(descs)]
	clear(verdicts)
	s.counters.Received += uint64(len(descs))
	d.config.Program(d.frames[:len(descs)], verdicts)
	d.redirect(port, descs, verdicts)
	return len(descs)
}

// claim takes chunks over from a port, drops descriptors in chunks that it did
// not have, and makes frames of the others. It says whether each is a whole
// frame; if not the frames are not made.
func (d *Datapath) claim(port int, descs []xsk.Desc) (n int, whole bool) {
	s := &d.slots[port]
	mine, owners, reciprocal, mem := filling(port), d.owner, d.reciprocal, d.mem
	frames := d.frames[:len(descs)]
	var bytes uint64
	var options uint32
	for i := range descs {
		a, l := descs[i].Addr, uint64(descs[i].Len)
		o := &owners[index(a, reciprocal)]
		if *o != mine {
			s.filled -= i
			return d.sort(port, descs, i), false
		}
		*o = held
		options |= descs[i].Options
		bytes += l
		f := &frames[i]
		f.Data, f.Len, f.Port, f.parts = mem[a:a+l:a+l], uint32(l), uint16(port), 1
	}
	s.filled -= len(descs)
	if options&xsk.Continued != 0 {
		return len(descs), false
	}
	s.counters.ReceivedBytes += bytes
	return len(descs), true
}

// sort drops the descriptors that are in chunks a port did not have, from one on,
// and takes the chunks of the others over. It returns how many descriptors are
// left.
func (d *Datapath) sort(port int, descs []xsk.Desc, from int) int {
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
		kept += copy(descs[kept:], chain)
		frames++
	}
	s.carry = append(s.carry, descs[start:]...)
	s.counters.Received += uint64(frames)
	if frames == 0 {
		return 0
	}
	verdicts := d.verdicts[:frames]
	clear(verdicts)
	d.config.Program(d.frames[:frames], verdicts)
	d.redirectParts(port, d.frames[:frames], descs[:kept], verdicts)
	return frames
}

// push makes a port go on with what it has to transmit.
func (d *Datapath) push(port int) {
	s := &d.slots[port]
	unsent, err := s.flush()
	if unsent > 0 {
		n := min(uint64(unsent), s.counters.InFlight)
		s.counters.Unsent += n
		s.counters.InFlight -= n
	}
	if err != nil {
		d.lose(port, err)
	}
}

// reclaim takes back the chunks of transmitted frames, onto the free stack.
func (d *Datapath) reclaim(port int) {
	s := &d.slots[port]
	last, part := sending(port), sendingPart(port)
	for {
		n := len(d.free)
		got := d.free[n:cap(d.free)]
		got = got[:s.complete(got)]
		kept, frames := 0, 0
		for _, a := range got {
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
		d.free = d.free[:n+kept]
		s.settle(uint64(frames))
		if len(got) < reclaimAgain {
			return
		}
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

// refill gives a port chunks to receive into.
func (d *Datapath) refill(port int) {
	s := &d.slots[port]
	n := min(s.target-s.filled, len(d.free))
	if n <= 0 {
		return
	}
	chunks := d.free[len(d.free)-n:]
	n = s.fill(chunks)
	mine := filling(port)
	for _, a := range chunks[:n] {
		d.owner[d.index(a)] = mine
	}
	// What it did not take stays, under what it took.
	copy(chunks, chunks[n:])
	d.free = d.free[:len(d.free)-n]
	s.filled += n
}

// check finds ports that were lost while they had nothing to do.
func (d *Datapath) check() {
	for i := range d.slots {
		s := &d.slots[i]
		if s.kind == kindNone {
			continue
		}
		if err := s.port.Check(); err != nil {
			d.lose(i, err)
		}
	}
}

// lose closes a port and takes all its chunks back. Frames it was to transmit
// and has not are lost, but for those that a completion says were.
func (d *Datapath) lose(port int, err error) {
	s := &d.slots[port]
	d.reclaim(port)
	d.lost[port] = errors.Join(err, s.port.Close())
	d.seize(port)
}

// seize takes all chunks of a closed port back.
func (d *Datapath) seize(port int) {
	s := &d.slots[port]
	for _, part := range s.carry {
		d.release(part.Addr)
	}
	s.carry, s.skipping = s.carry[:0], false
	fill, last, part := filling(port), sending(port), sendingPart(port)
	for i, o := range d.owner {
		if o == fill || o == last || o == part {
			d.release(uint64(i) * d.size)
		}
	}
	s.counters.Lost += s.counters.InFlight
	s.counters.InFlight = 0
	s.settled = s.counters.Unsent
	s.set(nil)
}

// report tells of the ports that were lost.
func (d *Datapath) report() error {
	var errs []error
	for i, err := range d.lost {
		if err == nil {
			continue
		}
		d.lost[i] = nil
		if d.config.Lost != nil {
			d.config.Lost(i, err)
		} else {
			errs = append(errs, fmt.Errorf("port %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// SetPort puts a port in the place of one that is lost or was never there. The
// datapath owns it then.
func (d *Datapath) SetPort(i int, p Port) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return errors.Join(fmt.Errorf("set port %d: %w", i, xsk.ErrClosed), p.Close())
	case i < 0 || i >= len(d.slots):
		return errors.Join(fmt.Errorf("set port %d: there are %d", i, len(d.slots)), p.Close())
	case d.slots[i].kind != kindNone:
		return errors.Join(fmt.Errorf("set port %d: it is there", i), p.Close())
	}
	d.slots[i].set(p)
	d.refill(i)
	return nil
}

// How long Run polls on with nothing to do before it waits, and how long it
// waits at most.
const (
	idlePolls = 256
	idleWait  = 10 * time.Millisecond
)

// Run polls until ctx is done, and waits for the ports while there is nothing to
// do. It returns nil when ctx is done, and an error when a port is lost and
// Config.Lost is nil.
func (d *Datapath) Run(ctx context.Context) error {
	var done atomic.Bool
	defer context.AfterFunc(ctx, func() { done.Store(true) })()
	idle := 0
	for !done.Load() {
		begin := time.Now()
		n, err := d.Poll()
		if err != nil {
			return err
		}
		if n > 0 {
			idle = 0
			d.busy.Add(int64(time.Since(begin)))
			continue
		}
		if idle++; idle >= idlePolls {
			d.wait()
		}
	}
	return nil
}

// wait waits until a port has frames. Frames in flight are looked after each ms.
func (d *Datapath) wait() {
	d.mu.Lock()
	timeout := idleWait
	d.pollfds = d.pollfds[:0]
	for i := range d.slots {
		s := &d.slots[i]
		if s.kind == kindNone {
			continue
		}
		if s.counters.InFlight > 0 {
			timeout = time.Millisecond
		}
		if fd := s.port.FD(); fd >= 0 {
			d.pollfds = append(d.pollfds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	d.check()
	d.mu.Unlock()
	// Any error means that Poll will see it.
	unix.Poll(d.pollfds, int(timeout.Milliseconds()))
}

// Counters copies the counters of all ports, as they were at the end of a poll,
// into dst and returns it. dst is made when it is too short.
func (d *Datapath) Counters(dst []Counters) []Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	dst = dst[:0]
	for i := range d.slots {
		dst = append(dst, d.slots[i].counters)
	}
	return dst
}

// Busy is how long Run spent in polls that received frames.
func (d *Datapath) Busy() time.Duration { return time.Duration(d.busy.Load()) }

// Present says whether a port is there, and not lost.
func (d *Datapath) Present(i int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return i >= 0 && i < len(d.slots) && d.slots[i].kind != kindNone
}

// Chunks says how many chunks the datapath has, and how many of them wait for
// use. The others are with ports.
func (d *Datapath) Chunks() (all, free int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chunks, len(d.free)
}

// Drain transmits what is in flight, without receiving, for a time at most. It
// returns how many frames still are.
func (d *Datapath) Drain(timeout time.Duration) (inFlight uint64) {
	deadline := time.Now().Add(timeout)
	for {
		d.mu.Lock()
		inFlight = 0
		if !d.closed {
			d.finish()
			for i := range d.slots {
				inFlight += d.slots[i].counters.InFlight
			}
		}
		d.mu.Unlock()
		if inFlight == 0 || time.Now().After(deadline) {
			return inFlight
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// Close closes the ports and gives all chunks back to the UMEM. Counters can
// still be read. It may be called twice.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	for i := range d.slots {
		s := &d.slots[i]
		if s.kind == kindNone {
			continue
		}
		d.reclaim(i)
		errs = append(errs, s.port.Close())
		d.seize(i)
	}
	if len(d.free) != d.chunks {
		errs = append(errs, fmt.Errorf("of %d chunks %d came back", d.chunks, len(d.free)))
	}
	errs = append(errs, d.umem.Free(d.free))
	d.free = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close datapath: %w", err)
	}
	return nil
}

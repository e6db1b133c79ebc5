package datapath

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// Action is what happens to a frame: [Drop], or what [Redirect] returns.
type Action int32

// Drop frees a frame's chunks. It is the action of a frame for which the program
// sets none.
const Drop Action = 0

// Redirect returns the action that transmits a frame on a port, by its number in
// [Config].Ports. A frame for a port that is not there is dropped and counted
// (DroppedNoPort).
func Redirect(port int) Action {
	if port < 0 || port >= MaxPorts {
		return noPort
	}
	return Action(port) + 1
}

// noPort is the action for a port that can never be there.
const noPort Action = -1

// port is the number of the port that an action names; -1 for Drop.
func (a Action) port() int { return int(a) - 1 }

// Program sets the actions of a batch: actions[i] is that of frames[i], and [Drop]
// at first. It is called by one goroutine, with the frames of one port at a time. The
// elements of frames stay where they are: they know their descriptors by that.
type Program func(frames []Frame, actions []Action)

// Limits and defaults of a [Config].
const (
	DefaultBatch = 64
	MaxBatch     = 4096
	MaxPorts     = 1 << portBits
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
	// Devices has for each port which device it is a queue of, by a number below that of ports: a bulk counts once for
	// all ports of a device (Onward.Bulks). nil: each port is a device of its own.
	Devices []int
	// Program is called for every batch.
	Program Program
	// Route, in place of a Program, says where all frames of a port go that nobody is to look at. It is called once for a
	// batch. Between AF_XDP ports descriptors then go from ring to ring in one pass.
	Route func(port int) Action
	// Batch is how many descriptors are taken from a port at once, and the
	// length of a bulk queue; 0 is [DefaultBatch].
	Batch int
	// Lost is called by the worker when a port is lost, from Poll. The port is
	// closed then, and frames to it are dropped until [Datapath.SetPort], which
	// must not be called from Lost. With nil, Run ends with the error.
	Lost func(port int, err error)
	// BusyPoll has Run poll on and never wait: for sockets that are opened with
	// xsk.Options.BusyPoll, whose devices are polled by that in place of interrupts,
	// and for the least latency. It takes all of a core.
	BusyPoll bool
}

func (c Config) validate() error {
	switch {
	case c.UMEM == nil:
		return errors.New("datapath without a UMEM")
	case c.Program == nil && c.Route == nil:
		return errors.New("datapath without a program")
	case c.Program != nil && c.Route != nil:
		return errors.New("datapath with a program and a route")
	case len(c.Ports) == 0 || len(c.Ports) > MaxPorts:
		return fmt.Errorf("datapath with %d ports: must be 1 to %d", len(c.Ports), MaxPorts)
	case c.Devices != nil && len(c.Devices) != len(c.Ports):
		return fmt.Errorf("datapath with the devices of %d ports: there are %d", len(c.Devices), len(c.Ports))
	case slices.ContainsFunc(c.Devices, func(device int) bool { return device < 0 || device >= len(c.Ports) }):
		return fmt.Errorf("datapath with ports of devices %v: must be 0 to %d", c.Devices, len(c.Ports)-1)
	case c.Batch < 1 || c.Batch > MaxBatch:
		return fmt.Errorf("batch of %d: must be 1 to %d", c.Batch, MaxBatch)
	case c.Chunks < 0:
		return fmt.Errorf("datapath with %d chunks", c.Chunks)
	}
	return nil
}

// Datapath is one worker: its ports, its chunks, its program. One goroutine may
// poll it, while others read its counters. [Workers] are several.
type Datapath struct {
	slots   []slot // the ports by number
	mine    []int  // those of this worker that are there
	pending []int  // those with frames in their queues, some perhaps twice
	bulks   uint64 // that outputs were handed out of queues

	config Config
	umem   *xsk.UMEM
	mem    []byte
	size   uint64
	// reciprocal is 2^64 over the frame size, rounded up.
	reciprocal uint64

	// mu is held for a poll: counters are those of the end of one.
	mu     sync.Mutex
	closed bool
	wanted atomic.Int32 // how many wait for mu, the worker aside

	// One of several workers: which, the others, and how many chunks of theirs it has.
	self    int
	others  *exchange
	foreign int

	free   []uint64 // a stack; its capacity is all chunks of the UMEM
	owner  []owner  // of each chunk of the UMEM
	chunks int      // how many are this datapath's

	descs   []xsk.Desc
	frames  []Frame
	actions []Action
	pollfds []unix.PollFd
	polls   atomic.Uint64
	busy    atomic.Int64
	passage passage
	lost    []lostPort // that are still to be reported
}

// New makes a datapath and fills its ports up. It owns the ports also when it
// returns an error.
func New(c Config) (*Datapath, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, errors.Join(err, closePorts(c.Ports))
	}
	return newWorker(c, 0, nil), nil
}

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = DefaultBatch
	}
	return c
}

// program is the program for frames that do not go from ring to ring.
func (c Config) program() Program {
	if c.Program != nil {
		return c.Program
	}
	route := c.Route
	return func(frames []Frame, actions []Action) {
		to := route(int(frames[0].Port))
		for i := range actions {
			actions[i] = to
		}
	}
}

// newWorker makes a datapath of its own, or one of several workers, which leaves the ports of
// the others out and fills its own later.
func newWorker(c Config, self int, others *exchange) *Datapath {
	size := c.UMEM.Config().FrameSize
	all := c.UMEM.Config().Frames
	want := c.Chunks
	if want == 0 {
		want = c.UMEM.Available()
	}
	d := &Datapath{
		slots:  newSlots(len(c.Ports), max(c.Batch, MaxParts), c.Devices),
		config: c, umem: c.UMEM, mem: c.UMEM.Bytes(), size: uint64(size),
		self: self, others: others,
		free:    make([]uint64, min(want, all), all),
		owner:   make([]owner, all),
		descs:   make([]xsk.Desc, c.Batch+MaxParts),
		actions: make([]Action, c.Batch+MaxParts),
	}
	d.config.Program = c.program()
	d.frames = d.newFrames(c.Batch + MaxParts)
	d.reciprocal = ^uint64(0)/uint64(size) + 1
	d.free = d.free[:c.UMEM.Alloc(d.free)]
	d.chunks = len(d.free)
	for _, a := range d.free {
		d.owner[d.index(a)] = unused
	}
	var own []int // with those that are not there yet
	for i, p := range c.Ports {
		d.slots[i].carry = make([]xsk.Desc, 0, MaxParts)
		switch {
		case others != nil && int(others.worker[i]) != self:
			d.slots[i].kind = kindRemote
			continue
		case p != nil:
			d.slots[i].set(p)
			d.mine = append(d.mine, i)
		}
		own = append(own, i)
	}
	for k, i := range own {
		// Where chunks are few each port gets its share: none waits for the first to be full.
		d.refill(i, len(d.free)/(len(own)-k))
	}
	return d
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

// SetPort puts a port in the place of one that is lost or was never there. The
// datapath owns it then.
func (d *Datapath) SetPort(i int, p Port) error {
	d.lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return errors.Join(fmt.Errorf("set port %d: %w", i, xsk.ErrClosed), p.Close())
	case i < 0 || i >= len(d.slots):
		return errors.Join(fmt.Errorf("set port %d: there are %d", i, len(d.slots)), p.Close())
	case d.slots[i].kind == kindRemote:
		return errors.Join(fmt.Errorf("set port %d: another worker has it", i), p.Close())
	case d.slots[i].kind != kindNone:
		return errors.Join(fmt.Errorf("set port %d: it is there", i), p.Close())
	}
	d.slots[i].set(p)
	d.mine = slices.Sorted(slices.Values(append(d.mine, i)))
	d.refill(i, len(d.free))
	return nil
}

// lock is for who is not the worker, which lets it pass.
func (d *Datapath) lock() {
	d.wanted.Add(1)
	d.mu.Lock()
	d.wanted.Add(-1)
}

// lockUntil is lock, and gives up at a deadline.
func (d *Datapath) lockUntil(deadline time.Time) bool {
	d.wanted.Add(1)
	defer d.wanted.Add(-1)
	for !d.mu.TryLock() {
		if time.Now().After(deadline) {
			return false
		}
		runtime.Gosched()
	}
	return true
}

// Counters copies the counters of all ports, as they were at the end of a poll,
// into dst and returns it. dst is made when it is too short.
func (d *Datapath) Counters(dst []Counters) []Counters {
	d.lock()
	defer d.mu.Unlock()
	dst = dst[:0]
	for i := range d.slots {
		dst = append(dst, d.slots[i].counters)
	}
	return dst
}

// Busy is how long Run spent in polls that received frames.
func (d *Datapath) Busy() time.Duration { return time.Duration(d.busy.Load()) }

// Polls is how often the worker polled. It stands while it is in one, and does not wait for its end.
func (d *Datapath) Polls() uint64 { return d.polls.Load() }

// Present says whether a port is there, and not lost.
func (d *Datapath) Present(i int) bool {
	d.lock()
	defer d.mu.Unlock()
	return i >= 0 && i < len(d.slots) && d.slots[i].here()
}

// Chunks says how many chunks the datapath has, and how many of them wait for
// use. The others are with ports.
func (d *Datapath) Chunks() (all, free int) {
	d.lock()
	defer d.mu.Unlock()
	return d.chunks, len(d.free)
}

// Drain transmits what is in flight, without receiving, for a time at most. It
// returns how many frames still are.
func (d *Datapath) Drain(timeout time.Duration) (inFlight uint64) {
	return drain(timeout, d.drain)
}

// drain calls try until it has nothing left in flight, or the time is over.
func drain(timeout time.Duration, try func() (inFlight uint64)) (inFlight uint64) {
	deadline := time.Now().Add(timeout)
	for {
		inFlight = try()
		if inFlight == 0 || time.Now().After(deadline) {
			return inFlight
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// drain is a poll without receiving. It returns how many frames are in flight.
func (d *Datapath) drain() (inFlight uint64) {
	d.lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0
	}
	if d.others != nil {
		d.takeBack()
		d.takeOver()
	}
	d.finish()
	for i := range d.slots {
		inFlight += d.slots[i].counters.InFlight
	}
	return inFlight
}

// Close closes the ports and gives all chunks back to the UMEM. Counters can
// still be read. It may be called twice. One of several workers refuses: others have
// chunks of it, see [Workers.Close].
func (d *Datapath) Close() error {
	if d.others != nil {
		return errors.New("close datapath: it is one of several workers, which are closed together")
	}
	d.lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	if err := errors.Join(d.closeOwnPorts(), d.freeChunks()); err != nil {
		return fmt.Errorf("close datapath: %w", err)
	}
	return nil
}

// closeOwnPorts closes the ports that are there, and takes their chunks.
func (d *Datapath) closeOwnPorts() error {
	d.closed = true
	var errs []error
	for i := range d.slots {
		s := &d.slots[i]
		if !s.here() {
			continue
		}
		d.reclaim(i)
		errs = append(errs, s.port.Close())
		d.seize(i)
	}
	return errors.Join(errs...)
}

// freeChunks gives the chunks back to the UMEM.
func (d *Datapath) freeChunks() (err error) {
	if len(d.free) != d.chunks {
		err = fmt.Errorf("of %d chunks %d came back", d.chunks, len(d.free))
	}
	err = errors.Join(err, d.umem.Free(d.free))
	d.free = nil
	return err
}

package datapath

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Worker says what one of several workers has.
type Worker struct {
	// Ports are the numbers of its ports, those that are not there yet too.
	Ports []int
	// CPUs are those that its thread may run on; none is any.
	CPUs []int
	// Program is called for the batches of its ports, and by it alone; nil is that, or the Route, of
	// [WorkersConfig].
	Program Program
}

// WorkersConfig is what workers are made of. In Config are the ports of all, a program for those
// that have none, and the chunks: half of them are shared by the ports that are there, half by all.
// Config.Lost may be called by several workers at once.
type WorkersConfig struct {
	Config
	// Workers have each port once, all together.
	Workers []Worker
}

// MaxWorkers is how many there may be.
const MaxWorkers = 256

func (c WorkersConfig) validate() error {
	if len(c.Workers) == 0 || len(c.Workers) > MaxWorkers {
		return fmt.Errorf("%d workers: must be 1 to %d", len(c.Workers), MaxWorkers)
	}
	had := make([]bool, len(c.Ports))
	for i, w := range c.Workers {
		if len(w.Ports) == 0 {
			return fmt.Errorf("worker %d has no port", i)
		}
		for _, port := range w.Ports {
			switch {
			case port < 0 || port >= len(c.Ports):
				return fmt.Errorf("port %d of worker %d: there are %d", port, i, len(c.Ports))
			case had[port]:
				return fmt.Errorf("port %d of worker %d: another worker has it", port, i)
			}
			had[port] = true
		}
		for _, cpu := range w.CPUs {
			if cpu < 0 || cpu >= maxCPUs {
				return fmt.Errorf("worker %d on CPU %d", i, cpu)
			}
		}
		own := c.Config
		own.Program, own.Route = w.program(c)
		if err := own.validate(); err != nil {
			return err
		}
	}
	if port := slices.Index(had, false); port >= 0 {
		return fmt.Errorf("port %d: no worker has it", port)
	}
	return nil
}

// maxCPUs is what a unix.CPUSet has room for.
const maxCPUs = 1024

// program is the worker's own, or the program or route of all.
func (w Worker) program(c WorkersConfig) (Program, func(port int) Action) {
	if w.Program != nil {
		return w.Program, nil
	}
	return c.Program, c.Route
}

// Workers are datapaths over one UMEM, each with ports, chunks and counters of its own, on a thread
// of its own. A port is one worker's; a program may name any port. Frames for a port of another
// worker are handed over in bulk, through a ring that only these two use, and their chunks come
// back the same way: no worker takes a lock or waits for another.
type Workers struct {
	config    WorkersConfig
	datapaths []*Datapath
	others    *exchange
}

// NewWorkers makes workers and fills their ports up. It owns the ports also when it returns an
// error.
func NewWorkers(c WorkersConfig) (*Workers, error) {
	c.Config = c.Config.withDefaults()
	if err := c.validate(); err != nil {
		return nil, errors.Join(err, closePorts(c.Ports))
	}
	n := len(c.Workers)
	x := &exchange{
		workers: n, worker: make([]uint16, len(c.Ports)), home: make([]uint16, c.UMEM.Config().Frames),
		links: make([]atomic.Pointer[link], n*n), bells: make([]bell, n),
	}
	w := &Workers{config: c, others: x}
	for i := range x.bells {
		x.bells[i].fd = -1
	}
	for i := range x.bells {
		var err error
		if x.bells[i].fd, err = newBell(); err != nil {
			return nil, errors.Join(err, w.closeBells(), closePorts(c.Ports))
		}
	}
	for i, worker := range c.Workers {
		for _, port := range worker.Ports {
			x.worker[port] = uint16(i)
		}
	}
	chunks, ports := c.UMEM.Available(), len(c.Ports)
	if c.Chunks > 0 {
		chunks = min(chunks, c.Chunks)
	}
	if chunks < ports {
		err := fmt.Errorf("%d chunks for %d ports", chunks, ports)
		return nil, errors.Join(err, w.closeBells(), closePorts(c.Ports))
	}
	shares := c.shares(chunks)
	for i, worker := range c.Workers {
		own := c.Config
		own.Program, own.Route = worker.program(c)
		own.Chunks = shares[i]
		d := newWorker(own, i, x)
		for chunk, o := range d.owner {
			if o != notOurs {
				x.home[chunk] = uint16(i)
			}
		}
		w.datapaths = append(w.datapaths, d)
	}
	return w, nil
}

// shares are how many of the chunks each worker gets: one for each port, and of the others by its
// part of all ports, and of those that are there.
func (c WorkersConfig) shares(chunks int) []int {
	all, there := len(c.Ports), 0
	present := make([]int, len(c.Workers))
	for i, w := range c.Workers {
		for _, port := range w.Ports {
			if c.Ports[port] != nil {
				present[i]++
				there++
			}
		}
	}
	// A part of all is 1/all, one of those there 1/there.
	weight := func(i int) int { return len(c.Workers[i].Ports)*max(there, 1) + present[i]*all }
	whole := 0
	for i := range c.Workers {
		whole += weight(i)
	}
	shares := make([]int, len(c.Workers))
	sum, given := 0, 0 // so that rounding loses none
	for i, w := range c.Workers {
		sum += weight(i)
		others := (chunks-all)*sum/whole - given
		given += others
		shares[i] = len(w.Ports) + others
	}
	return shares
}

// Len is how many workers there are.
func (w *Workers) Len() int { return len(w.datapaths) }

// Worker is one of the workers, for its counters; [Workers.Run] polls it. It is closed with the
// others, and by itself refuses to be.
func (w *Workers) Worker(i int) *Datapath { return w.datapaths[i] }

// Run polls each worker's ports on a thread of its own, until ctx is done or a worker fails.
func (w *Workers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, d := range w.datapaths {
		g.Go(func() error {
			// Never unlocked: a thread that may run on few CPUs ends with its goroutine.
			runtime.LockOSThread()
			if err := runOn(w.config.Workers[i].CPUs); err != nil {
				return fmt.Errorf("worker %d: %w", i, err)
			}
			if err := d.Run(ctx); err != nil {
				return fmt.Errorf("worker %d: %w", i, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// runOn keeps the calling thread on CPUs.
func runOn(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPUs %v: %w", cpus, err)
	}
	return nil
}

// Poll polls each worker once, in turn, and returns how many frames they received or took over. It
// is for the end, before Drain: when Run has returned and no more frames come in, call it until it
// returns 0, and all that ports hold is in a counter.
func (w *Workers) Poll() (frames int, err error) {
	var errs []error
	for i, d := range w.datapaths {
		n, err := d.Poll()
		frames += n
		if err != nil {
			errs = append(errs, fmt.Errorf("worker %d: %w", i, err))
		}
	}
	return frames, errors.Join(errs...)
}

// How long lock has the other workers wait for one, at first and at most.
const (
	leastPatience = time.Millisecond
	mostPatience  = 64 * time.Millisecond
)

// lock stops all workers between two polls. While one is in a poll for long, as when its program
// blocks, lock waits for that one alone and the others go on.
func (w *Workers) lock() {
	slow := 0
	for patience := leastPatience; slow >= 0; patience = min(2*patience, mostPatience) {
		slow = w.tryLock(slow, patience)
	}
}

// tryLock locks one worker, and then the others. It returns -1, or with none locked the number of
// one that took longer than patience.
func (w *Workers) tryLock(first int, patience time.Duration) (slow int) {
	w.datapaths[first].lock()
	deadline := time.Now().Add(patience)
	for i, d := range w.datapaths {
		if i == first || d.lockUntil(deadline) {
			continue
		}
		w.datapaths[first].mu.Unlock()
		for k, locked := range w.datapaths[:i] {
			if k != first {
				locked.mu.Unlock()
			}
		}
		return i
	}
	return -1
}

func (w *Workers) unlock() {
	for _, d := range w.datapaths {
		d.mu.Unlock()
	}
}

// Counters copies the counters of all ports, summed over the workers at one moment between polls,
// into dst and returns it. dst is made when it is too short. It waits for a worker whose program
// blocks; the other workers do not.
func (w *Workers) Counters(dst []Counters) []Counters {
	w.lock()
	defer w.unlock()
	dst = append(dst[:0], make([]Counters, len(w.config.Ports))...)
	for _, d := range w.datapaths {
		for i := range d.slots {
			dst[i].Add(d.slots[i].counters)
		}
	}
	return dst
}

// Busy is how long Run spent in polls that received frames, of all workers together.
func (w *Workers) Busy() (sum time.Duration) {
	for _, d := range w.datapaths {
		sum += d.Busy()
	}
	return sum
}

// SetPort is [Datapath.SetPort] of the worker that has the port.
func (w *Workers) SetPort(i int, p Port) error {
	if i < 0 || i >= len(w.config.Ports) {
		return errors.Join(fmt.Errorf("set port %d: there are %d", i, len(w.config.Ports)), p.Close())
	}
	return w.datapaths[w.others.worker[i]].SetPort(i, p)
}

// Present says whether a port is there, and not lost.
func (w *Workers) Present(i int) bool {
	return i >= 0 && i < len(w.config.Ports) && w.datapaths[w.others.worker[i]].Present(i)
}

// Drain transmits what is in flight, also between workers, without receiving, for a time at most.
// It returns how many frames still are. Call it when Run has returned.
func (w *Workers) Drain(timeout time.Duration) (inFlight uint64) {
	return drain(timeout, func() (inFlight uint64) {
		for _, d := range w.datapaths {
			inFlight += d.drain()
		}
		for _, c := range w.Counters(nil) {
			inFlight += c.HandedOver - c.TakenOver
		}
		return inFlight
	})
}

// Close closes the ports and gives all chunks back to the UMEM. Frames on their way between
// workers are dropped (DroppedNoPort). Counters can still be read. It may be called twice, and while
// Run polls, which returns [xsk.ErrClosed] then.
func (w *Workers) Close() error {
	w.lock()
	defer w.unlock()
	if w.datapaths[0].closed {
		return nil
	}
	var errs []error
	for _, d := range w.datapaths {
		errs = append(errs, d.closeOwnPorts())
	}
	for _, d := range w.datapaths {
		for d.takeOver() > 0 {
		}
		d.publishBack()
	}
	for _, d := range w.datapaths {
		d.takeBack()
		errs = append(errs, d.freeChunks())
	}
	errs = append(errs, w.closeBells())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close workers: %w", err)
	}
	return nil
}

func (w *Workers) closeBells() error {
	var errs []error
	for i := range w.others.bells {
		// One that its worker waits for is closed by that.
		if b := &w.others.bells[i]; !b.polled {
			errs = append(errs, b.close())
		}
	}
	return errors.Join(errs...)
}

package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Counters count events on one CPU, of one task or of all, from when they are opened.
type Counters struct {
	events []Event
	fds    []int
}

// Reading is what counters stand at, by event.
type Reading map[string]count

// count is how often an event was seen while it had a place in the PMU, how long it
// was to be counted, and how long it had that place, in ns: there are fewer places
// than events.
type count struct{ value, enabled, running uint64 }

// Since is how often each event came between an earlier reading and this one, scaled
// to all of the time. What had no place in the PMU is left out.
func (r Reading) Since(old Reading) map[string]float64 {
	out := make(map[string]float64)
	for name, now := range r {
		was := old[name]
		if running := now.running - was.running; running > 0 {
			out[name] = float64(now.value-was.value) * float64(now.enabled-was.enabled) / float64(running)
		}
	}
	return out
}

// AllTasks are those that a CPU runs, and what it does besides.
const AllTasks = -1

// NewCounters begins to count those of the events on a CPU that this machine has: while it runs a task, by the id of its
// thread, or [AllTasks]. Interrupts and softirqs are the task's that they interrupt.
func NewCounters(events []Event, task, cpu int) (*Counters, error) {
	c := &Counters{}
	for _, e := range events {
		attr := e.attr()
		attr.Bits = 0 // neither disabled nor precise
		attr.Read_format = unix.PERF_FORMAT_TOTAL_TIME_ENABLED | unix.PERF_FORMAT_TOTAL_TIME_RUNNING
		fd, err := open(attr, e, task, cpu)
		if errors.Is(err, ErrNoEvent) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.events, c.fds = append(c.events, e), append(c.fds, fd)
	}
	return c, nil
}

// Names are those of the events that are counted.
func (c *Counters) Names() (names []string) {
	for _, e := range c.events {
		names = append(names, e.Name)
	}
	return names
}

// Read is what the counters stand at.
func (c *Counters) Read() (Reading, error) {
	out := make(Reading, len(c.fds))
	for i, fd := range c.fds {
		var b [24]byte
		n, err := unix.Read(fd, b[:])
		if err == nil && n != len(b) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", c.events[i].Name, err)
		}
		word := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
		out[c.events[i].Name] = count{word(0), word(1), word(2)}
	}
	return out, nil
}

// Start counts on after [Counters.Stop].
func (c *Counters) Start() error { return c.control(unix.PERF_EVENT_IOC_ENABLE) }

// Stop counts no more, and leaves the places in the PMU to others: on arm64 only one event can have the counter of cycles.
func (c *Counters) Stop() error { return c.control(unix.PERF_EVENT_IOC_DISABLE) }

func (c *Counters) control(request uint) error {
	for i, fd := range c.fds {
		if err := unix.IoctlSetInt(fd, request, 0); err != nil {
			return fmt.Errorf("start or stop %s: %w", c.events[i].Name, err)
		}
	}
	return nil
}

// Close stops counting.
func (c *Counters) Close() error {
	var errs []error
	for _, fd := range c.fds {
		errs = append(errs, unix.Close(fd))
	}
	c.fds, c.events = nil, nil
	return errors.Join(errs...)
}

// PerPacket are the events that are worth knowing per packet: those of every PMU,
// and the indirect branches of this CPU if they are known.
func PerPacket() []Event {
	cache := func(cache, op, result uint64) uint64 { return cache | op<<8 | result<<16 }
	events := []Event{
		{Name: "cycles", Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES},
		{Name: "instructions", Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_INSTRUCTIONS},
		{Name: "branch-misses", Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_BRANCH_MISSES},
		{Name: "l1d-misses", Type: unix.PERF_TYPE_HW_CACHE, Config: cache(unix.PERF_COUNT_HW_CACHE_L1D,
			unix.PERF_COUNT_HW_CACHE_OP_READ, unix.PERF_COUNT_HW_CACHE_RESULT_MISS)},
		{Name: "llc-misses", Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CACHE_MISSES},
	}
	return append(events, ownBranches()...)
}

package perf

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is a perf event with a ring buffer that the kernel writes.
type ring struct {
	// name of the event, cpu that it is of: for errors.
	name string
	cpu  int

	fd     int
	memory []byte // the control page, then the ring
	wrap   []byte // a record that goes round the ring's end
}

// openRing opens an event on a CPU and maps a ring of size bytes, a power of two of
// pages, that the kernel locks in memory.
func openRing(attr *unix.PerfEventAttr, e Event, cpu, size int) (*ring, error) {
	fd, err := open(attr, e, AllTasks, cpu)
	if err != nil {
		return nil, err
	}
	r := &ring{name: e.Name, cpu: cpu, fd: fd}
	r.memory, err = unix.Mmap(fd, 0, os.Getpagesize()+size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		err = fmt.Errorf("map ring of %s on CPU %d: %w", e.Name, cpu, err)
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// FD is the event's file descriptor, to attach a BPF program to.
func (r *ring) FD() int { return r.fd }

// Start turns the event on.
func (r *ring) Start() error { return r.control(unix.PERF_EVENT_IOC_ENABLE) }

// Stop turns the event off.
func (r *ring) Stop() error { return r.control(unix.PERF_EVENT_IOC_DISABLE) }

func (r *ring) control(request uint) error {
	if err := unix.IoctlSetInt(r.fd, request, 0); err != nil {
		return fmt.Errorf("start or stop %s on CPU %d: %w", r.name, r.cpu, err)
	}
	return nil
}

// Offsets of struct perf_event_mmap_page, linux/perf_event.h.
const (
	dataHead = 1024
	dataTail = 1032
)

// read empties the ring through parse, which returns how many bytes of whole records
// it took. It is false when something in the ring was no record: the rest is dropped.
func (r *ring) read(parse func([]byte) int) bool {
	ring := r.memory[os.Getpagesize():]
	// The kernel writes data_head after the data, and reads data_tail before
	// it writes over what was read.
	head := atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.memory[dataHead])))
	tail := atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.memory[dataTail])))
	good := r.drain(ring, tail, head, parse)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&r.memory[dataTail])), head)
	return good
}

// Close ends the event and unmaps the ring. It may be called twice.
func (r *ring) Close() error {
	var errs []error
	if r.memory != nil {
		errs = append(errs, unix.Munmap(r.memory))
		r.memory = nil
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
		r.fd = -1
	}
	return errors.Join(errs...)
}

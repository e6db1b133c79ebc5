package perf

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sampler samples one CPU into a ring buffer that the kernel writes and Read
// empties.
type Sampler struct {
	Event Event
	CPU   int

	fd     int
	memory []byte // the control page, then the ring
	parser Parser
	wrap   []byte // a record that goes round the ring's end
}

// ringSize of each sampler in bytes: at 20 kHz and 200 bytes a sample it fills in
// a quarter of a second. The kernel locks it in memory.
const ringSize = 1 << 20

// NewSampler opens an event on a CPU, stopped. Of the clock a sample is taken
// each 1/rate s, of other events at about that rate. It needs 1 MiB of locked
// memory.
func NewSampler(e Event, cpu, rate int) (*Sampler, error) {
	attr := e.attr()
	attr.Sample_type = sampleType
	attr.Bits |= unix.PerfBitUseClockID | unix.PerfBitExcludeCallchainUser
	attr.Clockid = unix.CLOCK_MONOTONIC
	if e.Type == unix.PERF_TYPE_SOFTWARE {
		// 0.9 % off: a timer in step with the kernel's tick would always see
		// what the tick does.
		attr.Sample = uint64(991e6 / rate)
	} else {
		attr.Bits |= unix.PerfBitFreq
		attr.Sample = uint64(rate)
	}
	fd, err := open(attr, e, cpu)
	if err != nil {
		return nil, err
	}
	s := &Sampler{Event: e, CPU: cpu, fd: fd}
	s.memory, err = unix.Mmap(fd, 0, os.Getpagesize()+ringSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		err = fmt.Errorf("map ring of %s on CPU %d: %w", e.Name, cpu, err)
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// MaxRateOfClock is what [Clock] gives at most, in Hz: the kernel's timer does not go
// below 10 µs (perf_swevent_init_hrtimer), and its limit of samples is twice that.
const MaxRateOfClock = 50_000

// FD is the event's file descriptor, to attach a BPF program to.
func (s *Sampler) FD() int { return s.fd }

// Start and Stop turn sampling on and off.
func (s *Sampler) Start() error { return s.control(unix.PERF_EVENT_IOC_ENABLE) }
func (s *Sampler) Stop() error  { return s.control(unix.PERF_EVENT_IOC_DISABLE) }

func (s *Sampler) control(request uint) error {
	if err := unix.IoctlSetInt(s.fd, request, 0); err != nil {
		return fmt.Errorf("start or stop %s on CPU %d: %w", s.Event.Name, s.CPU, err)
	}
	return nil
}

// Offsets of struct perf_event_mmap_page, linux/perf_event.h.
const (
	dataHead = 1024
	dataTail = 1032
)

// Read empties the ring and calls each for every sample in it, in order.
func (s *Sampler) Read(each func(*Sample)) {
	page := os.Getpagesize()
	ring := s.memory[page:]
	// The kernel writes data_head after the data, and reads data_tail before
	// it writes over what was read.
	head := atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.memory[dataHead])))
	tail := atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.memory[dataTail])))
	for tail < head {
		at := tail % ringSize
		part := ring[at:min(ringSize, at+head-tail)]
		n := s.parser.Parse(part, each)
		if n == 0 { // a record that goes round the end
			s.wrap = append(append(s.wrap[:0], part...), ring[:min(ringSize, head-tail-uint64(len(part)))]...)
			if size := min(int(s.wrap[6])|int(s.wrap[7])<<8, len(s.wrap)); len(part) >= headerSize && size > headerSize {
				n = s.parser.Parse(s.wrap[:size], each)
			}
		}
		if n == 0 {
			s.parser.Bad++
			tail = head
			break
		}
		tail += uint64(n)
	}
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.memory[dataTail])), tail)
}

// Counts are what went wrong so far.
func (s *Sampler) Counts() Counts { return s.parser.Counts }

// Close stops sampling and gives the ring back. It may be called twice.
func (s *Sampler) Close() error {
	var errs []error
	if s.memory != nil {
		errs = append(errs, unix.Munmap(s.memory))
		s.memory = nil
	}
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
		s.fd = -1
	}
	return errors.Join(errs...)
}

package perf

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sampler samples one CPU into a ring buffer that the kernel writes and Read
// empties.
type Sampler struct {
	*ring
	parser Parser
	rate   int
}

// ringSize of each sampler in bytes: at 20 kHz and 200 bytes a sample it fills in
// a quarter of a second.
const ringSize = 1 << 20

// NewSampler opens an event on a CPU, stopped. Of the clock a sample is taken
// each 1/rate s, of other events at about that rate, or at what the kernel allows, if
// that is less: see [Sampler.Rate]. It needs 1 MiB of locked memory.
func NewSampler(e Event, cpu, rate int) (*Sampler, error) {
	return NewSamplerOf(e, cpu, rate, ringSize)
}

// NewSamplerOf is [NewSampler] with a ring buffer of size bytes of locked memory, which must
// be a power of two of pages: for many CPUs, and rates at which a smaller one is enough.
func NewSamplerOf(e Event, cpu, rate, size int) (*Sampler, error) {
	attr := e.attr()
	attr.Sample_type = sampleType
	attr.Bits |= unix.PerfBitUseClockID | unix.PerfBitExcludeCallchainUser
	attr.Clockid = unix.CLOCK_MONOTONIC
	parser := Parser{link: runtime.GOARCH == "arm64"}
	if parser.link {
		attr.Sample_type |= sampleRegisters
		attr.Sample_regs_intr = linkRegister
	}
	if e.Type == unix.PERF_TYPE_SOFTWARE {
		// 0.9 % off: a timer in step with the kernel's tick would always see
		// what the tick does.
		attr.Sample = uint64(991e6 / rate)
		r, err := openRing(attr, e, cpu, size)
		if err != nil {
			return nil, err
		}
		return &Sampler{ring: r, parser: parser, rate: rate}, nil
	}
	attr.Bits |= unix.PerfBitFreq
	for {
		limit := maxRate(os.ReadFile("/proc/sys/kernel/perf_event_max_sample_rate"))
		attr.Sample = uint64(min(rate, limit))
		r, err := openRing(attr, e, cpu, size)
		if err == nil {
			return &Sampler{ring: r, parser: parser, rate: int(attr.Sample)}, nil
		}
		// The kernel lowers its limit while samples are taken, and refuses what is beyond.
		if limit = maxRate(os.ReadFile("/proc/sys/kernel/perf_event_max_sample_rate")); !errors.Is(err, unix.EINVAL) ||
			uint64(limit) >= attr.Sample {
			return nil, err
		}
	}
}

// maxRate is the limit of samples a second that the kernel writes, 100 000 where it does not (as it begins,
// DEFAULT_MAX_SAMPLE_RATE).
func maxRate(text []byte, err error) int {
	n, errNumber := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || errNumber != nil || n < 1 {
		return 100_000
	}
	return n
}

// Rate is how many samples a second are taken: less than was asked for where the kernel allows no more
// (kernel.perf_event_max_sample_rate, which it lowers by itself when samples take long).
func (s *Sampler) Rate() int { return s.rate }

// MaxRateOfClock is what [Clock] gives at most, in Hz: the kernel's timer does not go
// below 10 µs (perf_swevent_init_hrtimer), and its limit of samples is twice that.
const MaxRateOfClock = 50_000

// Read empties the ring and calls each for every sample in it, in order.
func (s *Sampler) Read(each func(*Sample)) {
	if !s.read(func(b []byte) int { return s.parser.Parse(b, each) }) {
		s.parser.Bad++
	}
}

// Counts are what went wrong so far.
func (s *Sampler) Counts() Counts { return s.parser.Counts }

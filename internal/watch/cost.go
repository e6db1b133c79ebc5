package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/stat"
)

// price is what a sample takes of the CPU that it is taken on, in ns.
type price struct {
	// interrupt is from the last instruction before the timer's interrupt to the first after
	// it, in user mode, where there is no call chain. frame is each frame of a call chain in
	// the kernel.
	interrupt, frame float64
}

// of is what samples took: taken interrupts, of which some kept call chains of so many frames
// in all.
func (p price) of(taken uint64, frames float64) float64 {
	return float64(taken)*p.interrupt + frames*p.frame
}

const (
	// priceRate is that of the samples whose price is taken: samples close to each other are
	// cheaper. priceTime is how long each half of it takes.
	priceRate = 500
	priceTime = 120 * time.Millisecond
	// minPriced is how many samples make a price.
	minPriced = 15
	// usualFrames is how deep a call chain of a poll is.
	usualFrames = 20
	// maxTries is on how many CPUs it is tried.
	maxTries = 4
)

var errNoPrice = errors.New("its CPUs had no time left to measure it")

// measurePrice measures what a sample takes, on the first of the CPUs that has time for it. A
// thread of the lowest priority (SCHED_IDLE) reads the clock over and over, in user mode and
// then around a short system call: where a sample was taken the clock stands still for as long
// as that took. It takes a quarter of a second of the CPU's idle time. Where no CPU has some, a
// thread of normal priority has its share of one.
func measurePrice(ctx context.Context, cpus []int) (price, error) {
	for _, policy := range []uint32{unix.SCHED_IDLE, unix.SCHED_NORMAL} {
		for _, cpu := range cpus[:min(len(cpus), maxTries)] {
			if err := ctx.Err(); err != nil {
				return price{}, err
			}
			p, err := priceOn(cpu, policy)
			if !errors.Is(err, errNoPrice) {
				return p, err
			}
		}
	}
	return price{}, errNoPrice
}

func priceOn(cpu int, policy uint32) (p price, err error) {
	s, err := perf.NewSamplerOf(perf.Clock, cpu, priceRate, 1<<17)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("open socket pair: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(pair[0]), unix.Close(pair[1])) }()
	user, err := gaps(s, cpu, policy, func() {})
	if err != nil {
		return p, err
	}
	// A byte to itself: call chains of some ten frames.
	var one [1]byte
	inKernel, err := gaps(s, cpu, policy, func() {
		_, _ = unix.Write(pair[0], one[:])
		_, _ = unix.Read(pair[1], one[:])
	})
	if err != nil {
		return p, err
	}
	p.interrupt, _ = user.usual(false)
	// The first frames cost more than others: this is rather too much.
	if ns, depth := inKernel.usual(true); depth > 0 {
		p.frame = max(ns-p.interrupt, 0) / depth
	}
	return p, nil
}

// stops are the samples that stopped a loop: for how many ns, and how many frames they have.
type stops struct{ ns, frames []float64 }

// usual is the first quartile of the stops with a call chain or without one, and how many frames
// they have: on a busy machine the thread loses its CPU at every fourth sample.
func (s stops) usual(chain bool) (ns, depth float64) {
	var each, frames []float64
	for i := range s.ns {
		if s.frames[i] > 0 == chain {
			each, frames = append(each, s.ns[i]), append(frames, s.frames[i])
		}
	}
	if len(each) == 0 {
		return 0, 0
	}
	slices.Sort(each)
	return each[len(each)/4], stat.Median(frames)
}

// gap is a turn of the loop that took longer than most.
type gap struct{ begin, end uint64 } // of CLOCK_MONOTONIC

// gaps runs a loop around work under samples, and finds those that were taken in it.
func gaps(s *perf.Sampler, cpu int, policy uint32, work func()) (found stops, err error) {
	type result struct {
		tid  int
		turn uint64
		gaps []gap
		err  error
	}
	if err := s.Start(); err != nil {
		return found, err
	}
	done := make(chan result)
	go func() {
		// The thread keeps its priority and its CPU, and so it ends with the goroutine.
		runtime.LockOSThread()
		var r result
		r.tid = unix.Gettid()
		var one unix.CPUSet
		one.Set(cpu)
		r.err = errors.Join(unix.SchedSetaffinity(0, &one),
			unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}, 0))
		if r.err == nil {
			r.turn, r.gaps = spin(work)
		}
		done <- r
	}()
	r := <-done
	if err := errors.Join(r.err, s.Stop()); err != nil {
		return found, fmt.Errorf("measure what a sample takes: %w", err)
	}
	s.Read(func(sample *perf.Sample) {
		if int(sample.TID) != r.tid {
			return
		}
		i, _ := slices.BinarySearchFunc(r.gaps, sample.Time, func(g gap, t uint64) int { return cmp.Compare(g.end, t) })
		if i < len(r.gaps) && r.gaps[i].begin <= sample.Time {
			g := r.gaps[i]
			found.ns = append(found.ns, float64(g.end-g.begin)-float64(r.turn))
			found.frames = append(found.frames, float64(len(sample.Chain)))
		}
	})
	if len(found.ns) < minPriced {
		return found, errNoPrice
	}
	return found, nil
}

// spin reads the clock for priceTime of the wall clock. It returns what a turn takes, and the
// turns that took at least 1 µs longer.
func spin(work func()) (turn uint64, long []gap) {
	// The runtime's clock is CLOCK_MONOTONIC without a system call, from another origin.
	base := time.Now()
	var ts unix.Timespec
	var origin uint64
	for range 10 {
		before := time.Since(base)
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
			return 0, nil
		}
		after := time.Since(base)
		origin = max(origin, uint64(ts.Nano())-uint64(before+(after-before)/2))
	}
	var turns []float64
	for range 200 {
		begin := time.Since(base)
		work()
		turns = append(turns, float64(time.Since(base)-begin))
	}
	turn = uint64(stat.Median(turns))
	long = make([]gap, 0, 4096)
	for last := time.Since(base); last < priceTime && len(long) < cap(long); {
		work()
		now := time.Since(base)
		if uint64(now-last) > turn+1000 {
			// The two origins are known to some 100 ns.
			long = append(long, gap{origin + uint64(last) - min(uint64(last), 200), origin + uint64(now) + 200})
		}
		last = now
	}
	return turn + 400, long
}

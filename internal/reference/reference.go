package reference

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// every is the least time between two samples. One takes 80 µs here, so that references take at most 2 % of a run.
const every = 4 * time.Millisecond

// Loads of a sample. The near walk goes round once to have its lines in the cache, and once more for the time.
const (
	nearLoads = nearSize / line
	farLoads  = 100
)

// Watch times references on one CPU, round by round.
type Watch struct {
	cpu        int
	sibling    int
	hasSibling bool
	// beside is set when the CPU's work is not this process's.
	beside bool

	work chan func() error
	done chan error

	near, far *walk
	loop      *loop

	// round is the one under way, begun its beginning.
	round   int
	begun   mark
	sampled time.Time // the last time
	// samples are those of the round, in ns a step, by name.
	samples map[string][]float64
	// found are the numbers of the rounds that ended.
	found map[string]*series
}

// series is a number of each round that has one.
type series struct {
	samples []float64
	rounds  []int
}

// Open prepares the references of a CPU. It takes some 50 ms and 64 MiB of memory until [Watch.Close].
// Requires the rights to load BPF programs.
func Open(cpu int) (*Watch, error) { return open(cpu, memory.Limit() >= farLimit) }

// OpenSparing is [Open] without the walk through memory, which would take lines of the cache that other CPUs share.
func OpenSparing(cpu int) (*Watch, error) { return open(cpu, false) }

func open(cpu int, far bool) (w *Watch, err error) {
	w = &Watch{cpu: cpu, work: make(chan func() error), done: make(chan error), found: make(map[string]*series)}
	w.sibling, w.hasSibling = SiblingOf(os.DirFS("/sys"), cpu)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.release())
		}
	}()
	if w.loop, err = newLoop(); err != nil {
		return nil, err
	}
	if w.near, err = newWalk(nearSize); err != nil {
		return nil, err
	}
	if far {
		if w.far, err = newWalk(farSize); err != nil {
			return nil, err
		}
	}
	started := make(chan error)
	go w.serve(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return w, nil
}

// OpenBeside is [Open] for a CPU whose work is none of this process: that of real devices. Other tasks are then all that
// run there; frames are handled in softirqs.
func OpenBeside(cpu int) (*Watch, error) {
	w, err := Open(cpu)
	if err == nil {
		w.beside = true
	}
	return w, err
}

// serve runs work on a thread that is pinned to the CPU.
func (w *Watch) serve(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	err := unix.SchedGetaffinity(0, &old)
	if err == nil {
		one.Set(w.cpu)
		err = unix.SchedSetaffinity(0, &one)
	}
	if err != nil {
		started <- fmt.Errorf("pin thread to CPU %d: %w", w.cpu, err)
		return
	}
	close(started)
	for f := range w.work {
		w.done <- f()
	}
	// The thread goes back to the runtime as it came.
	w.done <- unix.SchedSetaffinity(0, &old)
}

// Close gives back the memory and ends the thread.
func (w *Watch) Close() error {
	close(w.work)
	return errors.Join(<-w.done, w.release())
}

func (w *Watch) release() error {
	var errs []error
	for _, walk := range []*walk{w.near, w.far} {
		if walk != nil {
			errs = append(errs, walk.Close())
		}
	}
	if w.loop != nil {
		errs = append(errs, w.loop.Close())
	}
	return errors.Join(errs...)
}

// Begin begins the round of that number. What a round that was not ended has sampled is thrown away.
func (w *Watch) Begin(round int) {
	w.round, w.samples, w.begun = round, make(map[string][]float64), w.mark()
}

// Sample times each reference once, unless it did so in the last 4 ms. It belongs between the slots of what is
// measured.
func (w *Watch) Sample() error { return w.SampleAfter(every) }

// SampleAfter is [Watch.Sample] with another least time between two samples.
func (w *Watch) SampleAfter(least time.Duration) error {
	if time.Since(w.sampled) < least {
		return nil
	}
	w.work <- w.sample
	err := <-w.done
	w.sampled = time.Now()
	return err
}

// Samples takes n samples at once, where there are no slots.
func (w *Watch) Samples(n int) error {
	for range n {
		if err := w.SampleAfter(0); err != nil {
			return err
		}
	}
	return nil
}

func (w *Watch) sample() error {
	add := func(name string, ns float64) { w.samples[name] = append(w.samples[name], ns) }
	if hz := clock.Core(); hz > 0 {
		add(record.CoreClock, 1e9/hz)
	}
	turn, err := w.loop.run()
	if err != nil {
		return err
	}
	add(record.KernelLoop, turn)
	w.near.load(nearLoads)
	add(record.NearWalk, timed(w.near, nearLoads))
	if w.far != nil {
		add(record.FarWalk, timed(w.far, farLoads))
	}
	return nil
}

// timed returns the time of one of n loads in ns.
func timed(w *walk, n int) float64 {
	begun := time.Now()
	w.load(n)
	return float64(time.Since(begun)) / float64(n)
}

// End ends a round: each reference has one number of it, made of its samples as a row's is made of its windows. It must
// be called while the threads that measured are there.
func (w *Watch) End() {
	for name, samples := range w.samples {
		ns := rounds.Undisturbed(samples)
		if name == record.CoreClock {
			ns = 1 / ns // GHz
		}
		w.add(name, ns)
	}
	now := w.mark()
	took := now.at.Sub(w.begun.at)
	share := func(name string, d time.Duration) { w.add(name, min(100*d.Seconds()/took.Seconds(), 100)) }
	if !w.beside {
		share(record.OtherTasks, now.waited.Since(w.begun.waited))
	}
	if now.known && w.begun.known {
		share(record.Steal, now.times.Stolen-w.begun.times.Stolen)
		if w.beside {
			share(record.OtherTasks, now.times.Tasks-w.begun.times.Tasks)
		}
	}
	if now.otherKnown && w.begun.otherKnown {
		share(record.Sibling, now.other.Busy-w.begun.other.Busy)
	}
}

// add adds a number of the round under way.
func (w *Watch) add(name string, x float64) {
	s := w.found[name]
	if s == nil {
		s = &series{}
		w.found[name] = s
	}
	s.samples, s.rounds = append(s.samples, x), append(s.rounds, w.round)
}

// Record returns what was found, nil for no round.
func (w *Watch) Record() []record.Reference {
	var rows []record.Reference
	for _, name := range record.References() {
		s := w.found[name]
		if s == nil {
			continue
		}
		q := stat.Summarize(s.samples, record.ReferenceUnit(name))
		rows = append(rows, record.Reference{Name: name, Value: &q, Samples: slices.Clone(s.samples), Rounds: slices.Clone(s.rounds)})
	}
	return rows
}

// CoreClock returns the clock of the core in Hz, one number a round.
func (w *Watch) CoreClock() []float64 {
	s := w.found[record.CoreClock]
	if s == nil {
		return nil
	}
	hz := make([]float64, len(s.samples))
	for i, ghz := range s.samples {
		hz[i] = 1e9 * ghz
	}
	return hz
}

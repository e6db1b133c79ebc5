package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/bpf/poll"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/profile"
)

const (
	// drain is how often the rings are emptied.
	drain = 200 * time.Millisecond
	// again is after how many seconds it is looked up anew which CPUs and polls the device has,
	// and where tail calls go. Run statistics are on for one second in as many.
	again = 10
)

// Second is what happened in a second. Pointers are nil for what is not known.
type Second struct {
	End    time.Time
	Length time.Duration
	// Packets that the program saw; of Verdicts and Lost those are there that are counted.
	Packets        uint64
	Verdicts, Lost map[string]uint64
	// Errors of redirects by errno, with tracepoints.
	Errors map[string]uint64
	// Program and Path are ns a packet: of the program with what it calls, and of the device's
	// polls without observers; nil in a second of fewer than 5 samples, or in which the program
	// went. Core is what the polls took, in percent of one core.
	Program, Path, Core *float64
	Stages              map[functions.Stage]float64 // ns a packet
	// FramesPerXmit is how many frames ndo_xdp_xmit was given at once, with tracepoints.
	FramesPerXmit *float64
	// Stats is what run statistics say of a run above an empty program, in ns, in seconds in
	// which they were on.
	Stats *float64
	// Cost is what watching took, in percent of the sampled CPUs.
	Cost *float64
	// Samples is how many were taken.
	Samples int
	// Event says in a sentence what changed.
	Event string
}

// Totals are sums since the watch began, for metrics.
type Totals struct {
	// Up is set while the program is watched.
	Up              bool
	Device, Program string
	Packets         uint64
	Verdicts, Lost  map[string]uint64
	Errors          map[string]uint64
	Samples         int
	// Time in the program and, by stage, in the polls, as samples have it; Cost is what
	// watching took. All are in seconds.
	Time, Cost float64
	Stages     map[string]float64
}

// Totals are the sums until now. It may be called from any goroutine.
func (w *Watch) Totals() Totals {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.totals
	t.Packets, t.Verdicts, t.Lost, t.Errors = w.total.packets, w.total.verdicts, w.total.lost, w.total.errors
	t.Samples, t.Time, t.Cost = w.total.samples, w.total.program/1e9, w.total.cost/1e9
	t.Stages = make(map[string]float64, len(w.total.stages))
	for stage, ns := range w.total.stages {
		t.Stages[string(stage)] = ns / 1e9
	}
	return t
}

// reading is what stood in all counters at a time.
type reading struct {
	at     time.Time
	device counters
	seen   observe.Seen
	events poll.Counts
	self   time.Duration // of this process, on CPUs
}

// Run watches until the plan's duration is over, ctx ends, or there is nothing to watch any more.
// live is told of each second; it may be nil.
func (w *Watch) Run(ctx context.Context, live func(Second)) (*Result, error) {
	before, _, err := w.readAll()
	if err != nil {
		return nil, w.orGone(err)
	}
	result := &Result{watch: w, began: before.at}
	w.chains = newChains()
	w.take() // what was sampled before
	w.second, w.chains = tally{}, newChains()
	w.publish(tally{})
	ticker := time.NewTicker(drain)
	defer ticker.Stop()
	for n := 0; ; {
		if w.stats != nil && w.stats.on == nil && n%again == 0 {
			if err := w.stats.begin(); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			result.Incomplete = w.plan.Duration > 0
			return result, w.end()
		case <-ticker.C:
		}
		w.take()
		if time.Since(before.at) < time.Second-drain/4 {
			continue
		}
		after, ended, err := w.conclude(ctx, before, live)
		if err != nil {
			return nil, err
		}
		before = after
		if n++; ended != "" {
			result.Ended = ended
			return result, w.end()
		}
		if w.plan.Duration > 0 && time.Since(result.began) >= w.plan.Duration-drain/2 {
			return result, w.end()
		}
		if n%again == 0 {
			fresh, err := w.refresh(ctx)
			if err != nil {
				return nil, err
			}
			if fresh {
				if before, err = w.resume(before); err != nil {
					return nil, err
				}
			}
		}
	}
}

// resume is where counting goes on after the rings were made anew: packets of which no sample could be taken meanwhile
// would make the others cheaper. What looking took of this process is a part of the cost.
func (w *Watch) resume(before reading) (reading, error) {
	now, _, err := w.readAll()
	if errors.Is(err, errGone) { // the next second finds out
		before.events = poll.Counts{}
		return before, nil
	}
	now.self = before.self
	return now, err
}

// orGone puts the device's end in words.
func (w *Watch) orGone(err error) error {
	if errors.Is(err, errGone) {
		return fmt.Errorf("%s went away", w.subject.device.Name)
	}
	return err
}

// end says that nothing is watched any more.
func (w *Watch) end() error {
	w.mu.Lock()
	w.totals.Up = false
	w.mu.Unlock()
	return w.detach()
}

// readAll reads all counters. xdp is the program on the device, 0 for none.
func (w *Watch) readAll() (r reading, xdp uint32, err error) {
	if r.device, xdp, err = w.read(); err != nil {
		return r, 0, err
	}
	r.at = time.Now()
	if w.observer != nil {
		if r.seen, err = w.observer.Seen(); err != nil {
			return r, 0, err
		}
	}
	if w.filter != nil {
		if r.events, err = w.filter.Counts(); err != nil {
			return r, 0, err
		}
	}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return r, 0, fmt.Errorf("read own time: %w", err)
	}
	r.self = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return r, xdp, nil
}

// take empties the rings.
func (w *Watch) take() {
	for _, s := range w.samplers {
		s.Read(w.sample)
	}
}

// sample adds a sample to the second.
func (w *Watch) sample(s *perf.Sample) {
	w.events++
	w.frames += len(s.Chain)
	if len(s.Chain) == 0 {
		return
	}
	known := w.classes.Find(s.Chain)
	program := false
	for i, addr := range s.Chain {
		if i > 0 { // where the call is
			addr--
		}
		if _, _, ok := w.subject.find(addr); ok {
			program = true
			break
		}
	}
	inside := known.Outside == profile.Inside
	if w.filter == nil {
		inside = program
	}
	if !inside && !program {
		return
	}
	ns := float64(s.Period)
	w.second.samples++
	if program {
		w.second.program += ns
	}
	if w.second.stages == nil {
		w.second.stages = make(map[functions.Stage]float64)
	}
	stage := known.Stage
	if program && !inside { // the unwinder gave up within the program
		stage = functions.StageProgram
	}
	w.second.stages[stage] += ns
	w.addStack(known, stage, ns)
}

// conclude ends a second. ended says why there is nothing to watch any more.
func (w *Watch) conclude(ctx context.Context, before reading, live func(Second)) (after reading, ended string, err error) {
	after, xdp, err := w.readAll()
	if errors.Is(err, errGone) {
		return before, w.subject.device.Name + " went away", nil
	}
	if err != nil {
		return after, "", err
	}
	w.take()
	t := w.second
	t.length = after.at.Sub(before.at)
	counted := after.device.since(before.device)
	t.packets, t.verdicts, t.lost = counted.packets, counted.verdicts, counted.lost
	t.calls, t.frames = after.seen.Calls-before.seen.Calls, after.seen.Frames-before.seen.Frames
	t.errors = errorsSince(after.seen, before.seen)
	if w.stats != nil {
		ns, ok, err := w.stats.end()
		if err != nil {
			return after, "", err
		}
		if ok {
			t.stats, t.statsSeconds = ns, 1
		}
	}
	taken := after.events.Taken - before.events.Taken
	if w.filter == nil {
		taken = uint64(w.events)
	}
	if w.price != nil {
		t.cost = w.price.of(taken, float64(w.frames))
	}
	t.cost += float64(after.self - before.self)
	w.events, w.frames, w.second = 0, 0, tally{}
	event, whole := "", xdp == w.subject.attached
	if !whole {
		event, ended, err = w.replaced(ctx)
		if err != nil {
			return after, "", err
		}
		if ended == "" {
			self := after.self // to look for the new one is a part of the cost
			after, _, err = w.readAll()
			after.self, err = self, w.orGone(err)
		}
	}
	// Packets of a second in which the program went are also such as it did not see, and no
	// sample is in the code of the one that came.
	if whole {
		w.add(t)
		w.keepStacks()
		w.taken += taken
	}
	clear(w.pending)
	w.publish(t)
	if live != nil {
		second := w.line(t, after.at, event)
		if !whole {
			second.Program, second.Path, second.Stages = nil, nil, map[functions.Stage]float64{}
		}
		live(second)
	}
	return after, ended, err
}

// errorsSince are failed redirects by the name of the error, and frames that ndo_xdp_xmit
// refused.
func errorsSince(now, before observe.Seen) map[string]uint64 {
	out := make(map[string]uint64)
	for _, e := range now.ErrorsSince(before) {
		out[unix.ErrnoName(e.Error)] += e.Count
	}
	if n := now.Drops - before.Drops; n > 0 {
		out[strings.TrimSpace("ndo_xdp_xmit "+unix.ErrnoName(now.XmitError))] += n
	}
	return out
}

// replaced looks for what is on the device now. ended says why there is nothing to watch any
// more, else event says what changed.
func (w *Watch) replaced(ctx context.Context) (event, ended string, err error) {
	was := w.subject
	now, err := find(ctx, w.plan.Target)
	switch {
	case ctx.Err() != nil:
		return "", "", nil // the watch ends
	case err != nil:
		return "", fmt.Sprintf("program id:%d is not on %s any more", was.attached, was.device.Name), nil
	case now.device.Index != was.device.Index:
		return "", fmt.Sprintf("program id:%d went from %s to %s", was.watched, was.device.Name, now.device.Name), nil
	}
	if err := w.detach(); err != nil {
		return "", "", err
	}
	w.subject = now
	w.classes = profile.NewClassifier(w.kernel.Symbols, now.find)
	if w.stats != nil {
		w.stats.id = now.watched
	}
	if w.cpus, err = w.choose(); err == nil {
		err = w.attach()
	}
	event = fmt.Sprintf("program id:%d was replaced by %s id:%d", was.attached, now.name, now.attached)
	w.came(event)
	return event, "", err
}

// maxReplacements is how many replaced programs a record tells of: others are counted.
const maxReplacements = 10

// came keeps that a program was replaced.
func (w *Watch) came(event string) {
	if w.replacements++; w.replacements <= maxReplacements {
		w.warnf("%s", event)
	}
}

// refresh looks up anew which CPUs and polls the device has, and where tail calls go. What has
// not changed goes on; fresh is set when the filter is another one.
func (w *Watch) refresh(ctx context.Context) (fresh bool, err error) {
	w.foldStacks()
	now := *w.subject
	if err := now.readCode(ctx, now.roots); err != nil {
		return false, nil // it went: the next second finds out
	}
	if !slices.Equal(now.code, w.subject.code) {
		w.subject = &now
		w.classes = profile.NewClassifier(w.kernel.Symbols, now.find)
	}
	cpus, err := w.choose()
	if err != nil {
		return false, err
	}
	napis, err := w.polls()
	if err != nil || slices.Equal(cpus, w.cpus) && slices.Equal(napis, w.napis) {
		return false, err
	}
	w.cpus = cpus
	return true, errors.Join(w.detach(), w.attach())
}

package profile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/xdppath"
)

// slots of a pass: all but one are sampled.
const (
	slotsPass  = 4
	slotLength = 4 // times what bench takes
	// shortPart is what part of such a slot a short one is.
	shortPart = 4
	// maxPasses is how often a round that has no window without another task tries on
	// when its time is up.
	maxPasses = 8
)

type run struct {
	*collector
	row redirect.Row
	cpu int
	// prepare changes a chain once it is built.
	prepare func(*redirect.Chain) error
	// references are timed between slots.
	references *reference.Watch
	// counted are the events of each packet.
	counted []perf.Event
}

// Run profiles a chain. When ctx ends it returns what it has, with Incomplete set
// and no error.
//
// It returns a [feature.Missing] without root, BTF, live frames or perf events.
// Requires at least Linux 5.18.
func Run(ctx context.Context, plan Plan, show func(rounds.Progress)) (*Raw, error) {
	return runPrepared(ctx, plan, show, func(*redirect.Chain) error { return nil })
}

// runPrepared is Run with a change to each chain once it is built.
func runPrepared(
	ctx context.Context, plan Plan, show func(rounds.Progress), prepare func(*redirect.Chain) error,
) (raw *Raw, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	cpu, err := plan.Chain.CPU.Pick()
	if err != nil {
		return nil, err
	}
	if err := redirect.Probe(ctx); err != nil {
		return nil, err
	}
	event, err := perf.Best(cpu)
	if err != nil {
		return nil, err
	}
	row := plan.Chain.Rows()[0]
	c := collect(&Raw{
		Name: row.Name(), Event: event, Rate: plan.Rate, RateGiven: plan.Rate != 0, CPUs: []int{cpu},
	})
	references, err := reference.Open(cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, references.Close()) }()
	r := &run{c, row, cpu, prepare, references, plan.counted}
	began := clock.Start()
	r.raw.Outcome, err = plan.Chain.Schedule.Run(ctx, show, func(round rounds.Round) error {
		round.Show(row.Name())
		return r.round(ctx, round)
	})
	if err != nil {
		return nil, err
	}
	r.raw.TSCRate, r.raw.References = began.Rate(), references.Record()
	return r.done(), nil
}

// round builds a chain, measures until the round ends, and names what was sampled
// while its programs are still there.
func (r *run) round(ctx context.Context, round rounds.Round) (err error) {
	end := round.End()
	if t := r.row.Target; t != nil && round.Number == 0 {
		if r.raw.LineRuns, err = t.CountLines(ctx, r.row.Bulk, r.cpu); err != nil && ctx.Err() == nil {
			r.raw.NoRuns = err.Error()
		}
	}
	r.references.Begin(round.Number)
	lab, err := netlab.New(r.cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	c, err := redirect.BuildRow(ctx, lab, 0, r.row, r.cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := r.prepare(c); err != nil {
		return err
	}
	if r.row.Target != nil {
		if err := errors.Join(findSinks(c), r.readLinesOf(ctx, c)); err != nil {
			return err
		}
	}
	measurement, err := c.Measure(ctx, r.row.Bulk)
	if err != nil {
		return err
	}
	measurement.Lengthen(slotLength)
	if round.Number == 0 {
		if r.raw.Calls, err = measurement.CallsPerPacket(ctx); err != nil {
			return err
		}
	}
	watch, err := watchTasks(lab, r.cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.close()) }()
	counters, err := perf.NewCounters(r.counted, int(watch.sender), r.cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, counters.Close()) }()
	if err := counters.Stop(); err != nil { // but in slots without sampling
		return err
	}
	r.raw.Counted = counters.Names()
	m := &sampledRound{
		run: r, lab: lab, chain: c, measurement: measurement, round: Round{Number: round.Number},
		watch: watch, counters: counters, events: make(map[string][]float64),
	}
	if r.raw.Rate == 0 {
		if r.raw.Rate, err = m.affordable(ctx); err != nil {
			return err
		}
	}
	if err := m.sample(r.raw.Rate); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for pass := 0; pass == 0 || time.Now().Before(end) || pass < maxPasses && m.round.Packets == 0; pass++ {
		for _, i := range rand.Perm(slotsPass) {
			if err := r.references.Sample(); err != nil {
				return err
			}
			slot := m.slot
			if i == 0 {
				slot = m.plainSlot
			}
			if err := slot(ctx); err != nil {
				return err
			}
		}
	}
	r.references.End()
	return m.conclude(ctx)
}

// findSinks tells a chain where its sinks' polls can be seen. Devices of each round are others.
func findSinks(c *redirect.Chain) (err error) {
	k, err := kernel.OpenLive()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return c.FindSinks(func(ifindex int) ([]uint64, error) { return xdppath.NAPIStates(k, ifindex) })
}

// sampledRound is a round under way.
type sampledRound struct {
	*run
	lab         *netlab.Namespace
	chain       *redirect.Chain
	measurement *redirect.Measurement
	sampler     *perf.Sampler
	watch       *watch
	round       Round
	seen        uint64 // phases
	phases      []chain.Phase
	// sampled and plain are ns per frame of slots, windows those of the windows of
	// plain slots; each without the windows that are left out.
	sampled, plain, windows []float64
	counters                *perf.Counters
	events                  map[string][]float64 // per frame, of plain slots
}

// sample opens the sampler.
func (r *sampledRound) sample(rate int) (err error) {
	if r.sampler, err = perf.NewSampler(r.raw.Event, r.cpu, rate); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(r.sampler.FD(), unix.PERF_EVENT_IOC_SET_BPF, r.chain.PhaseProgram().FD()); err != nil {
		return errors.Join(fmt.Errorf("attach BPF program to perf event: %w", err), r.close())
	}
	r.raw.allow(r.sampler.Rate(), rate)
	return nil
}

func (r *sampledRound) close() error { return r.release(r.sampler) }

// allowed is the share of the CPU that sampling may take when the rate is not given: about
// 1 %, as the help of --rate says.
const allowed = 0.012

// affordable is the rate at which sampling takes no more than is allowed, by what
// samples cost here: a timer's interrupt takes 2 µs or, in a virtual machine, 20 to
// 50. It is tried at a low rate, as samples close to each other are cheaper.
func (r *sampledRound) affordable(ctx context.Context) (rate int, err error) {
	const try, passes = 1000, 32
	// A run of its own: nothing of it is in the record.
	trial := &sampledRound{
		run: &run{collector: &collector{raw: &Raw{Event: r.raw.Event}, stacks: newStacks()}, cpu: r.cpu},
		lab: r.lab, chain: r.chain, measurement: r.measurement, watch: r.watch,
		counters: r.counters, events: make(map[string][]float64),
	}
	if err := trial.sample(try); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, trial.close()) }()
	for range passes {
		if err := errors.Join(trial.slot(ctx), trial.plainSlot(ctx)); err != nil {
			return 0, err
		}
	}
	if len(trial.sampled) == 0 || len(trial.plain) == 0 {
		return MinRate, nil
	}
	taken := float64(trial.sampler.Rate())
	cost := max(1-rounds.QuickHalf(trial.plain)/rounds.QuickHalf(trial.sampled), 0) / taken // of a sample, in s
	return int(min(max(allowed/cost, MinRate), AutoRate)), nil
}

// span runs a slot; it is nil when its packet counts disagree.
func (r *sampledRound) span(ctx context.Context) (*windows, error) {
	r.watch.forget()
	span, ok, err := r.measurement.Span(ctx)
	if err != nil {
		return nil, err
	}
	r.raw.Slots.Add(ok)
	if !ok {
		return nil, nil
	}
	return r.watch.windows(span), nil
}

// plainSlot measures without sampling, and counts events: of the slot and of a shorter one behind it. What these differ in
// is packets' alone, as both begin and end.
func (r *sampledRound) plainSlot(ctx context.Context) error {
	w, all, err := r.countedSpan(ctx)
	if err != nil || w == nil {
		return err
	}
	r.windows = append(r.windows, w.each()...)
	ns, ok := w.nsPerFrame()
	if !ok {
		return nil
	}
	r.plain = append(r.plain, ns)
	whole := r.measurement.Windows()
	r.measurement.Shorten(max(whole/shortPart, 1))
	defer r.measurement.Shorten(whole)
	short, some, err := r.countedSpan(ctx)
	if err != nil || short == nil || short.Sent >= w.Sent {
		return err
	}
	for name, n := range all {
		if m, ok := some[name]; ok {
			r.events[name] = append(r.events[name], (n-m)/float64(w.Sent-short.Sent))
		}
	}
	return nil
}

// countedSpan is [sampledRound.span] with what was counted of the sender. Another task's events are not counted, and so none
// of a slot is left out for it.
func (r *sampledRound) countedSpan(ctx context.Context) (w *windows, events map[string]float64, err error) {
	if err := r.counters.Start(); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.counters.Stop()) }()
	before, err := r.counters.Read()
	if err != nil {
		return nil, nil, err
	}
	if w, err = r.span(ctx); err != nil || w == nil {
		return nil, nil, err
	}
	after, err := r.counters.Read()
	if err != nil {
		return nil, nil, err
	}
	return w, after.Since(before), nil
}

// slot measures with sampling.
func (r *sampledRound) slot(ctx context.Context) error {
	if err := r.sampler.Start(); err != nil {
		return err
	}
	w, err := r.span(ctx)
	if err := errors.Join(err, r.sampler.Stop()); err != nil {
		return err
	}
	if r.phases, r.seen, err = r.chain.Phases(r.seen, r.phases[:0]); err != nil {
		return err
	}
	at := 0
	r.sampler.Read(func(s *perf.Sample) {
		at = nearest(r.phases, at, s.Time)
		if w == nil || s.Time < w.Start || s.Time >= w.End {
			return
		}
		c := circumstances{
			sink: len(r.phases) > 0 && r.phases[at].Sink, disturbed: w.disturbedAt(s.Time), by: r.watch.taskOf(s),
		}
		r.add(s, c)
	})
	if w == nil {
		return nil
	}
	r.round.Windows += len(w.Windows)
	r.round.LeftOut += w.leftOut()
	r.round.CPUNs += float64(w.End - w.Start)
	frames, ns := w.kept()
	r.round.Packets += frames
	r.round.Ns += ns
	if ns, ok := w.nsPerFrame(); ok {
		r.sampled = append(r.sampled, ns)
	}
	return nil
}

// nearest is the place of the phase nearest to a time, from at on. The kernel takes a
// sample's time before the BPF program runs, or after it (before Linux 6.3).
func nearest(phases []chain.Phase, at int, t uint64) int {
	far := func(i int) uint64 { return max(phases[i].Time, t) - min(phases[i].Time, t) }
	for at+1 < len(phases) && far(at+1) <= far(at) {
		at++
	}
	return at
}

// conclude names what the round sampled.
func (r *sampledRound) conclude(ctx context.Context) error {
	if r.round.Packets == 0 {
		if r.round.Windows > 0 {
			r.raw.Crowded++
		}
		r.stacks.drop()
		return nil
	}
	if len(r.sampled) > 0 && len(r.plain) > 0 {
		r.round.SampledNs, r.round.PlainNs = rounds.QuickHalf(r.sampled), rounds.QuickHalf(r.plain)
	}
	if len(r.windows) > 0 {
		r.round.Undisturbed = rounds.Undisturbed(r.windows)
	}
	// A sample of the clock stands for its period. One of cycles stands for its
	// share of the time.
	scale := func(kept float64) float64 {
		if r.raw.Event == perf.Clock || kept == 0 {
			return 1
		}
		return r.round.Ns / kept
	}
	r.round.Events = make(map[string]float64)
	for name, each := range r.events {
		r.round.Events[name] = max(stat.Median(each), 0) // a rare one may be in the short slots alone
	}
	tested, _, _ := r.chain.Devices()
	return r.lab.Do(func() error { return r.end(ctx, r.round, scale, tested) })
}

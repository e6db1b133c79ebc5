package redirect

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// Raw is what a run measured.
type Raw struct {
	Rows []RawRow
	// CPU is the core under test.
	CPU int
	// References are what fixed work took on that core in the same rounds.
	References []record.Reference
	// Outside says that a target was called from outside the BPF dispatcher; else it is empty.
	Outside string
	rounds.Outcome
}

// RawRow is what a run measured of one row. Slices have one element for each round in which the row had a number.
type RawRow struct {
	Row
	// Rounds are the numbers of those rounds, from 0.
	Rounds []int
	// NsPerFrame is the time of the whole chain in ns per frame.
	NsPerFrame []float64
	// Disturbed is how much longer the middle window took than NsPerFrame says, as a share.
	Disturbed []float64
	// Hop is NsPerFrame less that of the chain without the redirect.
	Hop []float64
	// FramesPerXmit is frames per ndo_xdp_xmit call, with its own rounds: it is counted apart from the time.
	FramesPerXmit []float64
	// CountingCost is the time that counting and time stamps add, in ns per frame. It is taken of the last row only.
	CountingCost []float64
	// Counts are frames over all slots.
	Counts rounds.Counts
	Slots  rounds.Slots
	// Verdicts are frames by what a target said of them.
	Verdicts netlab.XDPCounts
	// Tries is how often the generator ran for a frame it sent: 1 when it never had to wait.
	Tries float64
	// Failure is what the kernel's tracepoints said of failing redirects.
	Failure string
}

// Run measures a plan. When ctx ends it returns what it has, with Incomplete set and no error.
//
// It returns a [feature.Missing] without root, BTF or live frames. Requires at least Linux 5.18.
func Run(ctx context.Context, plan Plan, show func(rounds.Progress)) (raw *Raw, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	cpus, err := pickCores(plan.CPU, plan.Layout)
	if err != nil {
		return nil, err
	}
	if err := Probe(ctx); err != nil {
		return nil, err
	}
	if slices.Contains(plan.Scenarios, CPU) && cpus.other == cpus.tested {
		return nil, &feature.Missing{Feature: "a second CPU", Help: "redirect-cpu hands frames to it"}
	}
	r := &run{plan: plan, cpus: cpus, raw: &Raw{CPU: cpus.tested}}
	open := reference.Open
	if plan.Sparing {
		open = reference.OpenSparing
	}
	if r.references, err = open(cpus.tested); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.references.Close()) }()
	defer func() {
		if r.kept != nil {
			err = errors.Join(err, r.kept.Close())
		}
	}()
	for _, row := range plan.Rows() {
		r.raw.Rows = append(r.raw.Rows, RawRow{Row: row})
	}
	r.raw.Outcome, err = plan.Schedule.Run(ctx, show, func(round rounds.Round) error { return r.round(ctx, round) })
	if err != nil {
		return nil, err
	}
	r.raw.References = r.references.Record()
	return r.raw, nil
}

// run is a run under way.
type run struct {
	plan Plan
	cpus cores
	raw  *Raw
	// references are timed between slots.
	references *reference.Watch
	// kept is what all rounds of a sparing run share; nil before the first.
	kept *standing
}

// standing is what a round has built, and where.
type standing struct {
	*built
	namespace *netlab.Namespace
}

// Close unloads the chains, and gives the namespace up.
func (s *standing) Close() error { return errors.Join(s.built.Close(), s.namespace.Close()) }

// stand builds what a round measures. A sparing run builds once: whenever code changes, the kernel interrupts all CPUs.
func (r *run) stand(ctx context.Context) (*standing, error) {
	if r.kept != nil {
		for _, m := range r.kept.measurements {
			m.renew()
		}
		return r.kept, nil
	}
	namespace, err := netlab.New(r.cpus.generator)
	if err != nil {
		return nil, err
	}
	b, err := r.build(ctx, namespace)
	s := &standing{b, namespace}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if r.plan.Sparing {
		r.kept = s
	}
	return s, nil
}

// round builds everything, measures until the round ends, and adds one number to each row.
func (r *run) round(ctx context.Context, round rounds.Round) (err error) {
	end := round.End()
	r.references.Begin(round.Number)
	b, err := r.stand(ctx)
	if err != nil {
		return err
	}
	if r.kept == nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	// Also when ctx ends the round: a row says then that no round was finished.
	defer func() { b.count(r.raw.Rows) }()
	for _, m := range b.measurements {
		if err := m.warmUp(ctx); err != nil {
			return err
		}
	}
	if b.counted != nil {
		// Equal slots: each call has a part that is not the frames'.
		b.uncounted.windows = b.counted.windows
	}
	if t := r.plan.Target; t != nil && round.Number == 0 {
		if r.raw.Outside, err = t.outside(b.measurements[0].chain.programs.Tested); err != nil {
			return err
		}
	}
	if err := r.watch(ctx, b.built); err != nil {
		return err
	}
	for pass := 0; pass == 0 || time.Now().Before(end); pass++ {
		// A new order each pass: what ran before must not always be the same.
		for _, i := range rand.Perm(len(b.measurements)) {
			if i < len(r.raw.Rows) {
				round.Show(r.raw.Rows[i].Name())
			}
			if err := r.references.Sample(); err != nil {
				return err
			}
			if err := b.measurements[i].Slot(ctx); err != nil {
				return err
			}
		}
	}
	r.references.End()
	b.conclude(round.Number, r.raw.Rows)
	return nil
}

// built is what one round has built.
type built struct {
	chains []*Chain
	// measurements has one for each row, then those of the chains without the redirect, then uncounted.
	measurements []*Measurement
	// without has, for each row, the measurement without the redirect, or nil.
	without []*Measurement
	// counted is the last row's, uncounted the same with nothing counted. Both are nil when the chain cannot do without
	// counting.
	counted, uncounted *Measurement
}

// build builds the plan's chains and their measurements.
func (r *run) build(ctx context.Context, namespace *netlab.Namespace) (*built, error) {
	b := &built{}
	if r.plan.Sparing {
		return b, r.buildTwins(ctx, namespace, b)
	}
	add := func(spec ChainSpec, v variant) (*Chain, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := build(ctx, namespace, len(b.chains), spec, r.cpus, v)
		if err == nil {
			b.chains = append(b.chains, c)
		}
		return c, err
	}

	chains := map[ChainSpec]*Chain{}
	specs := r.plan.chains()
	// A new order each round, so that no row always gets the same place in memory or in the dispatcher's tree.
	for _, i := range rand.Perm(len(specs)) {
		c, err := add(specs[i], counting)
		if err != nil {
			return b, err
		}
		chains[specs[i]] = c
	}
	if err := b.measure(chains, r.raw.Rows); err != nil {
		return b, err
	}

	last := r.raw.Rows[len(r.raw.Rows)-1].Row
	if last.paced() || last.Target != nil { // a target's maps lead to one chain
		return b, nil
	}
	c, err := add(last.ChainSpec, uncounted)
	if err != nil {
		return b, err
	}
	b.counted = b.measurements[len(r.raw.Rows)-1]
	if b.uncounted, err = newMeasurement(c, last.Bulk); err != nil {
		return b, err
	}
	b.measurements = append(b.measurements, b.uncounted)
	return b, nil
}

// measure makes the measurements of rows, and those without the redirect that they need.
func (b *built) measure(chains map[ChainSpec]*Chain, rows []RawRow) error {
	measurements := map[Row]*Measurement{}
	add := func(row Row) (err error) {
		if measurements[row] == nil {
			if measurements[row], err = newMeasurement(chains[row.ChainSpec], row.Bulk); err != nil {
				return err
			}
			b.measurements = append(b.measurements, measurements[row])
		}
		return nil
	}
	for _, row := range rows {
		if err := add(row.Row); err != nil {
			return err
		}
	}
	b.without = make([]*Measurement, len(rows))
	for i, row := range rows {
		if !row.hasHop() {
			continue
		}
		without := Row{row.without(), row.Bulk}
		if err := add(without); err != nil {
			return err
		}
		b.without[i] = measurements[without]
	}
	return nil
}

// count adds the round's counts to the rows.
func (b *built) count(rows []RawRow) {
	for i := range rows {
		m := b.measurements[i]
		rows[i].Counts.Add(m.counts)
		rows[i].Verdicts = rows[i].Verdicts.Plus(m.verdicts)
		rows[i].Slots.All += m.slots.All
		rows[i].Slots.Bad += m.slots.Bad
		rows[i].Tries = m.tries
	}
}

// conclude adds the numbers of the n-th round to the rows.
func (b *built) conclude(n int, rows []RawRow) {
	for i, without := range b.without {
		m, row := b.measurements[i], &rows[i]
		if len(m.ns) == 0 {
			continue
		}
		ns := rounds.Undisturbed(m.ns)
		row.Rounds = append(row.Rounds, n)
		row.NsPerFrame = append(row.NsPerFrame, ns)
		row.Disturbed = append(row.Disturbed, stat.Median(m.ns)/ns-1)
		if without == nil {
			continue
		}
		// A chain that drops and whose counts disagree is no basis for a price.
		if base, err := without.Ns(); err == nil {
			row.Hop = append(row.Hop, ns-base)
		}
	}
	if b.counted != nil {
		last := &rows[len(rows)-1]
		last.CountingCost = append(last.CountingCost, rounds.QuickHalf(b.counted.whole)-rounds.QuickHalf(b.uncounted.whole))
	}
}

// Close unloads the chains.
func (b *built) Close() error {
	var errs []error
	for _, c := range b.chains {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// watch runs one slot of each row under the tracepoints, for which all redirects of the machine pay: a sparing run does not.
func (r *run) watch(ctx context.Context, b *built) error {
	if r.plan.Sparing {
		return nil
	}
	for i := range r.raw.Rows {
		if err := r.raw.Rows[i].watch(ctx, b.measurements[i]); err != nil {
			return err
		}
	}
	return nil
}

// watch runs one slot of the row under the tracepoints.
func (row *RawRow) watch(ctx context.Context, m *Measurement) error {
	seen, _, err := m.watch(ctx, 0)
	if err != nil {
		return err
	}
	if seen.Calls > 0 {
		row.FramesPerXmit = append(row.FramesPerXmit, float64(seen.Frames)/float64(seen.Calls))
	}
	if text := seen.Failure(); text != "" {
		row.Failure = text
	}
	return nil
}

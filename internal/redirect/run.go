package redirect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/traffic"
)

// windowFrames is the least distance of two time stamps, in frames. At a
// taken time of some 30 ns a stamp costs the average frame 0.03 ns.
const windowFrames = 1024

// slotTime is what a slot should take: long against the call that starts it,
// short against the machine's moods.
const slotTime = 3 * time.Millisecond

// Raw is what a run measured.
type Raw struct {
	Rows []RawRow
	// CPU is the core under test.
	CPU int
	rounds.Outcome
}

// RawRow is what a run measured of one row. Slices have one element a round
// in which the row had a number.
type RawRow struct {
	Row
	// Rounds are the numbers of those rounds, from 0.
	Rounds []int
	// NsPerFrame is the time of the whole chain in ns per frame.
	NsPerFrame []float64
	// Disturbed is how much longer the middle window took than NsPerFrame
	// says, as a share.
	Disturbed []float64
	// Hop is NsPerFrame less that of the chain without the redirect hop.
	Hop []float64
	// FramesPerXmit is frames per ndo_xdp_xmit call, with its own rounds:
	// it is counted apart from the time.
	FramesPerXmit []float64
	// Observer is the time that counting and time stamps add, in ns per
	// frame. It is taken on the last row only.
	Observer []float64
	// Counts are frames over all slots.
	Counts rounds.Counts
	Slots  rounds.Slots
	// Tries is how often the generator ran for a frame it sent: 1 when it
	// never had to wait.
	Tries float64
	// Failure is what the kernel's tracepoints said of failing redirects.
	Failure string
}

// Run measures a plan. When ctx ends it returns what it has, with Incomplete
// set and no error.
//
// It returns a [feature.Missing] without root, BTF or live frames. Requires
// at least Linux 5.18.
func Run(ctx context.Context, plan Plan, show func(rounds.Progress)) (*Raw, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	cpus, err := pickCores(plan.CPU, plan.Place)
	if err != nil {
		return nil, err
	}
	if err := Probe(ctx); err != nil {
		return nil, err
	}
	if slices.Contains(plan.Scenarios, CPU) && cpus.other == cpus.tested {
		return nil, &feature.Missing{Feature: "a second CPU", Help: "redirect-cpu hands frames to it"}
	}
	b := &bench{plan: plan, cpus: cpus, raw: &Raw{CPU: cpus.tested}}
	for _, row := range plan.Rows() {
		b.raw.Rows = append(b.raw.Rows, RawRow{Row: row})
	}
	b.raw.Outcome, err = plan.Schedule.Run(ctx, show, func(r rounds.Round) error { return b.round(ctx, r) })
	if err != nil {
		return nil, err
	}
	return b.raw, nil
}

type bench struct {
	plan Plan
	cpus cores
	raw  *Raw
}

// arm is one thing measured in a round: a row, or the chain without the hop
// at a row's bulk.
type arm struct {
	rig     *rig
	live    traffic.Live
	window  int // frames
	windows int // a slot
	// tries is how often the generator runs for a frame that it sends: more
	// than once where it waits for room.
	tries float64
	// ns holds the time of each good window, in ns per frame.
	ns []float64
	// whole holds the kernel's time of each slot, in whole ns per frame.
	whole []float64
	// unsettled is set while frames of a slot may still be under way.
	unsettled bool
	// row is where counts go; nil for a chain without the hop.
	row *RawRow
}

// round builds everything, measures until the round ends, and adds one number
// to each row.
func (b *bench) round(ctx context.Context, round rounds.Round) (err error) {
	end := round.End()
	lab, err := netlab.New(b.cpus.generator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	s, err := b.assemble(ctx, lab)
	defer func() { err = errors.Join(err, s.Close()) }()
	if err != nil {
		return err
	}
	for _, a := range s.arms {
		if err := a.warmUp(ctx); err != nil {
			return err
		}
	}
	if s.counted != nil {
		// Equal slots: each call has a part that is not the frames'.
		s.uncounted.windows = s.counted.windows
	}
	for i := range b.raw.Rows {
		if err := watch(ctx, lab, s.arms[i]); err != nil {
			return err
		}
	}
	for pass := 0; pass == 0 || time.Now().Before(end); pass++ {
		// A new order each pass: what ran before must not always be the same.
		for _, i := range rand.Perm(len(s.arms)) {
			a := s.arms[i]
			if a.row != nil {
				round.Show(a.row.Name())
			}
			if err := a.slot(ctx); err != nil {
				return err
			}
		}
	}
	s.conclude(round.Number)
	return nil
}

// setup is what one round measures.
type setup struct {
	rigs []*rig
	// arms has one arm a row, then those of the chains without the hop, then
	// uncounted.
	arms []*arm
	// without has, for each row, the arm without the hop, or nil.
	without []*arm
	// counted is the last row's arm, uncounted the same with nothing
	// counted. Both are nil when the chain cannot do without counting.
	counted, uncounted *arm
}

// assemble builds the plan's chains and the arms that run on them.
func (b *bench) assemble(ctx context.Context, lab *netlab.Namespace) (*setup, error) {
	s := &setup{without: make([]*arm, len(b.raw.Rows))}
	add := func(spec chainSpec, uncounted bool) (*rig, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := build(lab, len(s.rigs), spec, b.cpus, extras{uncounted: uncounted})
		if err == nil {
			s.rigs = append(s.rigs, r)
		}
		return r, err
	}

	rigs := map[chainSpec]*rig{}
	specs := b.plan.chains()
	// A new order each round, so that no row always gets the same place in
	// memory or in the dispatcher's tree.
	for _, i := range rand.Perm(len(specs)) {
		r, err := add(specs[i], false)
		if err != nil {
			return s, err
		}
		rigs[specs[i]] = r
	}

	arms := map[Row]*arm{}
	for i := range b.raw.Rows {
		row := &b.raw.Rows[i]
		a, err := newArm(rigs[row.chainSpec], row.Bulk, row)
		if err != nil {
			return s, err
		}
		arms[row.Row] = a
		s.arms = append(s.arms, a)
	}
	for i := range b.raw.Rows {
		r := b.raw.Rows[i].Row
		if !r.hasHop() {
			continue
		}
		r.chainSpec = r.without()
		if arms[r] == nil {
			a, err := newArm(rigs[r.chainSpec], r.Bulk, nil)
			if err != nil {
				return s, err
			}
			arms[r] = a
			s.arms = append(s.arms, a)
		}
		s.without[i] = arms[r]
	}

	last := &b.raw.Rows[len(b.raw.Rows)-1]
	if last.paced() {
		return s, nil
	}
	r, err := add(last.chainSpec, true)
	if err != nil {
		return s, err
	}
	s.counted = arms[last.Row]
	if s.uncounted, err = newArm(r, last.Bulk, nil); err != nil {
		return s, err
	}
	s.arms = append(s.arms, s.uncounted)
	return s, nil
}

// conclude adds round n's numbers to the rows.
func (s *setup) conclude(n int) {
	for i, without := range s.without {
		a := s.arms[i]
		if len(a.ns) == 0 {
			continue
		}
		ns := rounds.Undisturbed(a.ns)
		a.row.Rounds = append(a.row.Rounds, n)
		a.row.NsPerFrame = append(a.row.NsPerFrame, ns)
		a.row.Disturbed = append(a.row.Disturbed, stat.Median(a.ns)/ns-1)
		if without != nil && len(without.ns) > 0 {
			a.row.Hop = append(a.row.Hop, ns-rounds.Undisturbed(without.ns))
		}
	}
	if s.counted != nil {
		price := rounds.QuickHalf(s.counted.whole) - rounds.QuickHalf(s.uncounted.whole)
		s.counted.row.Observer = append(s.counted.row.Observer, price)
	}
}

// Close unloads the chains.
func (s *setup) Close() error {
	var errs []error
	for _, r := range s.rigs {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func newArm(r *rig, bulk int, row *RawRow) (*arm, error) {
	frame, err := r.frame()
	if err != nil {
		return nil, err
	}
	a := &arm{
		rig:     r,
		live:    traffic.Live{Program: r.progs.Generate, Frame: frame, Batch: bulk},
		windows: 4,
		tries:   1,
		row:     row,
	}
	a.setWindow(windowFrames)
	return a, nil
}

// setWindow makes windows of at least frames frames: of whole batches, so that a window
// holds all of its frames' ways.
func (a *arm) setWindow(frames int) {
	a.window = (frames + a.live.Batch - 1) / a.live.Batch * a.live.Batch
}

// warmUp sends one slot that is thrown away and sets the slot's length by it.
func (a *arm) warmUp(ctx context.Context) error {
	s, _, err := a.send(ctx)
	if err != nil {
		return err
	}
	if s.Sent > 0 {
		a.tries = min(float64((a.windows+2)*a.window)/float64(s.Sent), 64)
		if a.row != nil {
			a.row.Tries = a.tries
		}
	}
	if n := len(s.Stamps); n >= 2 && s.Stamps[n-1] > s.Stamps[n-2] {
		perWindow := time.Duration(s.Stamps[n-1] - s.Stamps[n-2])
		a.windows = min(max(int(slotTime/perWindow), 3), chain.MaxWindows-2, a.rig.capacity()/a.window-3)
	}
	return nil
}

// send runs one slot and returns its counts, and the kernel's own figure of
// its time in ns per frame. The first window warms the page pool and the
// caches; the last only ends the one before. A slot that a signal broke off is
// run again.
func (a *arm) send(ctx context.Context) (s chain.State, ns float64, err error) {
	for try := 0; ; try++ {
		s, ns, err = a.sendOnce(ctx)
		if try == 3 || !errors.Is(err, unix.EINTR) {
			return s, ns, err
		}
	}
}

func (a *arm) sendOnce(ctx context.Context) (s chain.State, ns float64, err error) {
	if a.unsettled {
		if _, err := a.rig.settle(ctx); err != nil {
			return s, 0, err
		}
	}
	if err := a.rig.reset(a.window); err != nil {
		return s, 0, err
	}
	a.unsettled = true
	frames := int(float64((a.windows+2)*a.window) * a.tries)
	err = a.rig.lab.Do(func() error {
		d, err := a.live.Send(ctx, frames)
		ns = float64(d)
		return err
	})
	if err != nil {
		return s, 0, err
	}
	s, err = a.rig.settle(ctx)
	a.unsettled = err != nil
	return s, ns, err
}

// slot measures once.
func (a *arm) slot(ctx context.Context) error {
	s, ns, err := a.send(ctx)
	if err != nil {
		return err
	}
	a.whole = append(a.whole, ns)
	if !a.rig.counted {
		return nil
	}
	if !a.count(s) {
		return nil
	}
	for i := 2; i < len(s.Stamps); i++ {
		a.ns = append(a.ns, float64(s.Stamps[i]-s.Stamps[i-1])/float64(a.window))
	}
	return nil
}

func counts(s chain.State) rounds.Counts {
	return rounds.Counts{Sent: s.Sent, Redirected: s.Tested, Received: s.Received}
}

// count adds a slot's counts to the row and tells whether they agree.
func (a *arm) count(s chain.State) (good bool) {
	c := counts(s)
	good = c.Agree(a.rig.spec.Scenario.copies())
	if a.row != nil {
		a.row.Counts.Add(c)
		a.row.Slots.Add(good)
	}
	return good
}

// watch runs one slot of a row under the tracepoints.
func watch(ctx context.Context, lab *netlab.Namespace, a *arm) (err error) {
	o, err := observe.New(observe.Config{Netns: lab.Inode, From: a.rig.tested})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if _, _, err := a.send(ctx); err != nil {
		return err
	}
	seen, err := o.Seen()
	if err != nil {
		return err
	}
	if seen.Calls > 0 {
		a.row.FramesPerXmit = append(a.row.FramesPerXmit, float64(seen.Frames)/float64(seen.Calls))
	}
	switch {
	case seen.Errors > 0:
		a.row.Failure = fmt.Sprintf("xdp_do_redirect failed %d times: %v", seen.Errors, seen.Error)
	case seen.Drops > 0 && seen.XmitError != 0:
		a.row.Failure = fmt.Sprintf("ndo_xdp_xmit refused %d frames: %v", seen.Drops, seen.XmitError)
	case seen.Drops > 0:
		a.row.Failure = fmt.Sprintf("ndo_xdp_xmit refused %d frames", seen.Drops)
	}
	return nil
}

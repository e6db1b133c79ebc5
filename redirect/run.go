package redirect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"unthunk/internal/bpf/chain"
	"unthunk/internal/bpf/observe"
	"unthunk/netlab"
	"unthunk/stat"
	"unthunk/traffic"
)

// windowFrames is the least distance of two time stamps, in frames. At a
// taken time of some 30 ns a stamp costs the average frame 0.03 ns.
const windowFrames = 1024

// slotTime is what a slot should take: long against the call that starts it,
// short against the machine's moods.
const slotTime = 3 * time.Millisecond

// Progress is where a run stands.
type Progress struct {
	Round, Rounds int
	// Row is what is being measured.
	Row string
	// Left is the time left.
	Left time.Duration
}

// Raw is what a run measured.
type Raw struct {
	Rows []RawRow
	// Rounds is how many rounds were begun.
	Rounds int
	// Incomplete is set when ctx ended the run.
	Incomplete bool
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
	Sent, Tested, Received uint64
	// Slots is how many slots ran, BadSlots in how many the counts
	// disagreed.
	Slots, BadSlots int
	// Failure is what the kernel's tracepoints said of failing redirects.
	Failure string
}

// Run measures a plan. When ctx ends it returns what it has, with Incomplete
// set and no error.
//
// It returns a [feature.Missing] without root, BTF or live frames. Requires
// at least Linux 5.18.
func Run(ctx context.Context, plan Plan, progress func(Progress)) (*Raw, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	cpus, err := pickCores(plan.CPU, plan.Place)
	if err != nil {
		return nil, err
	}
	if err := probe(); err != nil {
		return nil, err
	}
	b := &bench{plan: plan, cpus: cpus, progress: progress, raw: &Raw{}}
	for _, row := range plan.Rows() {
		b.raw.Rows = append(b.raw.Rows, RawRow{Row: row})
	}
	if b.progress == nil {
		b.progress = func(Progress) {}
	}
	b.end = time.Now().Add(plan.Duration)
	for n := range plan.Rounds {
		b.raw.Rounds = n + 1
		roundEnd := time.Now().Add(time.Until(b.end) / time.Duration(plan.Rounds-n))
		if err := b.round(ctx, n, roundEnd); err != nil {
			if ctx.Err() != nil {
				b.raw.Incomplete = true
				return b.raw, nil
			}
			return nil, err
		}
	}
	return b.raw, nil
}

type bench struct {
	plan     Plan
	cpus     cores
	progress func(Progress)
	raw      *Raw
	end      time.Time
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
	// whole holds the kernel's time of each slot, in ns per frame.
	whole []float64
	// row is where counts go; nil for a chain without the hop.
	row *RawRow
}

// undisturbed is a round's one number: the 10th percentile of its windows.
// What disturbs a window, an interrupt, another guest, a colder cache, makes
// it longer, never shorter. On a shared machine medians of a round scattered
// by 8 % from round to round, 10th percentiles by 1.3 %.
func undisturbed(windows []float64) float64 { return stat.Quantile(windows, 0.1) }

func (b *bench) round(ctx context.Context, n int, end time.Time) (err error) {
	lab, err := netlab.New(b.cpus.generator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()

	rigs := map[chainSpec]*rig{}
	specs := b.plan.chains()
	// A new order each round, so that no row always gets the same place in
	// memory or in the dispatcher's tree.
	for i, at := range rand.Perm(len(specs)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := build(lab, i, specs[at], b.cpus, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		rigs[specs[at]] = r
	}
	bare, err := build(lab, len(specs), b.raw.Rows[len(b.raw.Rows)-1].chainSpec, b.cpus, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()

	arms, without, err := b.arms(rigs)
	if err != nil {
		return err
	}
	counted := arms[len(b.raw.Rows)-1]
	uncounted, err := newArm(bare, counted.live.Batch)
	if err != nil {
		return err
	}
	arms = append(arms, uncounted)
	for _, a := range arms {
		if err := a.warmUp(ctx); err != nil {
			return err
		}
	}
	uncounted.windows = counted.windows
	for i := range b.raw.Rows {
		if err := b.watch(ctx, lab, arms[i]); err != nil {
			return err
		}
	}
	for pass := 0; pass == 0 || time.Now().Before(end); pass++ {
		// A new order each pass: what ran before must not always be the same.
		for _, i := range rand.Perm(len(arms)) {
			a := arms[i]
			if a.row != nil {
				b.progress(Progress{Round: n + 1, Rounds: b.plan.Rounds, Row: a.row.Name(), Left: max(0, time.Until(b.end))})
			}
			if err := a.slot(ctx); err != nil {
				return err
			}
		}
	}

	for i := range b.raw.Rows {
		row, a := &b.raw.Rows[i], arms[i]
		if len(a.ns) == 0 {
			continue
		}
		row.Rounds = append(row.Rounds, n)
		ns := undisturbed(a.ns)
		row.NsPerFrame = append(row.NsPerFrame, ns)
		row.Disturbed = append(row.Disturbed, stat.Median(a.ns)/ns-1)
		if w := without[i]; w != nil && len(w.ns) > 0 {
			row.Hop = append(row.Hop, ns-undisturbed(w.ns))
		}
	}
	last := &b.raw.Rows[len(b.raw.Rows)-1]
	last.Observer = append(last.Observer, undisturbed(counted.whole)-undisturbed(uncounted.whole))
	return nil
}

// arms returns one arm a row, then those of the chains without the hop, and
// for each row which of these is its own.
func (b *bench) arms(rigs map[chainSpec]*rig) (arms, without []*arm, err error) {
	byRow := map[Row]*arm{}
	add := func(r Row, raw *RawRow) error {
		a, err := newArm(rigs[r.chainSpec], r.Bulk)
		if err != nil {
			return err
		}
		a.row = raw
		byRow[r] = a
		arms = append(arms, a)
		return nil
	}
	for i := range b.raw.Rows {
		if err := add(b.raw.Rows[i].Row, &b.raw.Rows[i]); err != nil {
			return nil, nil, err
		}
	}
	without = make([]*arm, len(b.raw.Rows))
	for i := range b.raw.Rows {
		r := b.raw.Rows[i].Row
		if !r.Scenario.redirects() {
			continue
		}
		r.chainSpec = r.without()
		if byRow[r] == nil {
			if err := add(r, nil); err != nil {
				return nil, nil, err
			}
		}
		without[i] = byRow[r]
	}
	return arms, without, nil
}

func newArm(r *rig, bulk int) (*arm, error) {
	frame, err := r.frame()
	if err != nil {
		return nil, err
	}
	return &arm{
		rig:  r,
		live: traffic.Live{Program: r.progs.Generate, Frame: frame, Batch: bulk},
		// Whole batches, so that a window holds all of its frames' ways.
		window:  (windowFrames + bulk - 1) / bulk * bulk,
		windows: 4,
		tries:   1,
	}, nil
}

// warmUp sends one slot that is thrown away and sets the slot's length by it.
func (a *arm) warmUp(ctx context.Context) error {
	s, err := a.send(ctx)
	if err != nil {
		return err
	}
	a.whole = nil
	if s.Sent > 0 {
		a.tries = min(float64((a.windows+2)*a.window)/float64(s.Sent), 64)
	}
	if n := len(s.Stamps); n >= 2 && s.Stamps[n-1] > s.Stamps[n-2] {
		perWindow := time.Duration(s.Stamps[n-1] - s.Stamps[n-2])
		a.windows = min(max(int(slotTime/perWindow), 3), chain.MaxWindows-2, a.rig.capacity()/a.window-3)
	}
	return nil
}

// send runs one slot and returns its counts. The first window warms the
// page pool and the caches; one more frame ends the last. A slot that a
// signal broke off is run again.
func (a *arm) send(ctx context.Context) (s chain.State, err error) {
	for try := 0; ; try++ {
		s, err = a.sendOnce(ctx)
		if try == 3 || !errors.Is(err, unix.EINTR) {
			return s, err
		}
	}
}

func (a *arm) sendOnce(ctx context.Context) (s chain.State, err error) {
	if err := a.rig.reset(a.window); err != nil {
		return s, err
	}
	frames := int(float64((a.windows+2)*a.window) * a.tries)
	err = a.rig.lab.Do(func() error {
		d, err := a.live.Send(ctx, frames)
		a.whole = append(a.whole, float64(d))
		return err
	})
	if err != nil {
		return s, err
	}
	return a.rig.settle(ctx)
}

// slot measures once.
func (a *arm) slot(ctx context.Context) error {
	s, err := a.send(ctx)
	if err != nil {
		return err
	}
	if !a.rig.counted {
		return nil
	}
	good := s.Sent > 0 && s.Sent == s.Tested && s.Received == s.Tested*a.rig.spec.Scenario.copies()
	if a.row != nil {
		a.row.Sent += s.Sent
		a.row.Tested += s.Tested
		a.row.Received += s.Received
		a.row.Slots++
		if !good {
			a.row.BadSlots++
		}
	}
	if !good {
		return nil
	}
	for i := 2; i < len(s.Stamps); i++ {
		a.ns = append(a.ns, float64(s.Stamps[i]-s.Stamps[i-1])/float64(a.window))
	}
	return nil
}

// watch runs one slot of a row under the tracepoints.
func (b *bench) watch(ctx context.Context, lab *netlab.Namespace, a *arm) (err error) {
	o, err := observe.New(lab.Inode, a.rig.tested)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if _, err := a.send(ctx); err != nil {
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

package prog

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/stat"
)

const (
	// maxWindows is how many windows a call of the harness has room for, one of which ends it.
	maxWindows = 8192
	// firstGuess is about how long a run takes, in ns, before one was timed.
	firstGuess = 250
	// windowRuns is how many runs of a window are timed, in whole groups; warmRuns how many are not.
	windowRuns = 192
	warmRuns   = 64
	// callWaste is the part of a call that belongs to no run: the kernel swaps the BPF dispatcher and waits for RCU.
	callWaste = 24 * time.Millisecond
	// longestCall bounds a call, so that a signal is seen soon.
	longestCall  = 250 * time.Millisecond
	shortestCall = 20 * time.Millisecond
	// longWindow bounds a window of an expensive program, in ns, as far as its packets take one turn: the longer a window
	// the likelier something else has the CPU in it.
	longWindow = 150e3
	// coldLine is about how long a load takes that walks through memory, in ns, before one was timed.
	coldLine = 4
)

// Sample is what one round made of a row. Numbers are ns a packet; each is the mean over the packets of the row.
type Sample struct {
	// Null is a run of the null program, with all that the harness does around it.
	Null float64
	// Cost is by how much each program took longer.
	Cost []float64
	// Between is by how much the second program took longer than the first; 0 when there is one.
	Between float64
}

// Round measures each row once, in about the given time. Programs that can be are loaded anew. Windows of the
// null program and of the others alternate within one system call, in random order and with the same packets.
func (r *Replay) Round(ctx context.Context, length time.Duration) ([]Sample, error) {
	end := time.Now().Add(length)
	if err := r.renew(); err != nil {
		return nil, err
	}
	programs := 1 + len(r.programs)
	sums := make([]Sample, len(r.rows))
	for i := range sums {
		sums[i].Cost = make([]float64, len(r.programs))
	}
	// Each program stands at each site once.
	for n := range programs {
		share := time.Until(end) / time.Duration(programs-n)
		one := min(max(share-r.wasted(), shortestCall), longestCall)
		samples, err := r.measure(ctx, one)
		if err != nil {
			return nil, err
		}
		for i, s := range samples {
			sums[i].Null += s.Null / float64(programs)
			sums[i].Between += s.Between / float64(programs)
			for p := range s.Cost {
				sums[i].Cost[p] += s.Cost[p] / float64(programs)
			}
		}
	}
	return sums, nil
}

// renew loads the harness, and the programs that can be, to another place in memory.
func (r *Replay) renew() error {
	reloads := false
	for i, p := range r.programs {
		if p.Reload == nil {
			continue
		}
		reloads = true
		fresh, err := p.Reload()
		if err != nil {
			return err
		}
		old := r.fresh[i]
		r.fresh[i] = fresh
		if old != nil {
			if err := old.Close(); err != nil {
				return err
			}
		}
	}
	if !reloads {
		return nil
	}
	null, err := replay.Null(r.kind)
	if err != nil {
		return err
	}
	var old *ebpf.Program
	old, r.null = r.null, null
	return errors.Join(old.Close(), r.harness.Renew())
}

// cycle is the windows of one group of a row: one for each program, in some order.
type cycle struct {
	row, group int
	at         []int // the window of each program, the null program first
}

// measure is one call of the harness.
func (r *Replay) measure(ctx context.Context, length time.Duration) ([]Sample, error) {
	sites, err := r.place()
	if err != nil {
		return nil, err
	}
	windows, cycles := r.plan(sites, length)
	begun := time.Now()
	spans, err := r.runWindows(ctx, windows)
	if err != nil {
		return nil, err
	}
	took := time.Since(begun)
	if err := r.count(windows, spans, cycles); err != nil {
		return nil, err
	}
	samples := r.estimate(windows, spans, cycles)
	r.pace(windows, cycles, took)
	return samples, nil
}

// runWindows is a call of the harness that begins anew after a signal that is not for us.
func (r *Replay) runWindows(ctx context.Context, windows []replay.Window) ([]replay.Span, error) {
	for {
		spans, err := r.harness.Run(ctx, windows)
		if !errors.Is(err, unix.EINTR) {
			return spans, err
		}
	}
}

// plan fills a call with windows: rows and their groups take turns until the time is up.
func (r *Replay) plan(sites []uint32, length time.Duration) ([]replay.Window, []cycle) {
	var windows []replay.Window
	var cycles []cycle
	left := float64(length)
	for n := 0; n < len(r.rows) || left > 0; n++ {
		i := n % len(r.rows)
		row := &r.rows[i]
		times := 1
		if r.large() {
			times = len(row.groups)
		}
		for range times {
			if len(windows)+len(sites) >= maxWindows || left <= 0 && n >= len(r.rows) {
				return windows, cycles
			}
			c, some := r.cycle(i, sites, len(windows))
			for _, w := range some {
				left -= float64(w.Runs()) * r.paceOf(row)
			}
			windows, cycles = append(windows, some...), append(cycles, c)
		}
	}
	return windows, cycles
}

// cycle makes the windows of the next group of a row, in random order; the first will be window at.
func (r *Replay) cycle(i int, sites []uint32, at int) (cycle, []replay.Window) {
	row := &r.rows[i]
	g := row.next % len(row.groups)
	row.next++
	w := r.window(row, row.groups[g])
	c := cycle{row: i, group: g, at: make([]int, len(sites))}
	windows := make([]replay.Window, 0, len(sites))
	for _, p := range rand.Perm(len(sites)) {
		w.Site, w.Program = sites[p], uint32(p)
		c.at[p] = at + len(windows)
		windows = append(windows, w)
	}
	return c, windows
}

// window is one of a group: some runs to warm up, then the group as often as fits.
func (r *Replay) window(row *row, g group) replay.Window {
	w := replay.Window{First: uint32(g.first), Group: uint32(g.size)}
	if r.opts.Cold > 0 {
		w.First, w.Group = w.First+rand.Uint32N(w.Group), 1
		w.Timed, w.Walk = 1, true
		return w
	}
	if r.large() {
		// The runs that warm up are of the packets before.
		w.Warm = uint32(min(16, g.first-row.first))
		w.First, w.Group, w.Timed = w.First-w.Warm, w.Group+w.Warm, w.Group
		return w
	}
	runs := windowRuns
	if most := int(longWindow / row.ns); most < runs {
		runs = most
	}
	w.Warm = uint32(min(g.size, warmRuns))
	if g.size < 8 { // few packets: more than one turn, for branches to be learned
		w.Warm = 32
	}
	w.Timed = uint32(g.size * max(1, runs/g.size))
	return w
}

// pace learns from a call how long a run takes when it walks through memory, which its own time does not tell, and
// else how much of the call belonged to no run.
func (r *Replay) pace(windows []replay.Window, cycles []cycle, took time.Duration) {
	if r.opts.Cold > 0 {
		runs := 0
		for _, w := range windows {
			runs += w.Runs()
		}
		r.pacing = max(float64(took-callWaste), float64(time.Microsecond)) / float64(runs)
		return
	}
	ran := 0.0
	for _, c := range cycles {
		for _, at := range c.at {
			ran += float64(windows[at].Runs()) * r.rows[c.row].ns
		}
	}
	r.waste = min(max(took-time.Duration(ran), callWaste), 3*callWaste)
}

// wasted is about how much of the next call belongs to no run.
func (r *Replay) wasted() time.Duration { return max(r.waste, callWaste) }

// paceOf is how long a run of a row takes with all around it, in ns.
func (r *Replay) paceOf(row *row) float64 {
	switch {
	case r.opts.Cold == 0:
		return row.ns
	case r.pacing == 0:
		return float64(r.opts.Cold) / 64 * coldLine
	}
	return r.pacing
}

// count adds up what differed. A null program's packet that differs is the harness's own fault.
func (r *Replay) count(windows []replay.Window, spans []replay.Span, cycles []cycle) error {
	first := ""
	for _, c := range cycles {
		for p, at := range c.at {
			m := replay.Span(spans[at])
			wrong := m.Verdicts+m.Lengths+m.Lost > 0
			if wrong && first == "" {
				d, ok, err := r.harness.Differs()
				if err != nil {
					return err
				}
				if first = "a packet was not restored"; ok {
					first = describe(d)
				}
			}
			if p == 0 {
				if wrong {
					return errors.New("the harness does not restore packets: " + first)
				}
				continue
			}
			sum := &r.found[c.row][p-1]
			sum.Runs += uint64(windows[at].Runs())
			sum.Verdicts += uint64(m.Verdicts)
			sum.Lengths += uint64(m.Lengths)
			sum.Lost += uint64(m.Lost)
			if wrong && sum.First == "" {
				sum.First = first
			}
		}
	}
	return nil
}

// estimate makes one number for each row and program. Windows of one group are alike but for what disturbed them,
// so their middle half is averaged; groups are averaged by their sizes.
func (r *Replay) estimate(windows []replay.Window, spans []replay.Span, cycles []cycle) []Sample {
	type series struct {
		null, between []float64
		cost          [][]float64
	}
	ns := func(at int) float64 { return float64(spans[at].Ns) / float64(windows[at].Timed) }
	found := make([][]series, len(r.rows))
	for i := range r.rows {
		found[i] = make([]series, len(r.rows[i].groups))
	}
	disturbed := r.disturbed(cycles, ns)
	for n, c := range cycles {
		if disturbed[n] {
			continue
		}
		group := c.group
		if r.opts.Cold > 0 {
			group = 0
		}
		s := &found[c.row][group]
		if s.cost == nil {
			s.cost = make([][]float64, len(r.programs))
		}
		null := ns(c.at[0])
		s.null = append(s.null, null)
		for p := range r.programs {
			s.cost[p] = append(s.cost[p], ns(c.at[p+1])-null)
		}
		if len(r.programs) > 1 {
			s.between = append(s.between, ns(c.at[2])-ns(c.at[1]))
		}
	}
	samples := make([]Sample, len(r.rows))
	for i := range samples {
		sum, total := Sample{Cost: make([]float64, len(r.programs))}, 0.0
		for g, s := range found[i] {
			if len(s.null) == 0 {
				continue // the call ended before it
			}
			weight := float64(r.rows[i].groups[g].size)
			total += weight
			sum.Null += weight * middle(s.null)
			sum.Between += weight * middle(s.between)
			for p := range sum.Cost {
				sum.Cost[p] += weight * middle(s.cost[p])
			}
		}
		sum.Null /= total
		sum.Between /= total
		mean := sum.Null
		for p := range sum.Cost {
			sum.Cost[p] /= total
			mean += max(sum.Cost[p], 0) / float64(1+len(sum.Cost))
		}
		r.rows[i].ns = max(mean, 1)
		samples[i] = sum
	}
	return samples
}

// farOff is how many times the median of its row and program a window takes in which something else had the CPU. Groups
// of a row hold the same mix, so that their own times are much nearer to each other.
const farOff = 3

// disturbed tells of each cycle whether something else had the CPU in one of its windows.
func (r *Replay) disturbed(cycles []cycle, ns func(window int) float64) []bool {
	limits := make([][]float64, len(r.rows))
	for i := range limits {
		limits[i] = make([]float64, 1+len(r.programs))
		for p := range limits[i] {
			var all []float64
			for _, c := range cycles {
				if c.row == i {
					all = append(all, ns(c.at[p]))
				}
			}
			limits[i][p] = farOff * stat.Median(all)
		}
	}
	out := make([]bool, len(cycles))
	for n, c := range cycles {
		for p, at := range c.at {
			out[n] = out[n] || ns(at) > limits[c.row][p]
		}
	}
	return out
}

// middle is the mean of the middle half; 0 of nothing.
func middle(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(xs))
	s = s[len(s)/4 : len(s)-len(s)/4]
	sum := 0.0
	for _, x := range s {
		sum += x
	}
	return sum / float64(len(s))
}

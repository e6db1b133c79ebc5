package prog

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/verifier"
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
	// A call is cut that takes this much longer than so many times what was planned: what else runs on the CPU makes it
	// longer too.
	overdue   = time.Second
	lateTimes = 4
	// longWindow bounds a window of an expensive program, in ns, as far as its packets take one turn: the longer a window
	// the likelier something else has the CPU in it.
	longWindow = 150e3
	// coldLine is about how long a load takes that walks through memory, in ns, before one was timed.
	coldLine = 4
	// coldTurns is how many windows in a row a packet has of each program when caches are cold: more than one, so that
	// a packet that is slow is told from one beside which something else had the CPU.
	coldTurns = 2
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
	if err := r.renew(ctx); err != nil {
		return nil, err
	}
	programs := 1 + len(r.programs)
	sums := make([]Sample, r.wholes)
	for i := range sums {
		sums[i].Cost = make([]float64, len(r.programs))
	}
	calls := programs * len(r.shapes)
	// Each program stands at each site once.
	for range programs {
		sites, err := r.place()
		if err != nil {
			return nil, err
		}
		for _, shape := range r.shapes {
			share := time.Until(end) / time.Duration(calls)
			calls--
			one := min(max(share-r.wasted(), shortestCall), longestCall)
			samples, err := r.measure(ctx, sites, r.rowsOf(shape), one)
			if err != nil {
				return nil, err
			}
			for i, s := range samples {
				whole, weight := &sums[r.rows[i].whole], r.rows[i].share/float64(programs)
				whole.Null += weight * s.Null
				whole.Between += weight * s.Between
				for p := range s.Cost {
					whole.Cost[p] += weight * s.Cost[p]
				}
			}
		}
	}
	return sums, nil
}

// rowsOf are those whose packets have a shape: they have calls of their own.
func (r *Replay) rowsOf(s shape) (rows []int) {
	for i, row := range r.rows {
		if row.shape == s {
			rows = append(rows, i)
		}
	}
	return rows
}

// renew loads the harness, and the programs that can be, to another place in memory. It returns soon after ctx ends.
func (r *Replay) renew(ctx context.Context) error {
	reloads := false
	for i, p := range r.programs {
		if p.Reload == nil {
			continue
		}
		reloads = true
		fresh, err := verifier.Await(ctx, p.Reload)
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

// measure is one call of the harness. It is planned by how long runs took so far. A program that became slower, as one
// whose map filled up, can make minutes of it: a call that takes several times what was planned is cut, and planned anew
// by what its runs took. It returns the samples of the rows.
func (r *Replay) measure(ctx context.Context, sites []uint32, rows []int, length time.Duration) (map[int]Sample, error) {
	var err error
	var windows []replay.Window
	var cycles []cycle
	var spans []replay.Span
	var took time.Duration
	for {
		windows, cycles = r.plan(sites, rows, length)
		begun := time.Now()
		spans, err = r.runWindows(ctx, windows, overdue+lateTimes*r.planned(windows, cycles))
		took = time.Since(begun)
		late, ok := errors.AsType[*replay.TooLong](err)
		if !ok {
			break
		}
		r.slower(late)
	}
	if err != nil {
		return nil, err
	}
	if err := r.count(windows, spans, cycles); err != nil {
		return nil, err
	}
	samples := r.estimate(windows, spans, cycles, rows)
	r.pace(windows, cycles, took)
	return samples, nil
}

// planned is about how long the windows take.
func (r *Replay) planned(windows []replay.Window, cycles []cycle) time.Duration {
	ns := 0.0
	for _, c := range cycles {
		for _, at := range c.at {
			ns += float64(windows[at].Runs()) * r.paceOf(&r.rows[c.row])
		}
	}
	return time.Duration(min(ns, float64(time.Hour)))
}

// slower learns how long a run takes from a call that was cut: all rows are taken to be as slow, until they are measured.
func (r *Replay) slower(late *replay.TooLong) {
	real := float64(max(late.Took-callWaste, 0)) / float64(late.Runs+1)
	r.pacing = max(r.pacing, real)
	for i := range r.rows {
		r.rows[i].ns = max(r.rows[i].ns, real)
	}
}

// runWindows is a call of the harness that begins anew after a signal that is not for us. Longer than limit it does not
// take; 0 is for none.
func (r *Replay) runWindows(ctx context.Context, windows []replay.Window, limit time.Duration) ([]replay.Span, error) {
	for {
		spans, err := r.harness.Run(ctx, windows, limit)
		if !errors.Is(err, unix.EINTR) {
			return spans, err
		}
	}
}

// plan fills a call with windows: the rows and their groups take turns until the time is up. What takes its turns together
// is not parted.
func (r *Replay) plan(sites []uint32, rows []int, length time.Duration) ([]replay.Window, []cycle) {
	var windows []replay.Window
	var cycles []cycle
	left := float64(length)
	for n := 0; n < len(rows) || left > 0; n++ {
		i := rows[n%len(rows)]
		row := &r.rows[i]
		times, together := 1, 1
		switch {
		case r.opts.Cold > 0:
			times, together = coldTurns, coldTurns
		case r.large():
			times = len(row.groups)
		}
		for t := range times {
			full := len(windows)+together*len(sites) >= maxWindows || left <= 0 && n >= len(rows)
			if full && t%together == 0 {
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

// cycle makes the windows of the next group of a row, in random order; the first will be window at. With cold caches
// the packets take turns one by one, and each stands for a group.
func (r *Replay) cycle(i int, sites []uint32, at int) (cycle, []replay.Window) {
	row := &r.rows[i]
	c := cycle{row: i, at: make([]int, len(sites))}
	var w replay.Window
	if r.opts.Cold > 0 {
		c.group = row.coldPacket()
		w = replay.Window{First: uint32(row.first + c.group), Group: 1, Timed: 1, Walk: true}
	} else {
		c.group = row.next % len(row.groups)
		w = r.window(row, row.groups[c.group])
	}
	row.next++
	windows := make([]replay.Window, 0, len(sites))
	for _, p := range rand.Perm(len(sites)) {
		w.Site, w.Program = sites[p], uint32(p)
		c.at[p] = at + len(windows)
		windows = append(windows, w)
	}
	return c, windows
}

// coldPacket is which packet of the row is next. They are sorted by what comes out of them: steps of about the golden
// ratio of their number go through all of them, and a part of the way has near enough the mix of all.
func (row *row) coldPacket() int {
	step := max(1, int(math.Round(float64(row.count)*(math.Phi-1))))
	for !coprime(step, row.count) {
		step++
	}
	return row.next / coldTurns * step % row.count
}

func coprime(a, b int) bool {
	for b != 0 {
		a, b = b, a%b
	}
	return a == 1
}

// window is one of a group of hot packets: some runs to warm up, then the group as often as fits.
func (r *Replay) window(row *row, g group) replay.Window {
	w := replay.Window{First: uint32(g.first), Group: uint32(g.size)}
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
	if row.ns > longWindow { // a run is a window: none has to come before it
		w.Warm = 1
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
			sum := &r.found[r.rows[c.row].whole][p-1]
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

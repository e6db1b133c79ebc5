package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/traffic"
)

// trust is what was found out.
type trust struct {
	ns   float64 // of a packet at bulk 64
	turn float64 // of the loop that slows it, in ns
	// tallies are by situation; stages is that of profiles.
	tallies map[int]*tally
	stages  stages
}

// turnsFor is how many turns of the loop slow a packet by so many percent.
func (t *trust) turnsFor(percent float64) int { return int(math.Round(t.ns * percent / 100 / t.turn)) }

// tally counts the verdicts of a situation. Each try is one of called, moved, open and none.
type tally struct {
	tries int
	// called are those in which a row is called faster or slower, moved others in which the comparison says that the
	// machine changed, open others in which it cannot tell of a row, none the rest: no difference seen.
	called, moved, open, none int
	// faster and slower are those in which a row is called so, plain those that would have been called without the
	// references.
	faster, slower, plain int
	// found are differences of rows in percent without the references, seen what would have been seen of rows.
	found, seen []float64
}

// add judges a try of the i-th situation, and says what came of it.
func (t *trust) add(i int, one outcome) (said string, err error) {
	if situations()[i].profiles {
		return t.stages.add(one.runs[0].Profile(), one.runs[1].Profile()), nil
	}
	options := compare.Options{Threshold: compare.DefaultThreshold}
	var c *record.Comparison
	if len(one.runs) == 1 {
		c, err = compare.By(one.runs[0], "operation", options)
	} else {
		c, err = compare.Records(one.runs[0], one.runs[1], options)
	}
	if err != nil {
		return "", err
	}
	if t.tallies == nil {
		t.tallies = make(map[int]*tally)
	}
	if t.tallies[i] == nil {
		t.tallies[i] = &tally{}
	}
	return t.tallies[i].add(c), nil
}

// simulate judges what two runs would be in the situations that are simulated.
func (t *trust) simulate(p plan, one outcome) error {
	for i, s := range situations() {
		if !s.simulated() || !p.wants(s) {
			continue
		}
		changed, err := s.simulate(one)
		if err == nil {
			_, err = t.add(i, changed)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (t *tally) add(c *record.Comparison) (said string) {
	var rows []string
	says, plain := make(map[string]bool), false
	for _, row := range c.Rows {
		if row.Difference == nil { // such as one whose packet counts disagreed
			says[stat.CannotTell] = true
			rows = append(rows, row.Missing)
			continue
		}
		says[row.Outcome()] = true
		plain = plain || row.Difference.P <= stat.Alpha
		t.found, t.seen = append(t.found, row.Difference.Median), append(t.seen, row.Judged().Smallest)
		rows = append(rows, fmt.Sprintf("%+.1f %% %s", row.Difference.Median, row.Verdict))
	}
	count := func(n *int, when bool) bool {
		if when {
			*n++
		}
		return when
	}
	t.tries++
	count(&t.plain, plain)
	count(&t.faster, says[stat.Faster])
	count(&t.slower, says[stat.Slower])
	_ = count(&t.called, says[stat.Faster] || says[stat.Slower]) || count(&t.moved, c.MachineChanged()) ||
		count(&t.open, says[stat.CannotTell]) || count(&t.none, true)
	for _, m := range c.Machine {
		if m.Moved {
			rows = append(rows, fmt.Sprintf("%s %+.1f %%", m.Name, m.Difference.Median))
		}
	}
	return strings.Join(rows, "; ")
}

// write prints the table.
func (t *trust) write(w io.Writer) {
	if t.stages.tries > 0 {
		defer t.stages.write(w)
	}
	if len(t.tallies) == 0 {
		return
	}
	if t.ns > 0 {
		fmt.Fprintf(w, "%.1f ns a packet at bulk 64; a turn of the loop takes %.3f ns\n\n", t.ns, t.turn)
	}
	fmt.Fprintln(w, "| compared | tries | called faster | called slower | machine changed | cannot tell | "+
		"no difference seen | without references called | differences without references | would have seen |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	for i, s := range situations() {
		y := t.tallies[i]
		if y == nil {
			continue
		}
		found, seen := "–", "–"
		if len(y.found) > 0 {
			found = fmt.Sprintf("%+.1f … %+.1f %%", stat.Quantile(y.found, 0), stat.Quantile(y.found, 1))
			seen = fmt.Sprintf("%.1f %%", stat.Median(y.seen))
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %s | %s |\n", s.title(), y.tries, y.faster, y.slower, y.moved,
			y.open, y.none, y.plain, found, seen)
	}
}

// calibrate returns what one turn of the loop takes in ns, by itself in a program without a chain.
func calibrate(ctx context.Context) (turn float64, err error) {
	const many = 1000
	took, err := alone(ctx, many)
	if err == nil && took <= 0 {
		err = errors.New("a loop of 1000 turns takes no time")
	}
	return took / many, err
}

// alone is what turns of the loop add to the program, in ns: the smallest of interleaved runs of each, since whatever
// disturbs them only adds. The time is the kernel's own, around the program: from outside, a run has waits for RCU in it,
// which are longer than the program's time.
func alone(ctx context.Context, turns int) (float64, error) {
	// Some 0.2 ms fit between two turns of other tasks.
	const repeat, tries = 512, 31
	frame, err := traffic.UDPFrame(redirect.DefaultSize)
	if err != nil {
		return 0, err
	}
	best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	var programs [2]*chain.Programs
	for i, spins := range []int{0, turns} {
		p, err := chain.Load(chain.Config{Program: "drop", Operation: chain.Spin, Spins: uint32(spins), Uncounted: true})
		if err != nil {
			return 0, err
		}
		defer p.Close()
		programs[i] = p
	}
	for range tries {
		for i, p := range programs {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			_, took, err := p.Tested.Benchmark(frame, repeat, nil)
			if err != nil {
				return 0, fmt.Errorf("run program: %w", err)
			}
			best[i] = min(best[i], took)
		}
	}
	return float64(best[1] - best[0]), nil
}

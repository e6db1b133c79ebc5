// Command trust finds out how far the verdicts of unthunk can be trusted on
// this machine. It needs root and prints a table for docs/method.md.
//
// It compares the redirect-map chain at bulk 64 with itself (an A/A
// comparison) and with itself slowed by a known share: a loop in the program
// whose cost is measured by itself, outside the chain. Each try is a run of
// its own, compared as `unthunk compare FILE --by operation` would. Runs that
// follow each other are also compared as two files would be, unpaired.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/traffic"
)

func main() {
	var p plan
	flag.IntVar(&p.tries, "tries", 20, "tries of both comparisons")
	flag.IntVar(&p.more, "more", 20, "further tries of the A/A comparison alone")
	flag.DurationVar(&p.duration, "duration", time.Minute, "length of a try of both")
	flag.DurationVar(&p.short, "short", 20*time.Second, "length of a try of A/A alone")
	flag.Float64Var(&p.slow, "slow", 3, "the slowdown in percent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t, err := p.run(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		os.Exit(1)
	}
	t.write(os.Stdout)
}

// plan is what to find out.
type plan struct {
	// tries of both comparisons, and more of the A/A comparison alone.
	tries, more     int
	duration, short time.Duration
	slow            float64 // percent
}

// trust is what was found out.
type trust struct {
	plan  plan
	ns    float64 // of a packet
	turns int     // of the loop that slows it
	cost  float64 // of these by themselves, in ns

	same, slower, apart tally
}

// tally counts the verdicts of one comparison.
type tally struct {
	tries, called int
	sizes, seen   []float64
}

func (t *tally) add(d *stat.Difference, verdict string, want ...string) {
	t.tries++
	for _, w := range want {
		if verdict == w {
			t.called++
		}
	}
	t.sizes = append(t.sizes, d.Median)
	t.seen = append(t.seen, d.Smallest)
}

// write prints the table.
func (t *trust) write(w io.Writer) {
	fmt.Fprintf(w, "chain: %.1f ns per packet; spin:%d by itself: %.2f ns = %.2f %%\n\n",
		t.ns, t.turns, t.cost, 100*t.cost/t.ns)
	fmt.Fprintln(w, "| comparison | tries | difference called | median found | all found | would have seen |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, row := range []struct {
		name string
		tally
	}{
		{"A/A, one run", t.same},
		{fmt.Sprintf("%.2f %% slower, one run of %v", 100*t.cost/t.ns, t.plan.duration), t.slower},
		{"A/A, two runs after each other", t.apart},
	} {
		if row.tries > 0 {
			fmt.Fprintf(w, "| %s | %d | %d | %+.2f %% | %+.2f … %+.2f %% | %.2f %% |\n", row.name, row.tries, row.called,
				stat.Median(row.sizes), stat.Quantile(row.sizes, 0), stat.Quantile(row.sizes, 1), stat.Median(row.seen))
		}
	}
}

// run makes all tries, and writes a line for each comparison.
func (p plan) run(ctx context.Context, progress io.Writer) (*trust, error) {
	base, err := measure(ctx, min(10*time.Second, p.duration), "none")
	if err != nil {
		return nil, err
	}
	t := &trust{plan: p, ns: base.Rows[0].Ns.Median}
	if t.turns, t.cost, err = calibrate(ctx, t.ns*p.slow/100); err != nil {
		return nil, err
	}
	last := base
	for n := range p.tries + p.more {
		d, operations := p.duration, []string{"none", "spin:0", fmt.Sprintf("spin:%d", t.turns)}
		if n >= p.tries {
			d, operations = p.short, operations[:2]
		}
		doc, err := measure(ctx, d, operations...)
		if err == nil {
			err = t.compare(last, doc, func(name string, c record.CompareRow) {
				d := c.Difference
				fmt.Fprintf(progress, "%d %s: %+.2f %% [%.2f, %.2f] %s\n", n+1, name, d.Median, d.Low, d.High, c.Verdict)
			})
		}
		if err != nil {
			return nil, fmt.Errorf("try %d: %w", n+1, err)
		}
		last = doc
	}
	return t, nil
}

// compare compares the rows of a run with one another, and its first row with that of
// the run before.
func (t *trust) compare(last, doc *record.Document[record.BenchRow], show func(string, record.CompareRow)) error {
	options := compare.Options{Threshold: compare.DefaultThreshold}
	c, err := compare.By(record.NewSaved(doc), "operation", options)
	if err != nil {
		return err
	}
	for _, row := range c.Rows {
		if row.Difference == nil {
			return errors.New(row.Missing)
		}
		show(row.Name, row)
		if row.Labels["operation"] == "spin:0" {
			t.same.add(row.Difference, row.Verdict, stat.Faster, stat.Slower)
		} else {
			t.slower.add(row.Difference, row.Verdict, stat.Slower)
		}
	}
	// Two files of one row each.
	old, now := *last, *doc
	old.Rows, now.Rows = old.Rows[:1], now.Rows[:1]
	u, err := compare.Records(record.NewSaved(&old), record.NewSaved(&now), options)
	if err != nil {
		return err
	}
	if row := u.Rows[0]; row.Difference != nil && !math.IsNaN(row.Difference.Median) {
		show("two files", row)
		t.apart.add(row.Difference, row.Verdict, stat.Faster, stat.Slower)
	}
	return nil
}

// measure is `unthunk bench --bulk 64 --operation … --duration …`.
func measure(ctx context.Context, d time.Duration, operations ...string) (*record.Document[record.BenchRow], error) {
	plan := redirect.Plan{Bulks: []int{64}, Schedule: rounds.Schedule{Duration: d}}
	for _, s := range operations {
		op, err := redirect.ParseOperation(s)
		if err != nil {
			return nil, err
		}
		plan.Operations = append(plan.Operations, op)
	}
	begun := time.Now()
	raw, err := redirect.Run(ctx, plan, nil)
	if err != nil {
		return nil, err
	}
	if raw.Incomplete {
		return nil, context.Cause(ctx)
	}
	rows, warns := raw.Record()
	for _, row := range rows {
		if row.Refused != "" {
			return nil, fmt.Errorf("%s: %s", row.Name, row.Refused)
		}
	}
	return &record.Document[record.BenchRow]{
		Head:     record.Head{Schema: record.Schema, Kind: "bench", Time: begun, Run: record.NewRunID(), Host: host.Identify(host.Options{})},
		Rows:     rows,
		Warnings: warns,
	}, nil
}

// calibrate finds how many turns of the loop take want ns, and what they
// take, by the price of one turn in a program run by itself, without a chain.
func calibrate(ctx context.Context, want float64) (turns int, ns float64, err error) {
	const many = 1000
	took, err := alone(ctx, many)
	if err != nil {
		return 0, 0, err
	}
	turn := took / many
	turns = int(math.Round(want / turn))
	return turns, float64(turns) * turn, nil
}

// alone is what turns of the loop add to the program, in ns: the smallest of
// interleaved runs of each, since whatever disturbs them only adds.
func alone(ctx context.Context, turns int) (float64, error) {
	// The kernel's own timer is in whole ns: the difference of two lengths,
	// n and 3n, timed from outside, is finer.
	const n = 1 << 14
	best := [2][2]time.Duration{{math.MaxInt64, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}}
	var run [2]func(repeat int) (time.Duration, error)
	for i, spins := range []int{0, turns} {
		p, err := chain.Load(chain.Config{Program: "drop", Operation: chain.Spin, Spins: uint32(spins), Uncounted: true})
		if err != nil {
			return 0, err
		}
		defer p.Close()
		frame, err := traffic.UDPFrame(redirect.DefaultSize)
		if err != nil {
			return 0, err
		}
		run[i] = func(repeat int) (time.Duration, error) {
			start := time.Now()
			if _, _, err := p.Tested.Benchmark(frame, repeat, nil); err != nil {
				return 0, fmt.Errorf("run program: %w", err)
			}
			return time.Since(start), nil
		}
	}
	for range 31 {
		for i := range run {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			for j := range best[i] {
				d, err := run[i]((1 + 2*j) * n)
				if err != nil {
					return 0, err
				}
				best[i][j] = min(best[i][j], d)
			}
		}
	}
	return float64(best[1][1]-best[1][0]-(best[0][1]-best[0][0])) / (2 * n), nil
}

package redirect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func mustRun(t *testing.T, plan Plan) []record.BenchRow {
	t.Helper()
	testutil.Root(t)
	raw, err := Run(t.Context(), plan, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	rows, _ := raw.Record()
	return rows
}

// Every scenario in every mode and place must deliver each frame it counts.
func TestScenarios(t *testing.T) {
	for _, layout := range []CoreLayout{OneCore, TwoCore} {
		for _, mode := range []Mode{Native, Generic} {
			rows := finished(t, Plan{
				Scenarios: Scenarios(), Bulks: []int{4, 64}, Mode: mode, Layout: layout,
				Schedule: rounds.Schedule{Rounds: 2, Duration: 3 * time.Second},
			})
			seen := 0
			for _, s := range Scenarios() {
				t.Run(fmt.Sprintf("%s/%s/%s", layout, mode, s), func(t *testing.T) {
					for _, row := range rows {
						if row.Labels["scenario"] == string(s) {
							checkRow(t, row, s, mode, layout)
							seen++
						}
					}
				})
			}
			if want := 2 * len(Scenarios()); seen != want {
				t.Errorf("%s/%s: %d rows, want %d", layout, mode, seen, want)
			}
		}
	}
}

// finished is mustRun of a plan whose scenarios get more time until each has numbers: on
// a busy machine a round may end before the other core had its turn.
func finished(t *testing.T, plan Plan) (out []record.BenchRow) {
	t.Helper()
	unfinished := func(r record.BenchRow) bool { return r.Refused == noRound }
	for {
		rows := mustRun(t, plan)
		var again []Scenario
		for _, s := range plan.withDefaults().Scenarios {
			var own []record.BenchRow
			for _, row := range rows {
				if row.Labels["scenario"] == string(s) {
					own = append(own, row)
				}
			}
			if slices.ContainsFunc(own, unfinished) && plan.Duration < time.Minute {
				again = append(again, s)
			} else {
				out = append(out, own...)
			}
		}
		if len(again) == 0 {
			return out
		}
		plan.Scenarios, plan.Duration = again, 2*plan.Duration
	}
}

// devmap says whether frames leave through a devmap bulk queue.
func (s Scenario) devmap() bool {
	return s == Map || s == MapHash || s == Plain || s == Multi
}

func checkRow(t *testing.T, row record.BenchRow, s Scenario, mode Mode, layout CoreLayout) {
	t.Helper()
	if c := row.Counts; c.Sent == 0 || c.Sent != c.Redirected || c.Received != c.Redirected*s.copies() {
		t.Errorf("%s: counts %+v disagree", row.Name, c)
	}
	if row.Refused != "" {
		t.Errorf("%s: %s", row.Name, row.Refused)
		return
	}
	// With two cores a packet waits until the other one is free of other work.
	if row.Ns.Median < 1 || row.Ns.Median > 1e5 && layout == OneCore {
		t.Errorf("%s: %v ns per packet", row.Name, row.Ns.Median)
	}
	if (row.Hop != nil) != (s.redirects() && s != CPU && layout == OneCore) {
		t.Errorf("%s: hop is %v", row.Name, row.Hop)
	}
	if !s.devmap() || mode == Generic {
		if row.FramesPerXmit != nil {
			t.Errorf("%s: frames per ndo_xdp_xmit is %v, though none is called", row.Name, row.FramesPerXmit.Median)
		}
		return
	}
	// DEV_MAP_BULK_SIZE is 16. With two cores a poll takes what is there.
	want := 16.0
	if row.Labels["bulk"] == "4" {
		want = 4
	}
	if f := row.FramesPerXmit; f == nil || layout == OneCore && f.Median != want {
		t.Errorf("%s: frames per ndo_xdp_xmit is %v, want %v", row.Name, f, want)
	}
}

func TestOperations(t *testing.T) {
	var ops []Operation
	for _, s := range []string{"none", "read", "swap-macs", "parse", "spin:1000"} {
		ops = append(ops, op(t, s))
	}
	rows := finished(t, Plan{Operations: ops, Bulks: []int{16}, Schedule: rounds.Schedule{Rounds: 2, Duration: 2 * time.Second}})
	for _, row := range rows {
		checkRow(t, row, Map, Native, OneCore)
	}
}

// A veth whose peer runs no XDP program refuses redirected frames. The
// program cannot see that: bpf_redirect_map says XDP_REDIRECT all the same.
func TestRedirectIntoDeafDevice(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	c, err := build(t.Context(), lab, 0, Plan{}.withDefaults().chains()[0], cores{}, counting)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deaf, _, err := lab.VethPair("deaf0", "deaf1")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Do(func() error { return c.programs.AddPort(0, deaf.Index, nil) }); err != nil {
		t.Fatal(err)
	}
	m, err := newMeasurement(c, 16)
	if err != nil {
		t.Fatal(err)
	}
	rows := []RawRow{{Row: Row{c.spec, 16}}}
	if err := rows[0].watch(t.Context(), m); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if err := m.Slot(t.Context()); err != nil {
		t.Fatal(err)
	}
	(&built{measurements: []*Measurement{m}}).count(rows)
	row := rows[0].record()
	if row.Ns != nil || row.Mpps != nil || len(row.Samples) != 0 {
		t.Errorf("a rate was made of frames that went nowhere: %+v", row)
	}
	for _, want := range []string{"counts disagree", "0 received"} {
		if !strings.Contains(row.Refused, want) {
			t.Errorf("refusal %q does not say %q", row.Refused, want)
		}
	}
	if !strings.Contains(row.Refused, "ndo_xdp_xmit refused") && !strings.Contains(row.Refused, "xdp_do_redirect failed") {
		t.Errorf("refusal %q does not say why", row.Refused)
	}
	t.Log(row.Refused)
}

// Redirects of another namespace must not show in this one's counts.
func TestForeignTraffic(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	c, err := build(t.Context(), lab, 0, Plan{}.withDefaults().chains()[0], cores{}, counting)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	foreign, err := c.Measure(t.Context(), 16)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	// It sends from before the run until after it.
	ctx, cancel := context.WithCancel(t.Context())
	first, done := make(chan error, 1), make(chan error, 1)
	go func() {
		first <- foreign.Slot(ctx)
		var err error
		for err == nil && ctx.Err() == nil {
			err = foreign.Slot(ctx)
		}
		done <- err
	}()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	rows := finished(t, Plan{Bulks: []int{4}, Schedule: rounds.Schedule{Rounds: 3, Duration: 3 * time.Second}})
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if foreign.counts.Sent == 0 {
		t.Error("the foreign chain sent no frame")
	}
	checkRow(t, rows[0], Map, Native, OneCore)
}

func TestRunStops(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const planned = 1000
	var told time.Time
	raw, err := Run(ctx, Plan{Schedule: rounds.Schedule{Rounds: planned, Duration: planned * time.Second}}, func(p rounds.Progress) {
		if p.Round == 3 && told.IsZero() {
			told = time.Now()
			cancel()
		}
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	// It takes a quarter of a second where nothing else runs; all rounds take a
	// quarter of an hour.
	if took := time.Since(told); took > time.Minute {
		t.Errorf("stopped %v after it was told to", took)
	}
	if !raw.Incomplete || raw.Begun == 0 || raw.Begun > 3 {
		t.Errorf("incomplete %v after %d rounds", raw.Incomplete, raw.Begun)
	}
}

func BenchmarkBuild(b *testing.B) {
	testutil.Root(b)
	for b.Loop() {
		lab, err := netlab.New(0)
		if err != nil {
			b.Fatal(err)
		}
		c, err := build(b.Context(), lab, 0, Plan{}.withDefaults().chains()[0], cores{}, counting)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		lab.Close()
	}
}

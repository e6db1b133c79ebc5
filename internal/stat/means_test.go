package stat

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// poisson is a count of events of which mean are to be expected.
func poisson(r *rand.Rand, mean float64) float64 {
	n := 0.0
	for at := r.ExpFloat64(); at < mean; at += r.ExpFloat64() {
		n++
	}
	return n
}

// counted is a run whose rounds count events of which mean are to be expected,
// each of them worth grain.
func counted(r *rand.Rand, rounds int, mean, grain float64) Run {
	run := Run{Grain: grain}
	for range rounds {
		run.Samples = append(run.Samples, grain*poisson(r, mean))
	}
	return run
}

func TestUnpairedMeans(t *testing.T) {
	t.Parallel()
	a := Run{Samples: []float64{0, 0, 2, 0, 1, 0, 3}}
	b := Run{Samples: []float64{9, 11, 10, 10, 12, 8, 10, 10}}
	d := UnpairedMeans(a, b, "ns")
	if want := 10 - 6.0/7; !near(d.Median, want, 1e-12) || d.N != 7 || d.Unit != "ns" {
		t.Errorf("%+v, want %v of 7", d, want)
	}
	if d.P > 0.01 || d.Low <= 0 || d.High <= d.Median || !near(d.Median-d.Low, d.High-d.Median, 1e-9) || d.Smallest <= 0 {
		t.Errorf("%+v", d)
	}
	back := UnpairedMeans(b, a, "ns")
	if back.Median != -d.Median || !near(back.Low, -d.High, 1e-9) || !near(back.P, d.P, 1e-12) {
		t.Errorf("%+v is not the reverse of %+v", back, d)
	}
	if e := Family(slices.Repeat([]Difference{d}, 16))[0]; e.Low >= d.Low || e.P < d.P {
		t.Errorf("one of 16: %+v, alone %+v", e, d)
	}
}

// Welch's t and degrees of freedom by hand: the means' variances are 7/12 and
// 28/12, so t is 4.5 / sqrt(35/12), df (35/12)² / ((7/12)²/5 + (28/12)²/5).
func TestWelch(t *testing.T) {
	t.Parallel()
	a := Run{Samples: []float64{1, 2, 3, 4, 5, 6}}
	b := Run{Samples: []float64{3, 5, 7, 9, 11, 13}}
	welch := meanErrors(a, b)[0]
	if x := 4.5 / welch.se; !near(x, 2.63493, 1e-5) || !near(welch.df, 7.35294, 1e-5) {
		t.Errorf("t = %v, df = %v", x, welch.df)
	}
}

// A run that counted nothing knows no less than how many events could have
// been missed.
func TestUnpairedMeansNothing(t *testing.T) {
	t.Parallel()
	zeros := make([]float64, 10)
	d := UnpairedMeans(Run{zeros, 0.5}, Run{zeros, 0.5}, "ns")
	// 3 events in 10 rounds would be seen 19 times in 20.
	if d.Median != 0 || d.P != 1 || d.High < 0.5*3/10/2 || d.High > 0.5 || d.Low != -d.High {
		t.Errorf("%+v", d)
	}
	if v := Verdict(d, 1); !strings.HasPrefix(v, "no difference seen (would have seen 0.") || !strings.HasSuffix(v, " ns)") {
		t.Error(v)
	}
	// One event in ten rounds is no news.
	one := slices.Clone(zeros)
	one[3] = 0.5
	if d := UnpairedMeans(Run{zeros, 0.5}, Run{one, 0.5}, "ns"); d.P < 0.2 || d.Low > 0 {
		t.Errorf("%+v", d)
	}
	// Without counts, nothing that scatters is nothing known.
	if d := UnpairedMeans(Run{Samples: zeros}, Run{Samples: zeros}, "ns"); d.Median != 0 || d.P != 1 ||
		!math.IsNaN(d.Low) || Verdict(d, 1) != CannotTell {
		t.Errorf("%+v", d)
	}
}

func TestUnpairedMeansBadInput(t *testing.T) {
	t.Parallel()
	good := Run{Samples: []float64{1, 2, 3, 4, 5, 6, 7}}
	for name, bad := range map[string]Run{
		"none":     {},
		"NaN":      {Samples: []float64{1, 2, math.NaN(), 4, 5, 6, 7}},
		"infinite": {Samples: []float64{1, 2, math.Inf(-1), 4, 5, 6, 7}},
	} {
		for _, d := range []Difference{UnpairedMeans(good, bad, "ns"), UnpairedMeans(bad, good, "ns")} {
			if !math.IsNaN(d.Median) || d.P != 1 || d.Unit != "ns" || Verdict(d, 2) != CannotTell || Beyond(d, 0) {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
	few := Run{Samples: good.Samples[:5]}
	if d := UnpairedMeans(few, good, "ns"); d.Median != 1 || !math.IsNaN(d.Low) || d.P != 1 {
		t.Errorf("five rounds: %+v", d)
	}
	tiny := Run{Samples: []float64{0, 1e-140, 0, 0, 3e-140, 0, 0}}
	if d := UnpairedMeans(tiny, tiny, "ns"); d.P != 1 || math.IsNaN(d.Low) {
		t.Errorf("tiny: %+v", d)
	}
}

func TestUnpairedMeansJSON(t *testing.T) {
	t.Parallel()
	d := UnpairedMeans(Run{Samples: []float64{1, 2, 3}}, Run{Samples: []float64{2, 4, 6}}, "ns")
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"median":2,"low":null,"high":null,"n":3,"unit":"ns","p":1,"smallest":null}`; string(b) != want {
		t.Errorf("%s", b)
	}
	var e Difference
	if err := json.Unmarshal(b, &e); err != nil || e.Unit != "ns" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWouldHaveSeen(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]Difference{
		"would have seen 2.0 %":   {Smallest: 1.91, Unit: "percent"},
		"would have seen 13 %":    {Smallest: 12.2},
		"would have seen 0.25 ns": {Smallest: 0.241, Unit: "ns"},
		"would have seen ? ns":    {Smallest: math.NaN(), Unit: "ns"},
	} {
		if got := d.WouldHaveSeen(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Two runs that count few events or many, alike and five times as many: how
// often are they called different, how often does the interval hold the truth,
// alone and as one of 16? What medians say of the same is logged beside it.
func TestSimulationUnpairedMeans(t *testing.T) {
	t.Parallel()
	const tries, family = 1500, 16
	for _, rounds := range []int{7, 10, 15} {
		for _, events := range []float64{0.3, 3, 30, 300} {
			r := random(uint64(3000 + rounds))
			alarms, missed, found, foundOf16, silent := 0, 0, 0, 0, 0
			var byMean, byMedian float64
			for range tries {
				a, b, more := counted(r, rounds, events, 1), counted(r, rounds, events, 1), counted(r, rounds, 5*events, 1)
				d := UnpairedMeans(a, b, "ns")
				if d.P <= Alpha {
					alarms++
				}
				if d.Low > 0 || d.High < 0 {
					missed++
				}
				d = UnpairedMeans(a, more, "ns")
				if truth := 4 * events; d.Low > truth || d.High < truth {
					missed++
				}
				if d.P <= Alpha {
					found++
				}
				if d.P <= Alpha/family {
					foundOf16++
				}
				byMean += d.Median / tries
				runs := twoRuns{a: sorted(a.Samples), b: sorted(more.Samples)}
				byMedian += runs.estimate() / tries
				runs.se, runs.df = driftError(a.Samples, more.Samples)
				if _, _, ok := runs.interval(Alpha / family); !ok {
					silent++
				}
			}
			t.Logf("%2d rounds of %5.1f events: alarms %.1f %%, coverage %.1f %%, 5x found %5.1f %% (%5.1f %% of 16), shift of "+
				"%.4g by means %.4g, by medians %.4g, which tell nothing of 16 in %.0f %%",
				rounds, events, pct(alarms, tries), 100-pct(missed, 2*tries), pct(found, tries), pct(foundOf16, tries), 4*events,
				byMean, byMedian, pct(silent, tries))
			if alarms > slack(tries, 0.05) || missed > slack(2*tries, 0.05) {
				t.Errorf("%d rounds of %v events: %d alarms, %d missed", rounds, events, alarms, missed)
			}
			if math.Abs(byMean-4*events) > 0.03*4*events {
				t.Errorf("%d rounds of %v events: estimate %v, not %v", rounds, events, byMean, 4*events)
			}
		}
	}
}

// Stages of two profiles of a machine that drifts: how often is any of them
// called different? All stages drift alike. As in [Unpaired], 5 % hold while the
// drift remembers for a part of a run only.
func TestSimulationUnpairedMeansFamily(t *testing.T) {
	t.Parallel()
	const tries = 300
	stages := []float64{0, 0.05, 0.3, 0.3, 1, 3, 3, 10, 10, 30, 30, 100, 100, 300, 300}
	for _, rounds := range []int{7, 15} {
		for _, k := range []struct {
			name          string
			drift, memory float64 // the memory in runs
			held          bool    // to 5 %
		}{
			{"steady", 0, 1, true},
			{"AR(1) 10 %, run/10", 0.1, 0.1, true},
			{"AR(1) 10 %, run/3", 0.1, 1.0 / 3, false},
			{"AR(1) 10 %, run", 0.1, 1, false},
		} {
			m := &machine{r: random(uint64(rounds)), noise: 0.02, ar: k.drift, rho: math.Exp(-1 / k.memory / float64(rounds))}
			run := func() []Run {
				runs := make([]Run, len(stages))
				for range rounds {
					m.pass(1)
					speed := m.round() / 100
					for i, events := range stages {
						runs[i].Grain = 0.5
						runs[i].Samples = append(runs[i].Samples, 0.5*poisson(m.r, speed*events))
					}
				}
				return runs
			}
			alarms := 0
			for range tries {
				m.start()
				a := run()
				m.pass(200)
				b := run()
				var ds []Difference
				for i := range stages {
					ds = append(ds, UnpairedMeans(a[i], b[i], "ns"))
				}
				if slices.ContainsFunc(Family(ds), func(d Difference) bool { return d.P <= Alpha }) {
					alarms++
				}
			}
			t.Logf("%d stages, %2d rounds, %-18s: any alarm in %.1f %%", len(stages), rounds, k.name, pct(alarms, tries))
			if k.held && alarms > slack(tries, 0.05) {
				t.Errorf("%d rounds, %s: %d alarms of %d", rounds, k.name, alarms, tries)
			}
		}
	}
}

// A difference that would have been seen is not seen nine times in ten, as of
// rows of one run: the next two runs may seem to drift more.
func TestSimulationSmallestMean(t *testing.T) {
	t.Parallel()
	const tries, rounds, events = 1000, 15, 100
	r := random(14)
	var smallest []float64
	for range tries {
		smallest = append(smallest, UnpairedMeans(counted(r, rounds, events, 1), counted(r, rounds, events, 1), "ns").Smallest)
	}
	shift := Median(smallest)
	found := 0
	for range tries {
		if UnpairedMeans(counted(r, rounds, events, 1), counted(r, rounds, events+shift, 1), "ns").P <= Alpha {
			found++
		}
	}
	t.Logf("a difference of %.1f events on %d was found in %.1f %%", shift, events, pct(found, tries))
	if share := pct(found, tries); share < 65 {
		t.Errorf("found in %.1f %%, want 65 or more", share)
	}
}

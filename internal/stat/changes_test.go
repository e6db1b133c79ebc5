package stat

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// history makes rows of runs; at is the level of row r in run i, a factor.
func history(r *rand.Rand, rows, runs int, noise func(r *rand.Rand, last float64) float64, width float64,
	at func(row, run int) float64) [][]*Quantity {
	out := make([][]*Quantity, rows)
	last := make([]float64, rows)
	for i := range runs {
		for row := range rows {
			last[row] = noise(r, last[row])
			x := 100 * float64(row+1) * at(row, i) * math.Exp(0.02*last[row])
			out[row] = append(out[row], &Quantity{Median: x, Low: x * (1 - width), High: x * (1 + width), N: 11, Unit: "ns"})
		}
	}
	return out
}

func level(row, run int) float64 { return 1 }

func gauss(r *rand.Rand, _ float64) float64 { return r.NormFloat64() }

// noises are what runs scatter by, in units of 2 %.
var noises = []struct {
	name string
	next func(r *rand.Rand, last float64) float64
	// most is how often a change may be found where there is none.
	most float64
}{
	{"normal", gauss, 0.05},
	{"heavy tails", func(r *rand.Rand, _ float64) float64 { return r.NormFloat64() / math.Sqrt(r.ExpFloat64()) }, 0.05},
	{"two modes", func(r *rand.Rand, _ float64) float64 { return 5*float64(r.IntN(2)) + 0.3*r.NormFloat64() }, 0.05},
	{"skewed", func(r *rand.Rand, _ float64) float64 { return math.Exp(r.NormFloat64()) }, 0.05},
	// Not what is promised; bounds are what was seen, with room.
	{"AR(1) 0.3", autoregressive(0.3), 0.2},
	{"AR(1) 0.6", autoregressive(0.6), 0.5},
}

func autoregressive(rho float64) func(r *rand.Rand, last float64) float64 {
	return func(r *rand.Rand, last float64) float64 { return rho*last + math.Sqrt(1-rho*rho)*r.NormFloat64() }
}

func countChanges(found [][]Change) int {
	n := 0
	for _, row := range found {
		n += len(row)
	}
	return n
}

// How often noise alone has a change, in four rows together.
func TestSimulationChangesInNoise(t *testing.T) {
	t.Parallel()
	const series = 80
	for _, noise := range noises {
		for _, runs := range []int{8, 20} {
			r := rand.New(rand.NewPCG(1, uint64(runs)))
			hits, drifting := 0, 0
			for range series {
				rows := history(r, 4, runs, noise.next, 0.01, level)
				found := Changes(rows)
				if countChanges(found) > 0 {
					hits++
				}
				if Drifts(rows[0], found[0]) {
					drifting++
				}
			}
			t.Logf("%-12s %2d runs: a change in %4.1f %%, drift in %4.1f %%", noise.name, runs, 100*float64(hits)/series,
				100*float64(drifting)/series)
			if hits > slack(series, noise.most) {
				t.Errorf("%s, %d runs: a change in %d of %d series of noise", noise.name, runs, hits, series)
			}
		}
	}
}

// How often a change is found, and where.
func TestSimulationChangesFound(t *testing.T) {
	t.Parallel()
	const series = 60
	for _, test := range []struct {
		runs, at int
		percent  float64 // 2 % is one standard deviation of a run
		least    float64
	}{
		{8, 4, 12, 0.6}, {12, 8, 8, 0.7}, {20, 12, 6, 0.8}, {30, 20, 6, 0.9}, {30, 25, 10, 0.85},
	} {
		r := rand.New(rand.NewPCG(2, uint64(test.runs)))
		found, near := 0, 0
		for range series {
			rows := history(r, 4, test.runs, gauss, 0.01, func(row, run int) float64 {
				if row == 2 && run >= test.at {
					return 1 + test.percent/100
				}
				return 1
			})
			for _, c := range Changes(rows)[2] {
				found++
				if d := c.At - test.at; d >= -1 && d <= 1 && math.Abs(c.Shift.Median-test.percent) < 5 {
					near++
				}
				break
			}
		}
		name := fmt.Sprintf("%d runs, %g %% from %d on", test.runs, test.percent, test.at)
		t.Logf("%s: found %d of %d, at its place %d", name, found, series, near)
		if float64(found) < test.least*series || float64(near) < 0.85*float64(found) {
			t.Errorf("%s: found %d of %d, at its place %d", name, found, series, near)
		}
	}
}

// Two changes in one row, none in the other; runs without the row in between.
func TestChangesTwo(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 3))
	rows := history(r, 2, 45, gauss, 0.01, func(row, run int) float64 {
		switch {
		case row == 1 || run < 15:
			return 1
		case run < 30:
			return 1.2
		}
		return 0.9
	})
	for _, i := range []int{3, 17, 40} {
		rows[0][i] = nil
	}
	found := Changes(rows)
	if len(found[0]) != 2 || len(found[1]) != 0 || found[0][0].At != 15 || found[0][1].At != 30 {
		t.Fatalf("found %+v", found)
	}
	for i, want := range []float64{20, -25} {
		d := found[0][i].Shift
		if math.Abs(d.Median-want) > 3 || !(d.Low < d.Median && d.Median < d.High) || d.Low > want || d.High < want || d.Unit != percent {
			t.Errorf("change %d is %+v, want about %g", i, d, want)
		}
	}
}

// A change that the runs' own intervals explain is not one.
func TestChangesWithinIntervals(t *testing.T) {
	t.Parallel()
	step := func(_, run int) float64 {
		if run >= 6 {
			return 1.03
		}
		return 1
	}
	still := func(*rand.Rand, float64) float64 { return 0 }
	r := rand.New(rand.NewPCG(4, 4))
	jitter := func(r *rand.Rand, _ float64) float64 { return 0.02 * r.NormFloat64() }
	if found := Changes(history(r, 1, 12, jitter, 0.5, step)); countChanges(found) != 0 {
		t.Errorf("intervals of 50 %%: %+v", found)
	}
	if found := Changes(history(r, 1, 12, jitter, 0.005, step)); countChanges(found) != 1 || found[0][0].At != 6 {
		t.Errorf("intervals of 0.5 %%: %+v", found)
	}
	if found := Changes(history(r, 2, 12, still, 0.01, level)); countChanges(found) != 0 {
		t.Errorf("no change at all: %+v", found)
	}
}

// Values that are 0 or negative, unknown ones, too few, none.
func TestChangesOdd(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	q := func(x float64) *Quantity { return &Quantity{x, nan, nan, 1, "ns"} }
	var signed []*Quantity
	for i := range 12 {
		x := 0.1 * float64(i%3-1)
		if i >= 6 {
			x += 5
		}
		signed = append(signed, q(x))
	}
	found := Changes([][]*Quantity{signed, nil, {nil, nil}, {q(nan), q(math.Inf(1)), q(1)}, signed[:7]})
	if len(found) != 5 || countChanges(found) != 1 || found[0][0].At != 6 || found[0][0].Shift.Unit != "" ||
		math.Abs(found[0][0].Shift.Median-5) > 0.3 {
		t.Errorf("%+v", found)
	}
	if found := Changes(nil); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

// The smallest series in which a change can be found.
func TestChangesFewest(t *testing.T) {
	t.Parallel()
	var row []*Quantity
	for i := range MinChanges {
		x := 100 + 0.1*float64(i%2)
		if i >= MinChanges/2 {
			x *= 1.5
		}
		row = append(row, &Quantity{x, x - 1, x + 1, 9, "ns"})
	}
	found := Changes([][]*Quantity{row})
	if len(found[0]) != 1 || found[0][0].At != MinChanges/2 {
		t.Fatalf("%+v", found)
	}
	if d := found[0][0].Shift; math.IsNaN(d.Low) || d.Low < 49 || d.High > 51 {
		t.Errorf("%+v", d)
	}
	if found := Changes([][]*Quantity{row[:MinChanges-1]}); countChanges(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func BenchmarkChanges(b *testing.B) {
	b.ReportAllocs()
	rows := history(rand.New(rand.NewPCG(5, 5)), 8, 100, gauss, 0.01, level)
	for b.Loop() {
		Changes(rows)
	}
}

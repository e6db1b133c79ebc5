package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Seven rounds cannot speak for seven rows by ranks. Family finds a change of 10 % in
// each of them all the same, and calls rows that are alike different in 5 % of runs at
// most.
func TestFewRounds(t *testing.T) {
	t.Parallel()
	const rounds, rows, runs = 7, 7, 1000
	normal := func(r *rand.Rand) float64 { return 0.01 * r.NormFloat64() }
	for name, scatter := range map[string]func(*rand.Rand) float64{
		"normal": normal,
		"outliers": func(r *rand.Rand) float64 {
			if r.IntN(10) == 0 {
				return 0.1 * math.Abs(r.NormFloat64())
			}
			return normal(r)
		},
		"skewed": func(r *rand.Rand) float64 { return 0.01 * r.ExpFloat64() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, 15))
			family := func(factor float64) []Difference {
				var ds []Difference
				for range rows {
					var a, b []float64
					for range rounds {
						a = append(a, 100*math.Exp(scatter(r)))
						b = append(b, 100*factor*math.Exp(scatter(r)))
					}
					ds = append(ds, Paired(a, b))
				}
				return Family(ds)
			}
			alarms, missed, found := 0, 0, 0
			for range runs {
				alarm, miss := false, false
				for _, d := range family(1) {
					alarm = alarm || d.P <= Alpha
					miss = miss || d.Low > 0 || d.High < 0 || !d.hasInterval()
				}
				if alarm {
					alarms++
				}
				if miss {
					missed++
				}
				all := true
				for _, d := range family(1.1) {
					all = all && d.P <= Alpha && d.Median > 0
				}
				if all {
					found++
				}
			}
			t.Logf("false alarms %.1f %%, truth missed %.1f %%, all of 7 rows found %.1f %%",
				100*float64(alarms)/runs, 100*float64(missed)/runs, 100*float64(found)/runs)
			// 5 % and three standard errors of 1000 runs.
			if limit := 0.071 * runs; float64(alarms) > limit || float64(missed) > limit {
				t.Errorf("%d false alarms and %d missed truths in %d runs", alarms, missed, runs)
			}
			if name != "outliers" && found < runs*99/100 {
				t.Errorf("a change of 10 %% in each row was found in all of them in %d of %d runs", found, runs)
			}
		})
	}
	// As many rounds as ranks need keep ranks.
	var a, b []float64
	for i := range 12 {
		a, b = append(a, 100+float64(i)), append(b, 104+float64(i))
	}
	d := Paired(a, b)
	if got := Family([]Difference{d, d, d, d}); got[0].shift == nil || got[0].Median != d.Median {
		t.Errorf("12 rounds: %+v, was %+v", got[0], d)
	}
	for rows, want := range map[int]int{0: 6, 1: 6, 7: 7, 20: 8, 63: 9} {
		if got := NeededRounds(rows); got != want {
			t.Errorf("%d rows need %d rounds, want %d", rows, got, want)
		}
		if got := NeededRounds(rows); got > MinRounds { // one fewer has no interval
			a, b := []float64{}, []float64{}
			for i := range got {
				a, b = append(a, 100+float64(i)), append(b, 200+float64(i))
			}
			alpha := Alpha / float64(rows)
			if d := Unpaired(a, b).At(alpha); !d.hasInterval() {
				t.Errorf("%d rounds have no interval for %d rows", got, rows)
			}
			if d := Unpaired(a[1:], b[1:]).At(alpha); d.hasInterval() {
				t.Errorf("%d rounds have an interval for %d rows", got-1, rows)
			}
		}
	}
	same := Paired(a[:7], a[:7])
	if got := Family([]Difference{same, same, same, same})[0]; got.P != 1 || got.Low != 0 || got.High != 0 {
		t.Errorf("rows that are equal to the digit: %+v", got)
	}
}

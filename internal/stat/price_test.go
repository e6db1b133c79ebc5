package stat

import (
	"math"
	"slices"
	"testing"
)

func TestPriceProperties(t *testing.T) {
	t.Parallel()
	r := random(14)
	for name, compare := range map[string]func(a, b []float64) Difference{"paired": PairedPrices, "unpaired": UnpairedPrices} {
		for range 200 {
			n := MinRounds + r.IntN(40)
			a, b := normals(r, n, 3, 2), normals(r, n, 5, 2)
			base, baseB := Median(a), Median(b)
			if base <= 0 || baseB <= 0 {
				continue
			}
			keepA, keepB := slices.Clone(a), slices.Clone(b)
			d := compare(a, b)
			if !slices.Equal(a, keepA) || !slices.Equal(b, keepB) {
				t.Fatalf("%s reordered its arguments", name)
			}
			if !(d.Low <= d.Median && d.Median <= d.High) || d.P < 0 || d.P > 1 || !(d.Smallest > 0) {
				t.Fatalf("%s: %+v", name, d)
			}
			if excluded := d.Low > 0 || d.High < 0; excluded != (d.P <= Alpha) && !near(d.P, Alpha, 0.005) {
				t.Fatalf("%s: interval [%v, %v] but p %v", name, d.Low, d.High, d.P)
			}
			// The other way round is the same shift in ns, of another base.
			if e := compare(b, a); !near(e.Median*baseB, -d.Median*base, 1e-6) || !near(e.Low*baseB, -d.High*base, 1e-6) || !near(e.P, d.P, 1e-6) {
				t.Fatalf("%s: swapped %+v, was %+v", name, e, d)
			}
			for i := range a {
				keepA[i], keepB[i] = a[i]*7, b[i]*7
			}
			if e := compare(keepA, keepB); !near(e.Median, d.Median, 1e-6) || !near(e.Low, d.Low, 1e-6) || !near(e.Smallest, d.Smallest, 1e-6) {
				t.Fatalf("%s: scaled %+v, was %+v", name, e, d)
			}
			if e := d.At(0.001); e.Low > d.Low || e.High < d.High {
				t.Fatalf("%s: at 99.9 %% narrower: %+v, was %+v", name, e, d)
			}
			// Six rounds are too few for the ranks of two rows: Student's t speaks then.
			byRanks := name != "paired" || n > 6
			if e := Family([]Difference{d, d})[0]; byRanks && (e.Median != d.Median || e.Low > d.Low && e.Low != 0) {
				t.Fatalf("%s: in family %+v, was %+v", name, e, d)
			}
		}
	}
	// Half again is 50 %, whatever a round says.
	a := []float64{-1, 1, 2, 2, 3, 5, 8}
	b := make([]float64, len(a))
	for i := range a {
		b[i] = a[i] + 1
	}
	if d := PairedPrices(a, b); !near(d.Median, 50, 1e-9) || !near(d.Low, 50, 1e-9) || Verdict(d, 2) != Slower || !Beyond(d, 2) {
		t.Errorf("%+v", d)
	}
}

func TestPriceBadInput(t *testing.T) {
	t.Parallel()
	six := []float64{1, 2, 3, 4, 5, 6}
	for _, tt := range [][2][]float64{
		{nil, nil},
		{nil, six},
		{six, nil},
		{{-1, -2, -3, 4, 5, -6}, six},
		{make([]float64, 6), six},
		{six, {1, 2, 3, 4, 5, math.NaN()}},
		{{1, 2, 3, 4, 5, math.Inf(1)}, six},
	} {
		for _, d := range []Difference{PairedPrices(tt[0], tt[1]), UnpairedPrices(tt[0], tt[1])} {
			if !math.IsNaN(d.Median) || !math.IsNaN(d.Low) || d.P != 1 || d.N != min(len(tt[0]), len(tt[1])) || Verdict(d, 2) != CannotTell {
				t.Errorf("%v: %+v", tt, d)
			}
		}
	}
	if d := PairedPrices(six, six[:5]); !math.IsNaN(d.Median) || d.N != 5 {
		t.Errorf("lengths differ: %+v", d)
	}
	for n := 1; n < MinRounds; n++ {
		for _, d := range []Difference{PairedPrices(six[:n], six[:n]), UnpairedPrices(six[:n], six[:n])} {
			if d.Median != 0 || !math.IsNaN(d.Low) || Verdict(d, 2) != CannotTell {
				t.Errorf("%d rounds: %+v", n, d)
			}
		}
	}
}

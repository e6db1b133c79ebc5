package stat

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func normals(r *rand.Rand, n int, mean, sd float64) []float64 {
	xs := make([]float64, n)
	for i := range xs {
		xs[i] = mean + sd*r.NormFloat64()
	}
	return xs
}

func TestLocation(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		name              string
		xs                []float64
		median, low, high float64
	}{
		{"none", nil, nan, nan, nan},
		{"one", []float64{-3}, -3, nan, nan},
		{"five", []float64{5, 1, 3, 2, 4}, 3, nan, nan},
		// Six rounds: the interval is the range.
		{"six", []float64{6, -1, 3, 2, 4, 5}, 3.5, -1, 6},
		{"zeros", make([]float64, 8), 0, 0, 0},
		// Table A.4 of Hollander and Wolfe: the 9th of 55 averages, P = 0.024.
		{"ten", []float64{-5, -3, -1, 0, 1, 2, 3, 5, 7, 9}, 2, -1.5, 5},
		{"not a number", []float64{1, 2, 3, 4, 5, nan}, nan, nan, nan},
		{"infinite", []float64{1, 2, 3, 4, 5, inf}, nan, nan, nan},
	} {
		keep := slices.Clone(tt.xs)
		q := Location(tt.xs, "ns")
		want := Quantity{tt.median, tt.low, tt.high, len(tt.xs), "ns"}
		for _, x := range [][2]float64{{q.Median, want.Median}, {q.Low, want.Low}, {q.High, want.High}} {
			if !near(x[0], x[1], 1e-12) && !(math.IsNaN(x[0]) && math.IsNaN(x[1])) {
				t.Errorf("%s: %+v, want %+v", tt.name, q, want)
			}
		}
		if q.N != want.N || q.Unit != want.Unit {
			t.Errorf("%s: %+v, want %+v", tt.name, q, want)
		}
		for i, x := range tt.xs {
			if x != keep[i] && !math.IsNaN(x) {
				t.Errorf("%s: reordered its argument", tt.name)
			}
		}
	}
}

// An end that is 0 is 0, not a hair above it.
func TestLocationZero(t *testing.T) {
	t.Parallel()
	xs := []float64{-3.3, 0, 0, 0, 0, 0, 0, 0, 0, 5.7, 0, 0}
	if q := Location(xs, "ns"); q.Median != 0 || q.Low != 0 || q.High != 0 {
		t.Errorf("%+v", q)
	}
}

func TestShift(t *testing.T) {
	t.Parallel()
	r := random(10)
	for n := range 60 {
		a, b := normals(r, n, 1, 5), normals(r, n, 0, 5)
		if n%3 == 0 {
			for i := range a { // many ties
				a[i], b[i] = math.Round(a[i]), math.Round(b[i])
			}
		}
		q, back := Shift(a, b, "ns"), Shift(b, a, "ns")
		if q.N != n || q.Unit != "ns" || math.IsNaN(q.Median) != (n == 0) || math.IsNaN(q.Low) != (n < MinRounds) ||
			math.IsNaN(q.High) != (n < MinRounds) {
			t.Errorf("%d rounds: %+v", n, q)
		}
		if n < MinRounds {
			continue
		}
		if !(q.Low <= q.Median && q.Median <= q.High) {
			t.Errorf("%d rounds: %+v", n, q)
		}
		if !near(q.Median, -back.Median, 1e-9) || !near(q.Low, -back.High, 1e-9) || !near(q.High, -back.Low, 1e-9) {
			t.Errorf("%d rounds: %+v, swapped %+v", n, q, back)
		}
		if same := Shift(a, a, "ns"); same.Median != 0 || same.Low != 0 || same.High != 0 {
			t.Errorf("%d rounds against themselves: %+v", n, same)
		}
	}
	for _, q := range []Quantity{Shift([]float64{1, 2}, []float64{1}, "ns"), Shift(nil, []float64{1}, "ns"),
		Shift([]float64{math.NaN()}, []float64{1}, "ns")} {
		if !math.IsNaN(q.Median) || !math.IsNaN(q.Low) || !math.IsNaN(q.High) {
			t.Errorf("%+v", q)
		}
	}
}

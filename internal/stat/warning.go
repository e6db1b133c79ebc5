package stat

import (
	"fmt"
	"math"
)

// Warnings says what makes the samples of a row, in the order of their rounds,
// less worth than their interval suggests. Each is a clause without a full
// stop.
func Warnings(xs []float64) []string {
	n := len(xs)
	if n < MinRounds {
		return []string{fmt.Sprintf("%d rounds: a 95 %% interval needs %d", n, MinRounds)}
	}
	ls, ok := logs(xs)
	if !ok {
		return nil
	}
	var ws []string
	ls = winsorize(ls)
	if slope, significant := trend(ls); significant && math.Abs(slope) >= math.Log1p(minDrift) {
		ws = append(ws, fmt.Sprintf("drifted by %+.0f %% from first to last round: the interval is too narrow", ofRatio(slope)))
	} else if r := lag1(ls); r > 2.6/math.Sqrt(float64(n)) && r > 0.3 {
		ws = append(ws, fmt.Sprintf("rounds follow their predecessors (correlation %.2f): the interval is too narrow", r))
	}
	if low, high, ok := modes(ls); ok {
		ws = append(ws, fmt.Sprintf("two modes, near %.4g and %.4g: the median may lie in either", math.Exp(low), math.Exp(high)))
	}
	return ws
}

// minDrift is the smallest trend worth a warning.
const minDrift = 0.05

// trend is Theil and Sen's change of xs from first to last, with Kendall's
// test of it at 1 %.
func trend(xs []float64) (change float64, significant bool) {
	n := len(xs)
	if n > 2000 { // n² slopes: a warning is not worth more
		xs, n = xs[n-2000:], 2000
	}
	slopes := make([]float64, 0, n*(n-1)/2)
	s := 0.0
	for i := range xs {
		for j := i + 1; j < n; j++ {
			d := xs[j] - xs[i]
			slopes = append(slopes, d/float64(j-i))
			switch {
			case d > 0:
				s++
			case d < 0:
				s--
			}
		}
	}
	f := float64(n)
	z := (math.Abs(s) - 1) / math.Sqrt(f*(f-1)*(2*f+5)/18)
	return Median(slopes) * (f - 1), z > 2.576
}

func lag1(xs []float64) float64 {
	mean, top, bottom := 0.0, 0.0, 0.0
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	for i, x := range xs {
		bottom += (x - mean) * (x - mean)
		if i > 0 {
			top += (x - mean) * (xs[i-1] - mean)
		}
	}
	if bottom < 1e-12*float64(len(xs)) { // all alike, except for rounding
		return 0
	}
	return top / bottom
}

// modes splits xs in two where that explains most of their variance. One mode
// explains 64 % so (normal) or 75 % (uniform); 90 % are taken for two, when
// both hold a quarter of the samples and lie 10 % apart.
func modes(xs []float64) (low, high float64, ok bool) {
	s := sorted(xs)
	n := len(s)
	if n < 12 {
		return 0, 0, false
	}
	total := variance(s) * float64(n-1)
	sum, all := 0.0, 0.0
	for _, x := range s {
		all += x
	}
	best := 0.0
	for i := range n - 1 {
		sum += s[i]
		left := float64(i + 1)
		right := float64(n) - left
		if left < float64(n)/4 || right < float64(n)/4 {
			continue
		}
		l, r := sum/left, (all-sum)/right
		if between := (r - l) * (r - l) * left * right / float64(n); between > best {
			best, low, high = between, l, r
		}
	}
	return low, high, best > 0.9*total && high-low > math.Log1p(0.1)
}

package stat

import (
	"math"
	"slices"
)

// Alpha is the error rate everything here is held to: intervals are
// 1 - Alpha wide, and a family of verdicts is wrong at most this often.
const Alpha = 0.05

// MinRounds is the smallest number of rounds a 95 % interval exists for: the
// smallest and largest of five miss the median once in 16 times.
const MinRounds = 6

// Median of xs, NaN when there are none. xs is not reordered.
func Median(xs []float64) float64 { return Quantile(xs, 0.5) }

// Quantile is the q-quantile of xs, 0 <= q <= 1, interpolated linearly between
// neighbors (type 7 of Hyndman and Fan, 1996). It is NaN when xs is empty or
// holds a NaN. xs is not reordered.
func Quantile(xs []float64, q float64) float64 {
	return quantileSorted(sorted(xs), q)
}

func quantileSorted(s []float64, q float64) float64 {
	if len(s) == 0 || math.IsNaN(s[0]) || math.IsNaN(q) { // NaN sorts first
		return math.NaN()
	}
	at := min(max(q, 0), 1) * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) || at == float64(i) {
		return s[i]
	}
	f := at - float64(i)
	return s[i]*(1-f) + s[i+1]*f
}

// Summarize is the median of xs, which are in unit, with its 95 % interval:
// two order statistics, chosen by the binomial distribution (David and
// Nagaraja, Order Statistics, 3rd ed., 7.1). The interval is never narrower
// than 95 %. Below [MinRounds] there is none and Low and High are NaN. xs is
// not reordered.
func Summarize(xs []float64, unit string) Quantity {
	s := sorted(xs)
	q := Quantity{quantileSorted(s, 0.5), math.NaN(), math.NaN(), len(xs), unit}
	if k := medianRank(len(s), Alpha); k > 0 && !math.IsNaN(q.Median) {
		q.Low, q.High = s[k-1], s[len(s)-k]
	}
	return q
}

// Shift is how much a lies above b round by round, in unit: a[i] and b[i] come
// from the same round and may be of either sign. It is the [Location] of the
// differences a[i]-b[i]. The median is NaN when the slices are not equally
// long.
func Shift(a, b []float64, unit string) Quantity {
	if len(a) != len(b) {
		return Quantity{math.NaN(), math.NaN(), math.NaN(), min(len(a), len(b)), unit}
	}
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return Location(d, unit)
}

// Location is where xs, which are in unit and of either sign, lie: the estimate
// of Hodges and Lehmann, with the 95 % interval that inverts Wilcoxon's
// signed-rank test, as in [Paired]. It assumes that xs scatter symmetrically,
// as differences within a round do, and is then about 20 % narrower than
// [Summarize]. Below [MinRounds] there is no interval and Low and High are NaN.
// The median is NaN when xs is empty or holds a value that is not finite. xs is
// not reordered.
func Location(xs []float64, unit string) Quantity {
	q := Quantity{math.NaN(), math.NaN(), math.NaN(), len(xs), unit}
	if len(xs) == 0 || !finite(xs) {
		return q
	}
	s := signedRank{sorted(xs)}
	q.Median = s.estimate()
	if low, high, ok := s.interval(Alpha); ok {
		// Each is found by bisection, to its own last bit.
		q.Low, q.High = min(low, q.Median), max(high, q.Median)
	}
	return q
}

func finite(xs []float64) bool {
	return !slices.ContainsFunc(xs, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
}

// medianRank is the largest k for which the k-th smallest and the k-th largest
// of n enclose the median with confidence 1 - alpha, or 0.
func medianRank(n int, alpha float64) int {
	// P(fewer than k of n below the median) = sum of C(n,i)/2^n, i < k.
	logTerm := -float64(n) * math.Ln2
	tail, k := 0.0, 0
	for i := 0; i < n/2; i++ {
		tail += math.Exp(logTerm)
		if 2*tail > alpha {
			break
		}
		k = i + 1
		logTerm += math.Log(float64(n-i)) - math.Log(float64(i+1))
	}
	return k
}

func sorted(xs []float64) []float64 {
	s := slices.Clone(xs)
	slices.Sort(s)
	return s
}

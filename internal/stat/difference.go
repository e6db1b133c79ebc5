package stat

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
)

// Difference is how much b takes longer than a, in percent of a or in Unit.
// Positive is slower when samples are ns per packet.
type Difference struct {
	// Median, Low and High are the estimate and its interval in Unit.
	// All are NaN when a or b cannot be compared at all; Low and High are
	// NaN when there were too few rounds.
	Median, Low, High float64
	// P is the two-sided probability of data at least this far from no
	// difference when there is none. 1 when nothing could be tested.
	P float64
	// N is the number of pairs, or of samples on the shorter side.
	N int
	// Smallest is the smallest slowdown, in Unit, that these samples
	// would have shown nine times in ten. NaN when they could show none.
	Smallest float64
	// Unit is "percent", as is "", or the unit of the samples: see
	// [UnpairedMeans].
	Unit string

	shift shift
	// scale is what a shift is in Unit.
	scale func(shift float64) float64
}

// percent is the unit of differences that are relative to a.
const percent = "percent"

// power is how often a difference of [Difference.Smallest] is found.
const power = 0.9

// shift is an estimated location shift: of logarithms, of prices in ns, or of
// means.
type shift interface {
	estimate() float64
	// interval of confidence 1 - alpha; ok is false when there is none.
	interval(alpha float64) (low, high float64, ok bool)
	// p of the shift being delta, two-sided.
	p(delta float64) float64
}

type differenceJSON struct {
	quantityJSON
	P        float64  `json:"p"`
	Smallest *float64 `json:"smallest"`
}

// MarshalJSON writes a quantity in d's unit with p and smallest beside it.
func (d Difference) MarshalJSON() ([]byte, error) {
	return json.Marshal(differenceJSON{
		quantityJSON{known(d.Median), known(d.Low), known(d.High), d.N, cmp.Or(d.Unit, percent)},
		d.P, known(d.Smallest),
	})
}

// UnmarshalJSON reads what MarshalJSON wrote. The result is for reading only:
// [Difference.At] leaves it as it is.
func (d *Difference) UnmarshalJSON(b []byte) error {
	var j differenceJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*d = Difference{orNaN(j.Median), orNaN(j.Low), orNaN(j.High), j.P, j.N, orNaN(j.Smallest), j.Unit, nil, nil}
	return nil
}

// At is the same difference with an interval of confidence 1 - alpha.
func (d Difference) At(alpha float64) Difference {
	if d.shift == nil {
		return d
	}
	d.Low, d.High, d.Smallest = math.NaN(), math.NaN(), math.NaN()
	low, high, ok := d.shift.interval(alpha)
	if !ok {
		return d
	}
	d.Low, d.High = d.scale(low), d.scale(high)
	// The interval reaches z standard errors out. To be excluded from it
	// with the wanted power a difference lies normalQuantile(power) more.
	z := normalQuantile(1 - alpha/2)
	d.Smallest = d.scale((high - low) / 2 * (1 + normalQuantile(power)/z))
	return d
}

func (d Difference) hasInterval() bool { return !math.IsNaN(d.Low) && !math.IsNaN(d.High) }

func newDifference(s shift, scale func(float64) float64, n int, unit string) Difference {
	d := Difference{Median: scale(s.estimate()), P: s.p(0), N: n, Unit: unit, shift: s, scale: scale}
	return d.At(Alpha)
}

func noDifference(n int, unit string) Difference {
	nan := math.NaN()
	return Difference{nan, nan, nan, 1, n, nan, unit, nil, nil}
}

// ofRatio is a shift of logarithms in percent.
func ofRatio(shift float64) float64 { return 100 * math.Expm1(shift) }

// Paired compares b with a round by round: a[i] and b[i] come from the same
// round. The estimate is that of Hodges and Lehmann on the logarithms of
// b[i]/a[i], the median of the means of all pairs of rounds, and the interval
// inverts Wilcoxon's signed-rank test (Lehmann, Nonparametrics, 4.3; Hollander,
// Wolfe and Chicken, 3.2-3.3). It is about 20 % narrower than the order
// statistics of the ratios and, unlike them, does not jump with every round.
// The price is the assumption that ratios scatter symmetrically; two rows that
// are alike do so by construction.
//
// The slices must be equally long and positive, or nothing is compared.
func Paired(a, b []float64) Difference {
	return ofRatios(a, b, paired)
}

// PairedPrices is [Paired] for prices, which may be 0 or negative in a round:
// the estimate is that of the differences b[i]-a[i] in ns, shown in percent of
// the median of a. What that median is uncertain by is not in the interval; p
// does not depend on it. Nothing is compared when it is not positive.
func PairedPrices(a, b []float64) Difference {
	return ofPrices(a, b, paired)
}

// ofRatios compares by the logarithms of values, ofPrices by values that may be 0 or negative.
func ofRatios(a, b []float64, compare func(a, b []float64, scale func(float64) float64) Difference) Difference {
	la, okA := logs(a)
	lb, okB := logs(b)
	if !okA || !okB {
		return noDifference(min(len(a), len(b)), percent)
	}
	return compare(la, lb, ofRatio)
}

func ofPrices(a, b []float64, compare func(a, b []float64, scale func(float64) float64) Difference) Difference {
	scale, ok := ofPrice(a, b)
	if !ok {
		return noDifference(min(len(a), len(b)), percent)
	}
	return compare(a, b, scale)
}

// ofPrice shows shifts in percent of the median of a; ok is false when that is
// not positive, or a value is not finite.
func ofPrice(a, b []float64) (scale func(float64) float64, ok bool) {
	base := Median(a)
	scale = func(shift float64) float64 { return 100 * shift / base }
	return scale, base > 0 && finite(a) && finite(b)
}

func paired(a, b []float64, scale func(float64) float64) Difference {
	if len(a) != len(b) || len(a) == 0 {
		return noDifference(min(len(a), len(b)), percent)
	}
	d := make([]float64, len(a))
	for i := range a {
		d[i] = b[i] - a[i]
	}
	slices.Sort(d)
	return newDifference(signedRank{d}, scale, len(d), percent)
}

// signedRank holds sorted values, mostly differences. Its statistic W is the
// number of Walsh averages (d[i]+d[j])/2, i <= j, above the tested shift.
type signedRank struct{ d []float64 }

func (s signedRank) walsh() int { return len(s.d) * (len(s.d) + 1) / 2 }

func (s signedRank) estimate() float64 {
	n := s.walsh()
	middle := s.order((n + 1) / 2)
	if n%2 == 1 {
		return middle
	}
	return (middle + s.order(n/2+1)) / 2
}

// order is the k-th smallest Walsh average, from 1. It is found by bisection,
// as there are n²/2 of them.
func (s signedRank) order(k int) float64 {
	return bisect(s.d[0], s.d[len(s.d)-1], func(t float64) bool { return s.atMost(t) >= k })
}

// atMost is the number of Walsh averages at or below t.
func (s signedRank) atMost(t float64) (n int) {
	j := len(s.d) - 1 // d[i]+d[j] <= 2t holds up to j
	for i := range s.d {
		for j >= i && (s.d[i]+s.d[j])/2 > t {
			j--
		}
		if j < i {
			break
		}
		n += j - i + 1
	}
	return n
}

// below is the number of Walsh averages below t.
func (s signedRank) below(t float64) (n int) {
	j := len(s.d) - 1
	for i := range s.d {
		for j >= i && (s.d[i]+s.d[j])/2 >= t {
			j--
		}
		if j < i {
			break
		}
		n += j - i + 1
	}
	return n
}

func (s signedRank) interval(alpha float64) (low, high float64, ok bool) {
	k := signedRankQuantile(len(s.d), alpha)
	if k == 0 {
		return math.NaN(), math.NaN(), false
	}
	return s.order(k), s.order(s.walsh() + 1 - k), true
}

// exactPairs is up to how many pairs the distribution of W is exact.
const exactPairs = 100

// signedRankQuantile is the largest k with 2 P(W < k) <= alpha for n pairs.
func signedRankQuantile(n int, alpha float64) int {
	if n > exactPairs {
		mean, sd := signedRankNormal(n)
		return max(int(math.Floor(mean-0.5+sd*normalQuantile(alpha/2)))+1, 0)
	}
	dist := signedRankDist(n)
	k := 0
	for tail := 0.0; k < len(dist); k++ {
		if tail += dist[k]; 2*tail > alpha {
			break
		}
	}
	return k
}

func (s signedRank) p(delta float64) float64 {
	// Ties count half on each side: towards no difference.
	below := float64(s.atMost(delta)+s.below(delta)) / 2
	w := int(math.Ceil(min(below, float64(s.walsh())-below)))
	if n := len(s.d); n > exactPairs {
		mean, sd := signedRankNormal(n)
		return min(2*normalCDF((float64(w)+0.5-mean)/sd), 1)
	}
	tail := 0.0
	for k, p := range signedRankDist(len(s.d)) {
		if k > w {
			break
		}
		tail += p
	}
	return min(2*tail, 1)
}

// signedRankNormal are the mean and the standard deviation of W for n pairs without a shift.
func signedRankNormal(n int) (mean, sd float64) {
	top := float64(n) * float64(n+1) / 2
	return top / 2, math.Sqrt(top * float64(2*n+1) / 12)
}

// signedRankDist is the distribution of Wilcoxon's W for at most [exactPairs] pairs without a
// shift, from 0 up to its range.
func signedRankDist(n int) []float64 {
	top := n * (n + 1) / 2
	dist := make([]float64, top+1)
	dist[0] = 1
	for rank := 1; rank <= n; rank++ {
		for k := rank * (rank + 1) / 2; k >= 0; k-- {
			p := dist[k] / 2
			if k >= rank {
				p += dist[k-rank] / 2
			}
			dist[k] = p
		}
	}
	return dist
}

// bisect is the smallest t in [low, high] for which enough(t) holds, given
// that it holds at high, to the last bits of the range. 0 is found exactly, as
// intervals are compared with it.
func bisect(low, high float64, enough func(float64) bool) float64 {
	if enough(low) {
		return low
	}
	if low < 0 && high > 0 {
		if enough(0) {
			high = 0
		} else {
			low = 0
		}
	}
	for range 100 {
		mid := low + (high-low)/2
		if mid <= low || mid >= high {
			break
		}
		if enough(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

func normalCDF(x float64) float64      { return math.Erfc(-x/math.Sqrt2) / 2 }
func normalQuantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

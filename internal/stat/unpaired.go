package stat

import (
	"math"
	"slices"

	"github.com/aclements/go-moremath/mathx"
)

// Unpaired compares b with a when they come from different runs. Both are in
// the order they were measured.
//
// The estimate is the shift of Hodges and Lehmann: the median of all
// differences of logarithms. Its interval holds that of Mann and Whitney
// (Lehmann, Nonparametrics, 2.5; normal approximation), which knows scatter
// only, and one that knows drift:
//
//   - scatter is the variance of successive differences (von Neumann, 1941),
//     which slow drift hardly touches;
//   - drift is what the means of six blocks of a run vary more than scatter
//     explains. How far it carries the machine between two runs depends on how
//     long the machine remembers. If for one run's length (an AR(1) process
//     with that time constant), block means vary by 0.26 of its variance and
//     two runs far apart by twice its variance: a factor of driftCarry. A
//     random walk and two runs back to back would need 4. A shorter memory
//     needs less, but six blocks are too few to tell it by;
//   - the sum is compared with Student's t, with the degrees of freedom of
//     Satterthwaite (1946); those of the drift are few, as it sits in the
//     slowest modes of each run.
//
// What the runs do not show, it cannot know. A machine that was steady during
// both runs and changed between them looks like a difference, and is reported
// as one: only rows of one run settle that. Nothing is compared when a value
// is not positive.
func Unpaired(a, b []float64) Difference {
	return ofRatios(a, b, unpaired)
}

// UnpairedPrices is [Unpaired] for prices, which may be 0 or negative in a
// round: shift, scatter and drift are those of the values in ns, shown in
// percent of the median of a. What that median is uncertain by is not in the
// interval; p does not depend on it. Nothing is compared when it is not
// positive.
func UnpairedPrices(a, b []float64) Difference {
	return ofPrices(a, b, unpaired)
}

// Independent compares b with a when each value is of another machine: nothing drifts from one
// to the next. The estimate is that of [Unpaired], its interval that of Mann and Whitney alone.
// Nothing is compared when a value is not positive.
func Independent(a, b []float64) Difference {
	return ofRatios(a, b, independent)
}

// IndependentPrices is [Independent] for prices, as [UnpairedPrices] is [Unpaired].
func IndependentPrices(a, b []float64) Difference {
	return ofPrices(a, b, independent)
}

func independent(a, b []float64, scale func(float64) float64) Difference {
	n := min(len(a), len(b))
	if n == 0 {
		return noDifference(n, percent)
	}
	s := twoRuns{a: sorted(a), b: sorted(b)}
	if n >= MinRounds {
		s.df = float64(len(a) + len(b) - 2)
	}
	return newDifference(s, scale, n, percent)
}

func unpaired(a, b []float64, scale func(float64) float64) Difference {
	n := min(len(a), len(b))
	if n == 0 {
		return noDifference(n, percent)
	}
	s := twoRuns{a: sorted(a), b: sorted(b)}
	if n >= MinRounds {
		s.se, s.df = driftError(a, b)
	}
	return newDifference(s, scale, n, percent)
}

// logs are the logarithms of xs; ok is false when one is not positive.
func logs(xs []float64) ([]float64, bool) {
	ls := make([]float64, len(xs))
	for i, x := range xs {
		if !(x > 0 && !math.IsInf(x, 1)) {
			return nil, false
		}
		ls[i] = math.Log(x)
	}
	return ls, true
}

// twoRuns are the sorted values of two runs: logarithms, or prices in ns.
type twoRuns struct {
	a, b []float64
	// se is the standard error of the shift with drift, 0 where nothing drifts; df its
	// degrees of freedom, 0 when there were too few rounds.
	se, df float64
}

// atMost is the number of differences b[j]-a[i] at or below t.
func (s twoRuns) atMost(t float64) (n int) {
	j := 0
	for _, x := range s.a {
		for j < len(s.b) && s.b[j]-x <= t {
			j++
		}
		n += j
	}
	return n
}

// below is the number of differences b[j]-a[i] below t.
func (s twoRuns) below(t float64) (n int) {
	j := 0
	for _, x := range s.a {
		for j < len(s.b) && s.b[j]-x < t {
			j++
		}
		n += j
	}
	return n
}

func (s twoRuns) order(k int) float64 {
	return bisect(s.b[0]-s.a[len(s.a)-1], s.b[len(s.b)-1]-s.a[0], func(t float64) bool { return s.atMost(t) >= k })
}

func (s twoRuns) estimate() float64 {
	n := len(s.a) * len(s.b)
	middle := s.order((n + 1) / 2)
	if n%2 == 1 {
		return middle
	}
	return (middle + s.order(n/2+1)) / 2
}

// uDeviation is the mean and standard deviation of the Mann-Whitney count.
func (s twoRuns) uDeviation() (mean, sd float64) {
	m, n := float64(len(s.a)), float64(len(s.b))
	return m * n / 2, math.Sqrt(m * n * (m + n + 1) / 12)
}

func (s twoRuns) interval(alpha float64) (low, high float64, ok bool) {
	if s.df == 0 {
		return math.NaN(), math.NaN(), false
	}
	mean, sd := s.uDeviation()
	k := int(math.Floor(mean - 0.5 - sd*normalQuantile(1-alpha/2)))
	if k < 1 {
		return math.NaN(), math.NaN(), false
	}
	low, high = s.order(k), s.order(len(s.a)*len(s.b)+1-k)
	if s.se == 0 {
		return low, high, true
	}
	half := s.se * tQuantile(1-alpha/2, s.df)
	mid := s.estimate()
	return min(low, mid-half), max(high, mid+half), true
}

func (s twoRuns) p(delta float64) float64 {
	if s.df == 0 {
		return 1
	}
	mean, sd := s.uDeviation()
	off := math.Abs(float64(s.atMost(delta)+s.below(delta))/2 - mean)
	p := 2 * normalCDF(-max(off-0.5, 0)/sd)
	if s.se > 0 {
		p = max(p, 2*tCDF(-math.Abs(s.estimate()-delta)/s.se, s.df))
	}
	return min(p, 1)
}

// driftError is the standard error of the shift between two runs, and its
// degrees of freedom.
func driftError(a, b []float64) (se, df float64) {
	scatterA, driftA := components(winsorize(a))
	scatterB, driftB := components(winsorize(b))
	scatter := scatterA/float64(len(a)) + scatterB/float64(len(b))
	return withDrift(scatter, (driftA+driftB)/2, len(a)+len(b))
}

// withDrift is the standard error of the shift between two runs of n rounds
// together, and its degrees of freedom. scatter is the variance of the shift
// that scatter explains, drift that of a run's block means.
func withDrift(scatter, drift float64, n int) (se, df float64) {
	drift *= driftCarry
	// The variance of successive differences has about 2/3 of the degrees
	// of freedom its samples have.
	dfScatter := float64(n-2) * 2 / 3
	total := scatter + drift
	if total == 0 {
		return 0, dfScatter
	}
	scatter, drift = scatter/total, drift/total
	return math.Sqrt(total), 1 / (scatter*scatter/dfScatter + drift*drift/driftDF)
}

const (
	driftBlocks = 6
	driftCarry  = 8
	driftDF     = 4
)

// components splits the variance of a run into scatter, the variance of one
// round, and drift, the variance of block means beyond what scatter explains.
func components(xs []float64) (scatter, drift float64) {
	for i := 1; i < len(xs); i++ {
		d := xs[i] - xs[i-1]
		scatter += d * d / 2
	}
	scatter /= float64(len(xs) - 1)

	var means [driftBlocks]float64
	explained := 0.0
	for i := range means {
		block := xs[i*len(xs)/driftBlocks : (i+1)*len(xs)/driftBlocks]
		for _, x := range block {
			means[i] += x / float64(len(block))
		}
		explained += scatter / float64(len(block)) / driftBlocks
	}
	return scatter, max(variance(means[:])-explained, 0)
}

// winsorize pulls values further than three robust standard deviations from
// the median back to there, so that one disturbed round does not pass for
// drift. The estimate is a median and ignores it as well.
func winsorize(xs []float64) []float64 {
	med := Median(xs)
	dev := make([]float64, len(xs))
	for i, x := range xs {
		dev[i] = math.Abs(x - med)
	}
	reach := 3 * 1.4826 * Median(dev)
	if reach == 0 {
		return xs
	}
	out := slices.Clone(xs)
	for i := range out {
		out[i] = min(max(out[i], med-reach), med+reach)
	}
	return out
}

func variance(xs []float64) float64 {
	mean, sum := 0.0, 0.0
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	for _, x := range xs {
		sum += (x - mean) * (x - mean)
	}
	return sum / float64(len(xs)-1)
}

// tCDF is Student's distribution with df degrees of freedom, which need not
// be whole (Abramowitz and Stegun, 26.7.1).
func tCDF(t, df float64) float64 {
	tail := mathx.BetaInc(df/(df+t*t), df/2, 0.5) / 2
	if t > 0 {
		return 1 - tail
	}
	return tail
}

// tQuantile is the inverse of tCDF for 0.5 <= p < 1.
func tQuantile(p, df float64) float64 {
	high := 1.0
	for tCDF(high, df) < p && high < 1e9 {
		high *= 2
	}
	return bisect(0, high, func(t float64) bool { return tCDF(t, df) >= p })
}

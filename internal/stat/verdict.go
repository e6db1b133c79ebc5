package stat

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// The words of a verdict. "no difference seen" is followed by what would have
// been seen: see [Verdict].
const (
	Faster       = "faster"
	Slower       = "slower"
	NoDifference = "no difference seen"
	CannotTell   = "cannot tell"
)

// Verdict says what d proves, given that differences of threshold and more
// matter. The threshold is in the unit of d, mostly percent.
//
//   - "faster" and "slower": no difference is ruled out (P <= [Alpha]). How
//     much faster is for the interval to say; see [Beyond].
//   - "no difference seen (would have seen X %)": the whole interval lies
//     within the threshold, and a difference of the threshold would have been
//     found nine times in ten. It is a finding, so it can be relied on.
//   - "cannot tell": everything else. The samples are too few or scatter too
//     much to find a difference of the threshold, so that none was found means
//     nothing.
//
// With a threshold of zero or less any interval around zero is "no difference
// seen".
func Verdict(d Difference, threshold float64) string {
	switch {
	case !d.hasInterval():
		return CannotTell
	case d.P <= Alpha && d.Median > 0:
		return Slower
	case d.P <= Alpha && d.Median < 0:
		return Faster
	case threshold <= 0 || d.Smallest <= threshold && -threshold < d.Low && d.High < threshold:
		return fmt.Sprintf("%s (%s)", NoDifference, d.WouldHaveSeen())
	}
	return CannotTell
}

// WouldHaveSeen says what the smallest difference is that d's samples would have
// shown: "would have seen 2.4 %".
func (d Difference) WouldHaveSeen() string {
	unit := "%"
	if d.Unit != "" && d.Unit != percent {
		unit = d.Unit
	}
	return fmt.Sprintf("would have seen %s %s", FormatPercent(d.Smallest), unit)
}

// Beyond reports whether d is a slowdown of more than threshold, which is in d's
// unit, with confidence: the whole interval lies beyond it.
func Beyond(d Difference, threshold float64) bool {
	return d.hasInterval() && d.P <= Alpha && d.Low > threshold
}

// NeededRounds is how many rounds each of two runs needs so that a comparison of so many
// rows can have intervals. Rows of one run need [MinRounds].
func NeededRounds(rows int) int {
	n := MinRounds
	for {
		run := make([]float64, n)
		mean, sd := twoRuns{a: run, b: run}.uDeviation()
		if mean-0.5-sd*normalQuantile(1-Alpha/float64(2*max(rows, 1))) >= 1 {
			return n
		}
		n++
	}
}

// FormatPercent writes a size in percent, or in ns, with two significant digits,
// rounded up: it is used for bounds.
func FormatPercent(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "?"
	}
	digits := 0
	switch {
	case x < 1:
		digits = 2
	case x < 10:
		digits = 1
	}
	scale := math.Pow(10, float64(digits))
	return strconv.FormatFloat(max(math.Ceil(x*scale-1e-9), 0)/scale, 'f', digits, 64)
}

// Holm adjusts p values of one family for being many: an adjusted value of at
// most alpha is false for any of them with probability at most alpha (Holm,
// 1979). No independence is assumed. Order is kept; NaN counts as 1.
func Holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	adjusted := make([]float64, len(ps))
	for i, p := range ps {
		order[i], adjusted[i] = i, p
		if math.IsNaN(p) {
			adjusted[i] = 1
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case adjusted[i] < adjusted[j]:
			return -1
		case adjusted[i] > adjusted[j]:
			return 1
		}
		return 0
	})
	floor := 0.0
	for rank, i := range order {
		floor = max(floor, min(adjusted[i]*float64(len(ps)-rank), 1))
		adjusted[i] = floor
	}
	return adjusted
}

// Family makes differences that are read together hold together: every P is
// adjusted by [Holm], so that a verdict is false for any of them at most once
// in 20 times, and every interval is widened to 1 - Alpha/n, so that all
// enclose their truths as often (Bonferroni). Where Holm finds a difference
// and the wider interval still reaches across zero, it is cut off at zero:
// the compatible bound (Guilbaud, 2008).
//
// A difference of ranks whose rounds are too few for 1 - Alpha/n is replaced by one of
// means: see [Difference.resolving].
func Family(ds []Difference) []Difference {
	ds = slices.Clone(ds)
	for i, d := range ds {
		ds[i] = d.resolving(Alpha / float64(len(ds)))
	}
	ps := make([]float64, len(ds))
	for i, d := range ds {
		ps[i] = d.P
	}
	out := make([]Difference, len(ds))
	for i, p := range Holm(ps) {
		d := ds[i].At(Alpha / float64(len(ds)))
		d.P = p
		if p <= Alpha && d.Median > 0 {
			d.Low = max(d.Low, 0)
		}
		if p <= Alpha && d.Median < 0 {
			d.High = min(d.High, 0)
		}
		out[i] = d
	}
	return out
}

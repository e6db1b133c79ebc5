package stat

import (
	"math"
	"math/rand/v2"
	"slices"
)

// MinChanges is the smallest number of runs in which a change of level can be told
// from noise at 95 %: of all orders of eight values, 1 in 35 has four smaller ones
// first or last.
const MinChanges = 8

const (
	// leastLevel is the fewest runs a level has: one alone is an outlier.
	leastLevel = 2
	// permutations that a distribution is taken from.
	permutations = 1999
	// maxPermuted bounds what permuting takes: places times permutations.
	maxPermuted = 2_000_000
)

// Change is a run from which on a row has another level.
type Change struct {
	// At is the first run of the new level.
	At int
	// Shift is new less old level, in percent of the old one where all values are
	// positive, else in their unit; the interval is that of Mann and Whitney for
	// the runs of the two levels. Low and High are NaN for too few.
	Shift Difference
	// P is the probability of a series at least this uneven, in any row, when runs
	// come in no order.
	P float64
}

// Changes finds where the levels of rows change over many runs. rows[r][i] is row r
// in run i, nil where that run has no such row. The result has the changes of each
// row in order; a row with fewer than [MinChanges] runs has none.
//
// The statistic is the self-normalized CUSUM of Shao and Zhang (Journal of the
// American Statistical Association 105, 2010): the largest jump between the means
// before and after a run, compared with how much the same sums wander within the two
// parts. It needs no estimate of the noise, and slow wandering, which drift is, counts
// against a jump. A run counts by the width of its interval and the scatter of all
// runs together. What it is when nothing changed is taken from permutations: runs in
// random order, all rows of a run together, and the largest of all rows (Westfall and
// Young, 1993). So noise of any shape, outliers and two modes give a false change in 5
// of 100 series of any number of rows, as long as runs are independent. Runs that
// resemble their neighbors give more: 10 to 20 of 100 when neighbors correlate by
// 0.3, 20 to 50 by 0.6. [Drifts] tells such series.
//
// A change is also compared with the intervals of the runs: one that they alone would
// explain does not count. Where there is one, both parts are searched again, each at half the
// error rate (binary segmentation).
func Changes(rows [][]*Quantity) [][]Change {
	found := make([][]Change, len(rows))
	all := make([]*levels, len(rows))
	runs := 0
	for r, row := range rows {
		all[r] = newLevels(row)
		runs = max(runs, len(row))
	}
	first := searchable(all)
	for r, p := range permuted(first, runs) {
		l := first[r]
		if l == nil || p > Alpha {
			continue
		}
		cuts := l.split(p, Alpha/2)
		slices.SortFunc(cuts, func(a, b cut) int { return a.at - b.at })
		for i, c := range cuts {
			from, to := 0, len(l.y)
			if i > 0 {
				from = cuts[i-1].at
			}
			if i+1 < len(cuts) {
				to = cuts[i+1].at
			}
			found[r] = append(found[r], Change{At: l.at[c.at], Shift: l.shift(from, c.at, to), P: c.p})
		}
	}
	return found
}

// cut is the first value of a new level.
type cut struct {
	at int
	p  float64
}

// levels are the values of a row, without the runs that lack it.
type levels struct {
	at      []int     // run of each
	y       []float64 // logarithms, or values when one is not positive
	own     []float64 // variance of each by its interval, 0 without one
	weights []float64
	log     bool
}

func newLevels(row []*Quantity) *levels {
	l := &levels{log: true}
	var values, halves []float64
	for i, q := range row {
		if q == nil || math.IsNaN(q.Median) || math.IsInf(q.Median, 0) {
			continue
		}
		l.at = append(l.at, i)
		values = append(values, q.Median)
		half := (q.High - q.Low) / 2
		if math.IsNaN(half) || math.IsInf(half, 0) || half < 0 {
			half = 0
		}
		halves = append(halves, half)
		l.log = l.log && q.Median > 0
	}
	for i, x := range values {
		se := halves[i] / normalQuantile(1-Alpha/2)
		if l.log {
			se /= x
			x = math.Log(x)
		}
		l.y, l.own = append(l.y, x), append(l.own, se*se)
	}
	l.weigh()
	return l
}

// weigh gives each run a weight of one by its variance: that of its own interval and
// what all runs scatter by.
func (l *levels) weigh() {
	mid := Median(l.y)
	var away []float64
	for _, y := range l.y {
		away = append(away, math.Abs(y-mid))
	}
	scatter := 1.4826 * Median(away)
	if !(scatter > 0) {
		scatter = 1e-9
	}
	l.weights = make([]float64, len(l.y))
	for i := range l.y {
		l.weights[i] = scatter * scatter / (scatter*scatter + l.own[i])
	}
}

// part is the levels from i to j, with weights of their own.
func (l *levels) part(i, j int) *levels {
	p := &levels{at: l.at[i:j], y: l.y[i:j], own: l.own[i:j], log: l.log}
	p.weigh()
	return p
}

// searchable are the rows in which a change can be found; others are nil.
func searchable(all []*levels) []*levels {
	out := make([]*levels, len(all))
	for r, l := range all {
		if len(l.y) >= MinChanges && slices.Max(l.y) > slices.Min(l.y) {
			out[r] = l
		}
	}
	return out
}

// permuted is the p of each row: how often rows of runs in random order are at least
// as uneven, in the most uneven of them.
func permuted(rows []*levels, runs int) []float64 {
	ps := make([]float64, len(rows))
	observed := make([]float64, len(rows))
	points := 0
	var scratch cusum
	var squares []float64
	for r, l := range rows {
		ps[r] = 1
		if l != nil {
			observed[r] = scratch.uneven(l.y, l.weights, &squares)
			points += len(l.y)
		}
	}
	if points == 0 {
		return ps
	}
	n := min(permutations, max(maxPermuted/points, 199))
	// The same series has the same changes whenever it is looked at.
	random := rand.New(rand.NewPCG(uint64(runs), uint64(points)))
	atLeast := make([]int, len(rows))
	order := make([]int, runs)
	y, w := make([]float64, runs), make([]float64, runs)
	for i := range order {
		order[i] = i
	}
	for range n {
		random.Shuffle(runs, func(i, j int) { order[i], order[j] = order[j], order[i] })
		most := 0.0
		for _, l := range rows {
			if l == nil {
				continue
			}
			k := 0
			for _, run := range order {
				if i, ok := slices.BinarySearch(l.at, run); ok {
					y[k], w[k] = l.y[i], l.weights[i]
					k++
				}
			}
			most = max(most, scratch.uneven(y[:k], w[:k], &squares))
		}
		for r := range rows {
			if most >= observed[r]*(1-1e-9) {
				atLeast[r]++
			}
		}
	}
	for r, l := range rows {
		if l != nil {
			ps[r] = float64(atLeast[r]+1) / float64(n+1)
		}
	}
	return ps
}

// cusum keeps the sums of one series, to be used again: of weights, of weighted
// values, and of their squares and products up to each place.
type cusum struct{ w, s, ws, ss, sw, ww []float64 }

func (c *cusum) take(y, w []float64) {
	mean, weight := 0.0, 0.0
	for i := range y {
		mean += w[i] * y[i]
		weight += w[i]
	}
	mean /= weight
	c.w, c.s = append(c.w[:0], 0), append(c.s[:0], 0)
	c.ws, c.ss = append(c.ws[:0], 0), append(c.ss[:0], 0)
	c.sw, c.ww = append(c.sw[:0], 0), append(c.ww[:0], 0)
	for i := range y {
		s, w := c.s[i]+w[i]*(y[i]-mean), c.w[i]+w[i]
		c.s, c.w = append(c.s, s), append(c.w, w)
		c.ws, c.ss = append(c.ws, c.ws[i]+w), append(c.ss, c.ss[i]+s)
		c.sw, c.ww = append(c.sw, c.sw[i]+s*w), append(c.ww, c.ww[i]+w*w)
	}
}

// squares are those of s up to each place, kept in a slice of their own.
func (c *cusum) squares(into []float64) []float64 {
	into = append(into[:0], 0)
	for i := 1; i < len(c.s); i++ {
		into = append(into, into[i-1]+c.s[i]*c.s[i])
	}
	return into
}

// wander is how much the sums from i to j stray from a straight line, squared.
func (c *cusum) wander(squares []float64, i, j int) float64 {
	n := float64(j - i)
	s0, w0 := c.s[i], c.w[i]
	slope := (c.s[j] - s0) / (c.w[j] - w0)
	// Sums over the places after i up to j of s-s0 and w-w0 and their products.
	a := squares[j] - squares[i] - 2*s0*(c.ss[j]-c.ss[i]) + n*s0*s0
	ab := c.sw[j] - c.sw[i] - s0*(c.ws[j]-c.ws[i]) - w0*(c.ss[j]-c.ss[i]) + n*s0*w0
	b := c.ww[j] - c.ww[i] - 2*w0*(c.ws[j]-c.ws[i]) + n*w0*w0
	return max(a-2*slope*ab+slope*slope*b, 0)
}

// window is the shortest part of n runs beside a place that is looked at alone. The
// parts grow from there by doubling, up to the ends: beside a third level, only a part
// shows the jump between the first two (Zhao, Jiang and Shao, Journal of the Royal
// Statistical Society B 84, 2022). Shorter parts would take drift for a jump.
func window(n int) int { return max(MinChanges, n/4) }

// uneven is the statistic: 0 for a series without a jump.
func (c *cusum) uneven(y, w []float64, squares *[]float64) float64 {
	n := len(y)
	if n < 2*leastLevel {
		return 0
	}
	c.take(y, w)
	*squares = c.squares(*squares)
	floor := 1e-12 * (1 + c.wander(*squares, 0, n))
	most := 0.0
	for k := leastLevel; k <= n-leastLevel; k++ {
		for left := window(n); ; left *= 2 {
			i := max(k-left, 0)
			before := c.wander(*squares, i, k)
			for right := window(n); ; right *= 2 {
				j := min(k+right, n)
				jump := c.s[k] - c.s[i] - (c.w[k]-c.w[i])/(c.w[j]-c.w[i])*(c.s[j]-c.s[i])
				most = max(most, jump*jump*float64(j-i)/(before+c.wander(*squares, k, j)+floor))
				if j == n {
					break
				}
			}
			if i == 0 {
				break
			}
		}
	}
	return most
}

// split is where the levels part, and where their parts do.
func (l *levels) split(p, alpha float64) []cut {
	k := l.where()
	if k == 0 || !l.beyondIntervals(k) {
		return nil
	}
	out := []cut{{k, p}}
	for from, part := range map[int]*levels{0: l.part(0, k), k: l.part(k, len(l.y))} {
		one := searchable([]*levels{part})
		if p := permuted(one, part.at[len(part.at)-1]+1)[0]; p <= alpha {
			for _, c := range part.split(p, alpha/2) {
				out = append(out, cut{from + c.at, c.p})
			}
		}
	}
	return out
}

// where is the first value of the second level: the place that leaves the least
// squares.
func (l *levels) where() int {
	total, weights := 0.0, 0.0
	for i, y := range l.y {
		total += l.weights[i] * y
		weights += l.weights[i]
	}
	best, at := 0.0, 0
	sum, weight := 0.0, 0.0
	for k := 1; k < len(l.y); k++ {
		sum += l.weights[k-1] * l.y[k-1]
		weight += l.weights[k-1]
		if k < leastLevel || len(l.y)-k < leastLevel {
			continue
		}
		d := sum/weight - (total-sum)/(weights-weight)
		if t := d * d * weight * (weights - weight) / weights; t > best {
			best, at = t, k
		}
	}
	return at
}

// beyondIntervals reports whether the two levels differ by more than the intervals of
// their runs explain.
func (l *levels) beyondIntervals(k int) bool {
	mean := func(from, to int) (m, variance float64) {
		weight := 0.0
		for i := from; i < to; i++ {
			m += l.weights[i] * l.y[i]
			variance += l.weights[i] * l.weights[i] * l.own[i]
			weight += l.weights[i]
		}
		return m / weight, variance / (weight * weight)
	}
	before, va := mean(0, k)
	after, vb := mean(k, len(l.y))
	return math.Abs(after-before) > normalQuantile(1-Alpha/2)*math.Sqrt(va+vb)
}

// LevelShift is the level of the runs b less that of the runs a, as in
// [Change.Shift].
func LevelShift(a, b []*Quantity) Difference {
	n := len(newLevels(a).y)
	both := newLevels(slices.Concat(a, b))
	if n == 0 || n == len(both.y) {
		return noDifference(0, percent)
	}
	return both.shift(0, n, len(both.y))
}

// shift is the level from k to to, less that from from to k.
func (l *levels) shift(from, k, to int) Difference {
	s := twoRuns{a: sorted(l.y[from:k]), b: sorted(l.y[k:to])}
	scale, unit := func(x float64) float64 { return x }, ""
	if l.log {
		scale, unit = ofRatio, percent
	}
	nan := math.NaN()
	m, n := len(s.a), len(s.b)
	d := Difference{Median: scale(s.estimate()), Low: nan, High: nan, P: 1, N: min(m, n), Smallest: nan, Unit: unit}
	mean, sd := s.uDeviation()
	rank := int(math.Floor(mean - 0.5 - sd*normalQuantile(1-Alpha/2)))
	if rank < 1 && 2*math.Exp(lgamma(m+1)+lgamma(n+1)-lgamma(m+n+1)) <= Alpha {
		rank = 1 // the smallest and the largest difference, exactly
	}
	if rank >= 1 {
		d.Low, d.High = min(scale(s.order(rank)), d.Median), max(scale(s.order(m*n+1-rank)), d.Median)
	}
	return d
}

func lgamma(n int) float64 {
	x, _ := math.Lgamma(float64(n))
	return x
}

// Drifts reports whether the runs of a row resemble their neighbors once its changes
// are taken out, so that a change may be drift: their correlation is above 0 at 95 %.
// Fewer than [MinChanges] runs never do.
func Drifts(row []*Quantity, changes []Change) bool {
	l := newLevels(row)
	n := len(l.y)
	if n < MinChanges {
		return false
	}
	var rest []float64
	from := 0
	for i := 1; i <= n; i++ {
		if i < n && !slices.ContainsFunc(changes, func(c Change) bool { return c.At == l.at[i] }) {
			continue
		}
		mean := 0.0
		for _, y := range l.y[from:i] {
			mean += y / float64(i-from)
		}
		for _, y := range l.y[from:i] {
			rest = append(rest, y-mean)
		}
		from = i
	}
	rest = winsorize(rest)
	mean := 0.0
	for _, x := range rest {
		mean += x / float64(n)
	}
	product, squares := 0.0, 0.0
	for i, x := range rest {
		squares += (x - mean) * (x - mean)
		if i > 0 {
			product += (x - mean) * (rest[i-1] - mean)
		}
	}
	// Of independent values it is normal, around -1/n with variance 1/n (Brockwell and
	// Davis, Time Series: Theory and Methods, 7.2).
	return squares > 0 && product/squares > normalQuantile(1-Alpha)/math.Sqrt(float64(n))
}

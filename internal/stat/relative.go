package stat

import "math"

// Reference is fixed work that two runs timed in the rounds of what is compared: Old[i] belongs to a[i], New[i] to b[i].
type Reference struct{ Old, New []float64 }

// RelativeTo is what references leave of a difference of two runs: compare is asked once for each of them, with samples
// that are scaled as if the reference had always taken what its median in the old run is.
//
// What is compared is made of work of the kinds that the references are, in shares that nobody knows, so the machine
// has moved it by something between the least and the most that it moved any of them. The interval holds those relative
// to each reference; the estimate is the one nearest to 0, and 0 where they point to both sides; p is the largest. A
// difference is found only where it is found relative to every reference. So it is wrong at most as often as each of
// them (intersection-union test: Berger, 1982), and there is nothing to correct for their number.
//
// Scaling takes away what moves both within a run, round by round, which makes the interval narrower where a reference
// follows what is compared, and wider by the reference's own scatter where it does not.
func RelativeTo(refs []Reference, a, b []float64, compare func(a, b []float64) Difference) Difference {
	if len(refs) == 0 {
		return compare(a, b)
	}
	s := make(relative, 0, len(refs))
	var d Difference
	for _, r := range refs {
		level := Median(r.Old)
		d = compare(scale(a, r.Old, level), scale(b, r.New, level))
		if d.shift == nil {
			return d // it cannot be compared at all
		}
		s = append(s, d)
	}
	return newDifference(s, func(x float64) float64 { return x }, d.N, d.Unit)
}

// scale are xs as if the reference had taken level in each round.
func scale(xs, reference []float64, level float64) []float64 {
	out := make([]float64, len(xs))
	for i, x := range xs {
		out[i] = x * level / reference[i]
	}
	return out
}

// relative are differences relative to one reference each, in the unit of the differences.
type relative []Difference

func (s relative) estimate() float64 {
	least, most := math.Inf(1), math.Inf(-1)
	for _, d := range s {
		least, most = min(least, d.Median), max(most, d.Median)
	}
	switch {
	case least > 0:
		return least
	case most < 0:
		return most
	}
	return 0
}

func (s relative) interval(alpha float64) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, d := range s {
		at := d.At(alpha)
		if !at.hasInterval() {
			return math.NaN(), math.NaN(), false
		}
		low, high = min(low, at.Low), max(high, at.High)
	}
	return low, high, true
}

// p is that of no difference: delta is 0 wherever it is asked for.
func (s relative) p(float64) float64 {
	p := 0.0
	for _, d := range s {
		p = max(p, d.P)
	}
	if s.estimate() == 0 {
		return 1
	}
	return p
}

package page

import (
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// axis is a linear scale from low to high onto x pixels left to right.
type axis struct {
	low, high   float64
	left, right float64
}

func (a axis) x(v float64) float64 {
	if !(a.high > a.low) {
		return a.left
	}
	return a.left + (a.right-a.left)*min(max((v-a.low)/(a.high-a.low), 0), 1)
}

// ticks are at most n+1 round values of the axis.
func (a axis) ticks(n int) []float64 {
	span := a.high - a.low
	if !(span > 0) || math.IsInf(span, 0) || n < 1 {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10(span/float64(n))))
	for _, by := range []float64{1, 2, 5, 10} {
		if span/(by*step) <= float64(n) {
			step *= by
			break
		}
	}
	var out []float64
	for i := math.Ceil(a.low/step - 1e-9); i*step <= a.high+1e-9*span && len(out) <= n+1; i++ {
		out = append(out, i*step+0) // no -0
	}
	return out
}

// draw draws the axis at y, with its grid up to top and unit at its last tick.
func (a axis) draw(d *drawing, top, y float64, unit string) {
	n := 6
	if !d.wide() {
		n = 3
	}
	ticks := a.ticks(n)
	from := d.width // where the label to the right begins
	for i, v := range slices.Backward(ticks) {
		x := a.x(v)
		d.line("grid", x, top, x, y)
		s := strconv.FormatFloat(v, 'g', 6, 64)
		if i == len(ticks)-1 {
			s += " " + unit
		}
		half := charSans * float64(utf8.RuneCountInString(s)) / 2
		mid := x
		if i == len(ticks)-1 {
			mid = min(x, d.width-half)
		}
		if mid+half <= from {
			d.text("soft mid", mid, y+15, s)
			from = mid - half
		}
	}
	d.line("rule", a.left, y, a.right, y)
}

// span is the range of values.
type span struct {
	low, high float64
	any       bool
}

func (s *span) add(xs ...float64) {
	for _, x := range xs {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		if !s.any {
			s.low, s.high, s.any = x, x, true
		}
		s.low, s.high = min(s.low, x), max(s.high, x)
	}
}

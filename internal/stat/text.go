package stat

import (
	"math"
	"strconv"
	"strings"
)

// Number writes x with three significant digits, of which at most two are behind
// the point: 0.12, 12.3, 123, 1234. Unknown is "?".
func Number(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "?"
	}
	digits := 2
	switch a := math.Abs(x); {
	case a >= 99.95:
		digits = 0
	case a >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64)
}

// Fixed is a writer of numbers with that many digits behind the point.
func Fixed(digits int) func(x float64) string {
	return func(x float64) string { return strconv.FormatFloat(x, 'f', digits, 64) }
}

// Exact writes a count with all its digits, up to ten behind the point: counts of a
// guest are multiples of 1/1024. Unknown is "none".
func Exact(x float64) string {
	if math.IsNaN(x) {
		return "none"
	}
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(x, 'f', 10, 64), "0"), ".")
}

// Text is the median with its unit, and the interval when it is known:
// "12.1 ns [11.3, 12.7]". number writes each of the three: [Number] or [Fixed].
func (q Quantity) Text(number func(float64) string) string {
	s := number(q.Median)
	if q.Unit != "" {
		s += " " + q.Unit
	}
	if around := q.Interval(number); around != "" {
		s += " " + around
	}
	return s
}

// Interval is the interval: "[11.3, 12.7]". It is empty when it is not known.
func (q Quantity) Interval(number func(float64) string) string {
	if math.IsNaN(q.Low) || math.IsNaN(q.High) {
		return ""
	}
	return "[" + number(q.Low) + ", " + number(q.High) + "]"
}

package stat

import (
	"fmt"
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
	s := strconv.FormatFloat(x, 'f', digits, 64)
	if x < 0 && strings.Trim(s, "-0.") == "" { // -0.00 is 0
		return s[1:]
	}
	return s
}

// Signed writes x with its sign and about three significant digits, of which at most
// two are behind the point: +0.50, -3.1, +105. Unknown is "?".
func Signed(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "?"
	}
	digits := 1
	switch a := math.Abs(x); {
	case a >= 99.95:
		digits = 0
	case a < 0.995:
		digits = 2
	}
	s := fmt.Sprintf("%+.*f", digits, x)
	if strings.Trim(s, "+-0.") == "" {
		return s[1:]
	}
	return s
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

// Seen tells whether a cost is told from 0: its whole interval is above 0, or its median where it has no interval.
func (q Quantity) Seen() bool {
	if math.IsNaN(q.Low) || math.IsNaN(q.High) {
		return q.Median > 0
	}
	return q.Low > 0
}

// Cost writes what something costs, without its unit: the median, or else a range from 0 where it is not told from 0:
// "0 to 0.21". A cost below 0 there is none.
func (q Quantity) Cost(number func(float64) string) string {
	switch high := number(q.High); {
	case q.Seen() || math.IsNaN(q.Median):
		return number(q.Median)
	case math.IsNaN(q.High):
		return "about 0"
	case q.High <= 0:
		return "0"
	case high == number(0):
		return "0 to less than 0.01"
	default:
		return "0 to " + high
	}
}

// Times is a quantity n times, where n is more than 0.
func (q Quantity) Times(n float64) *Quantity {
	return &Quantity{Median: n * q.Median, Low: n * q.Low, High: n * q.High, N: q.N, Unit: q.Unit}
}

// Interval is the interval: "[11.3, 12.7]". It is empty when it is not known.
func (q Quantity) Interval(number func(float64) string) string {
	return Interval(q.Low, q.High, number)
}

// Interval writes an interval: "[11.3, 12.7]". It is empty when an end is not known.
func Interval(low, high float64, number func(float64) string) string {
	if math.IsNaN(low) || math.IsNaN(high) {
		return ""
	}
	return "[" + number(low) + ", " + number(high) + "]"
}

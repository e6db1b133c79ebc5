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

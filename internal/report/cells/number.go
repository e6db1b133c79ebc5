package cells

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/stat"
)

// Signed is a percentage with its sign.
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

// Interval is the two ends of one, "[?]" when they are not known.
func Interval(low, high float64, format func(float64) string) string {
	if math.IsNaN(low) || math.IsNaN(high) {
		return "[?]"
	}
	return "[" + format(low) + ", " + format(high) + "]"
}

// Quantity is a median and its interval in two cells.
func Quantity(q *stat.Quantity) (median, around string) {
	if q == nil {
		return "", ""
	}
	return stat.Number(q.Median), Interval(q.Low, q.High, stat.Number)
}

// Difference is the median of one and its interval in two cells, with their signs.
func Difference(d *stat.Difference) (median, around string) {
	return Signed(d.Median), Interval(d.Low, d.High, Signed)
}

// OrDash is a median, "-" when there is none.
func OrDash(q *stat.Quantity) string {
	if q == nil {
		return "-"
	}
	return stat.Number(q.Median)
}

// Value is the median as a number, 0 when there is none.
func Value(q *stat.Quantity) float64 {
	if q == nil || math.IsNaN(q.Median) {
		return 0
	}
	return q.Median
}

// Percent is what share of a packet something is.
func Percent(part, packet *stat.Quantity) string {
	if part == nil || packet == nil || packet.Median == 0 || math.IsNaN(part.Median) {
		return "-"
	}
	percent := 100 * part.Median / packet.Median
	if math.Abs(percent) < 0.05 {
		percent = 0 // not "-0.0"
	}
	return fmt.Sprintf("%.1f %%", percent)
}

// Few writes a count with three digits.
func Few(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }

package cells

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	"github.com/unthunk/unthunk/internal/stat"
)

// Interval is the two ends of one, "[?]" when they are not known.
func Interval(low, high float64, number func(float64) string) string {
	return cmp.Or(stat.Interval(low, high, number), "[?]")
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
	return stat.Signed(d.Median), Interval(d.Low, d.High, stat.Signed)
}

// PlusMinus is half of an interval: "±0.5".
func PlusMinus(q *stat.Quantity) string {
	if q == nil || q.Interval(stat.Number) == "" {
		return ""
	}
	return "±" + stat.Number((q.High-q.Low)/2)
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

// PerPackets is how often something is made, as a whole number for a packet or for a few
// where it is one: "2 a packet", "5 branches in 16 packets". one and many are what is made;
// both may be empty.
func PerPackets(x float64, one, many string) string {
	for n := 1.0; n <= 64; n *= 2 {
		k := x * n
		if k != math.Round(k) || k == 0 {
			continue
		}
		what, per := many, "a packet"
		if k == 1 {
			what = one
		}
		if n > 1 {
			per = fmt.Sprintf("in %.0f packets", n)
		}
		return Join(" ", strconv.FormatFloat(k, 'f', -1, 64), what, per)
	}
	return Join(" ", strconv.FormatFloat(x, 'g', 5, 64), many, "a packet")
}

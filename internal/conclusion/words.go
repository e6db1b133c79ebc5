package conclusion

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/stat"
)

// many counts things: "1 row", "2 rows", "2 branches".
func many(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "branch"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// signed is a number with its sign; "?" when unknown.
func signed(x float64) string {
	if s := stat.Number(x); x > 0 && s != "?" {
		return "+" + s
	} else {
		return s
	}
}

// costText is a cost with its unit and interval; of one that is not told from 0 a range from there.
func costText(q *stat.Quantity) string {
	if q.Seen() || math.IsNaN(q.Median) {
		return q.Text(stat.Number)
	}
	return q.Cost(stat.Number) + " " + q.Unit + " (none seen)"
}

// costPercent is the share that a cost has of what is above 0, with a range where the cost is not told from 0.
func costPercent(cost *stat.Quantity, of float64) string {
	if cost.Seen() || math.IsNaN(cost.Median) {
		return percent(cost.Median / of)
	}
	return fromZero(cost.High / of)
}

// fromZero is a range of shares from 0, whose end is rounded up to the last digit that [percent] shows.
func fromZero(end float64) string {
	switch {
	case math.IsNaN(end):
		return "about 0 %"
	case end <= 0:
		return "0 %"
	}
	steps := 1000. // tenths of a percent
	if end >= 0.0995 {
		steps = 100
	}
	return "0 % to " + percent(math.Ceil(steps*end-1e-9)/steps)
}

// percent is a share, with one digit below ten.
func percent(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "? %"
	}
	if math.Abs(x) < 0.0995 {
		return fmt.Sprintf("%.1f %%", 100*x)
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}

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

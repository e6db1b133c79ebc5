package stat

import (
	"fmt"
	"math"
	"strings"
)

// Exact writes a count with all its digits, up to ten behind the point: counts of
// [lab] are multiples of 1/1024. Unknown is "none".
func Exact(x float64) string {
	if math.IsNaN(x) {
		return "none"
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.10f", x), "0"), ".")
}

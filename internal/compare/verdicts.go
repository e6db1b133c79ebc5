package compare

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// otherVerdicts is the share of packets that may get another verdict before it is said.
const otherVerdicts = 0.001

// warnVerdicts says of which programs the packets met another fate: what they take is then not what the same work takes.
func (c *rows) warnVerdicts(old, new *record.Saved) {
	was := make(map[string]record.Verdicts)
	for _, row := range old.Redirects() {
		if row.Verdicts != nil {
			was[row.Name] = *row.Verdicts
		}
	}
	for _, row := range new.Redirects() {
		before, ok := was[row.Name]
		if !ok || row.Verdicts == nil {
			continue
		}
		shares := make(map[string]float64)
		for _, n := range before.Named() {
			shares[n.Name] = -n.Share
		}
		for _, n := range row.Verdicts.Named() {
			shares[n.Name] += n.Share
		}
		var changed []string
		for _, name := range slices.Sorted(maps.Keys(shares)) {
			if d := shares[name]; math.Abs(d) > otherVerdicts {
				changed = append(changed, fmt.Sprintf("%s %+.1f points", name, 100*d))
			}
		}
		if len(changed) > 0 {
			c.Warn(row.Name, "the program does something else with the packets: "+strings.Join(changed, ", "))
		}
	}
}

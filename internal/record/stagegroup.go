package record

import (
	"math"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// Groups are the ns of a packet by stage group.
func (p *Profile) Groups() map[functions.Group]float64 {
	sums := make(map[functions.Group]float64)
	for _, row := range p.Rows {
		if row.Ns != nil && !math.IsNaN(row.Ns.Median) {
			sums[functions.Stage(row.Name).Group()] += row.Ns.Median
		}
	}
	return sums
}

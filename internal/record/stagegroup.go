package record

import (
	"math"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/stat"
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

// Path is what a redirected packet takes on the redirect path, in ns: the sum of the
// stages that any machine's packet has. Nil when there are none.
func Path(stages []ProfileRow) *stat.Quantity {
	var sums []float64
	for _, row := range stages {
		if !functions.Stage(row.Name).OnPath() {
			continue
		}
		if sums == nil {
			sums = make([]float64, len(row.Samples))
		}
		for i := range min(len(sums), len(row.Samples)) {
			sums[i] += row.Samples[i]
		}
	}
	if len(sums) == 0 {
		return nil
	}
	q := stat.Mean(sums, "ns")
	q.Low = max(q.Low, 0)
	return &q
}

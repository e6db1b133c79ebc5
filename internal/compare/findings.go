package compare

import (
	"cmp"
	"slices"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// Findings compares two records of check. What became a warning comes first.
func Findings(old, new *record.Check) *record.FindingComparison {
	c := &record.FindingComparison{Causes: causes(old.Host, new.Host)}
	c.Head, c.Compared = headOf(&old.Head, &new.Head)
	c.Rows, c.Warnings = []record.FindingChange{}, []record.Warning{}
	for was, is := range matched(old.Rows, new.Rows, func(f *host.Finding) string { return f.Name }) {
		name := ""
		if was != nil {
			name = was.Name
		}
		if is != nil {
			name = is.Name
		}
		if was != nil && is != nil {
			c.Checked++
			if was.Found == is.Found && was.Level == is.Level {
				c.Same++
				continue
			}
		}
		c.Rows = append(c.Rows, record.FindingChange{Name: name, Old: was, New: is})
	}
	order := func(r *record.FindingChange) int {
		if r.Worse() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(c.Rows, func(a, b record.FindingChange) int { return cmp.Compare(order(&a), order(&b)) })
	return c
}

package redirect

import (
	"fmt"

	"unthunk/result"
)

// Verdict says in a few sentences what a ladder of one scenario found: the
// rate at the top, the redirect hop's share of it, and what bulking is worth.
func Verdict(rows []result.BenchRow) string {
	if len(rows) == 0 {
		return "No verdict: nothing was measured."
	}
	first, last := rows[0], rows[len(rows)-1]
	if last.Refused != "" {
		return fmt.Sprintf("No verdict: %s has no number (%s).", last.Name, last.Refused)
	}
	s := fmt.Sprintf("One core sends %.2f Mpps [%.2f, %.2f] through the chain at bulk %s.",
		last.Mpps.Median, last.Mpps.Low, last.Mpps.High, last.Labels["bulk"])
	if last.Hop == nil {
		return s
	}
	s += fmt.Sprintf(" The redirect hop takes %.0f ns [%.0f, %.0f] of a packet's %.0f ns, %.0f %%.",
		last.Hop.Median, last.Hop.Low, last.Hop.High, last.Ns.Median, 100*last.Hop.Median/last.Ns.Median)
	if first.Hop != nil && first.Name != last.Name {
		s += fmt.Sprintf(" At bulk %s it takes %.0f ns [%.0f, %.0f]: bulking saves %.0f ns a packet.",
			first.Labels["bulk"], first.Hop.Median, first.Hop.Low, first.Hop.High, first.Hop.Median-last.Hop.Median)
	}
	return s
}

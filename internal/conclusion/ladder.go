package conclusion

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Ladder says in a few sentences what a ladder of one scenario found: the
// rate at the top, the redirect hop's share of it, and what bulking is worth.
func Ladder(rows []record.BenchRow) string {
	if len(rows) == 0 {
		return "No verdict: nothing was measured."
	}
	first, last := rows[0], rows[len(rows)-1]
	if last.Refused != "" {
		return fmt.Sprintf("No verdict: %s has no number (%s).", last.Name, last.Refused)
	}
	s := fmt.Sprintf("One core sends %s through the chain at bulk %s.", measured(last.Mpps, 2), last.Labels["bulk"])
	if last.Hop == nil {
		return s
	}
	s += fmt.Sprintf(" The redirect hop takes %s of a packet's %.0f ns, %.0f %%.",
		measured(last.Hop, 0), last.Ns.Median, 100*last.Hop.Median/last.Ns.Median)
	if first.Hop == nil || first.Name == last.Name {
		return s
	}
	s += fmt.Sprintf(" At bulk %s it takes %s", first.Labels["bulk"], measured(first.Hop, 0))
	if first.Hop.Low > last.Hop.High {
		return s + fmt.Sprintf(": bulking saves %.0f ns a packet.", first.Hop.Median-last.Hop.Median)
	}
	return s + ": what bulking saves cannot be told from this run."
}

// measured is a quantity with its interval, and why when it has none.
func measured(q *stat.Quantity, digits int) string {
	s := q.Text(stat.Fixed(digits))
	if q.Interval(stat.Fixed(digits)) == "" {
		s += " (too few rounds for an interval)"
	}
	return s
}

package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Ladder says in a few sentences what a ladder of one scenario found: the
// rate at the top, the redirect's share of it, and what bulking is worth.
func Ladder(rows []record.BenchRow) string {
	if len(rows) == 0 {
		return "Nothing was measured."
	}
	first, last := rows[0], rows[len(rows)-1]
	if last.Refused != "" {
		return fmt.Sprintf("%s has no number: %s.", last.Name, last.Refused)
	}
	s := fmt.Sprintf("One core does %s of the whole test at bulk %s.", measured(last.Mpps, 2), last.Labels["bulk"])
	if last.Hop == nil {
		return s
	}
	s += fmt.Sprintf(" The redirect alone takes %s of a packet's %.0f ns, %.0f %%.",
		measured(last.Hop, 0), last.Ns.Median, 100*last.Hop.Median/last.Ns.Median)
	if first.Hop == nil || first.Name == last.Name {
		return s
	}
	s += fmt.Sprintf(" At bulk %s it takes %s", first.Labels["bulk"], measured(first.Hop, 0))
	if first.Hop.Low > last.Hop.High {
		return s + fmt.Sprintf(": bulking saves %.0f ns a packet.", first.Hop.Median-last.Hop.Median)
	}
	return s + ": this run cannot tell what bulking saves."
}

// measured is a quantity with its interval, and why when it has none.
func measured(q *stat.Quantity, digits int) string {
	s := q.Text(stat.Fixed(digits))
	if q.Interval(stat.Fixed(digits)) == "" {
		s += " (too few rounds for an interval)"
	}
	return s
}

func benchHeadline(rows []record.BenchRow, p *record.Profile) Headline {
	var fastest, slowest *record.BenchRow
	for i := range rows {
		row := &rows[i]
		if row.Mpps == nil || row.Ns == nil {
			continue
		}
		if fastest == nil || row.Mpps.Median > fastest.Mpps.Median {
			fastest = row
		}
		if slowest == nil || row.Mpps.Median < slowest.Mpps.Median {
			slowest = row
		}
	}
	if fastest == nil {
		return Headline{Title: "No row has a number", Text: "Each row says why."}
	}
	h := Headline{Title: fmt.Sprintf("%s Mpps on one core", stat.Number(fastest.Mpps.Median))}
	var said []string
	said = append(said, fmt.Sprintf("%s sends %s, %s a packet.", fastest.Name, fastest.Mpps.Text(stat.Number),
		fastest.Ns.Text(stat.Number)))
	share := fastest.Hop != nil && !math.IsNaN(fastest.Hop.Median) && fastest.Ns.Median > 0
	if share {
		what := "Its redirect hop takes"
		if fastest.Labels["prog"] != "" {
			what = "The program and the way of its verdict take"
		}
		said = append(said, fmt.Sprintf("%s %s, %s of the packet.", what, fastest.Hop.Text(stat.Number),
			percent(fastest.Hop.Median/fastest.Ns.Median)))
	}
	if slowest != fastest {
		said = append(said, fmt.Sprintf("The slowest row, %s, sends %s Mpps: %s ns a packet more.",
			slowest.Name, stat.Number(slowest.Mpps.Median), stat.Number(slowest.Ns.Median-fastest.Ns.Median)))
	}
	if p == nil {
		if share {
			what := "the redirect takes"
			if fastest.Labels["prog"] != "" {
				what = "the program and its way take"
			}
			h.Title += fmt.Sprintf("; %s %s of a packet’s %s ns", what,
				percent(fastest.Hop.Median/fastest.Ns.Median), stat.Number(fastest.Ns.Median))
		}
		h.Text = strings.Join(said, " ")
		return h
	}
	of := profileHeadline(p, h.Title)
	return Headline{Title: of.Title, Text: strings.Join(said, " ") + "\n" + of.Text}
}

// RatesBasis says in one sentence what the numbers are. It is empty when there are none.
func RatesBasis(doc *record.Document[record.BenchRow]) string {
	rounds, redirects, devices, yours := 0, false, false, false
	var said, others []string
	for i := range doc.Rows {
		row := &doc.Rows[i]
		rounds = max(rounds, len(row.Rounds))
		redirects = redirects || row.Hop != nil
		scenario := cmp.Or(row.Labels["scenario"], "redirect")
		if row.Hop != nil && !strings.HasPrefix(scenario, "redirect") && !slices.Contains(others, scenario) {
			others = append(others, scenario)
		}
		devices = devices || row.Labels["in"] != ""
		yours = yours || row.Labels["prog"] != ""
		// A cost that may be 0 says nothing.
		if c := row.CountingCost; c != nil && c.Low > 0 {
			said = append(said, fmt.Sprintf("Counting cost: %s a packet, on %s.", c.Text(stat.Number), row.Name))
		}
	}
	if rounds == 0 {
		return ""
	}
	where := ", each on new chains"
	if devices { // they stay what they are
		where = ""
	}
	s := fmt.Sprintf("Medians of %s%s [95 %% intervals].", many(rounds, "round"), where)
	if redirects {
		s += " redirect: ns of the whole test less the same test that drops"
		switch {
		case yours:
			s += ": your program and the way of its verdict"
		case len(others) > 0:
			s += fmt.Sprintf("; of %s too, without a redirect", strings.Join(others, ", "))
		}
		s += "."
	}
	return strings.Join(append([]string{s}, said...), " ")
}

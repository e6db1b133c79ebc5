package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// change is a row of any comparison that has a difference.
type change struct {
	name string
	*record.Change
	// rate is set when the row has one: prices and stages have none.
	rate bool
}

func comparisonHeadline(c *record.Comparison) Headline {
	var changes []change
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Difference != nil && row.Old != nil && row.New != nil {
			rate := !row.Price && !row.Cost && row.Old.Median > 0 && row.New.Median > 0
			name := row.Name
			if row.Cost && name == "all" { // of prog cost, where a row is a class of packets
				name = "all packets"
			}
			changes = append(changes, change{name, &row.Change, rate})
		}
	}
	return changesHeadline(changes, "%")
}

func profileComparisonHeadline(c *record.ProfileComparison) Headline {
	var changes []change
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Difference != nil && row.Old != nil && row.New != nil {
			changes = append(changes, change{row.Name, &row.Change, false})
		}
	}
	return changesHeadline(changes, "ns")
}

// changesHeadline names the row that got slower most, else the one that got faster
// most, else what could have been seen. unit is that of differences.
func changesHeadline(changes []change, unit string) Headline {
	if len(changes) == 0 {
		return Headline{Title: "Nothing could be compared"}
	}
	count := make(map[string]int)
	var sees []float64
	for _, c := range changes {
		count[c.Outcome()]++
		if smallest := c.Judged().Smallest; !math.IsNaN(smallest) {
			sees = append(sees, smallest)
		}
	}
	var parts []string
	for _, word := range []string{stat.Slower, stat.Faster, stat.NoDifference, stat.CannotTell} {
		if n := count[word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", word, n))
		}
	}
	text := all(changes, count)
	if text == "" {
		text = fmt.Sprintf("Of %s compared: %s.", many(len(changes), "row"), strings.Join(parts, ", "))
	}
	if f := fastest(changes); f != nil {
		text += fmt.Sprintf(" The fastest row, %s, went from %s to %s Mpps.", f.name, mpps(f.Old), mpps(f.New))
	}
	if most := largest(changes); most != nil {
		d := most.Difference
		return Headline{
			Title: fmt.Sprintf("%s is %s: %s", most.name, most.Outcome(), fromTo(most.Change, most.rate, unit)),
			Text: text + fmt.Sprintf(" The change of ns is %s %s [%s, %s].",
				signed(d.Median), unit, signed(d.Low), signed(d.High)),
			Tells: true,
		}
	}
	if len(sees) > 0 {
		text += fmt.Sprintf(" Half of the rows would have shown a change of %s %s.", stat.Number(stat.Median(sees)), unit)
	}
	if n := count[stat.CannotTell]; n > 0 {
		return Headline{
			Title: fmt.Sprintf("Cannot tell whether the two differ in %d of %s", n, many(len(changes), "row")), Text: text,
		}
	}
	return Headline{Title: fmt.Sprintf("No difference seen in %s", many(len(changes), "row")), Text: text, Tells: true}
}

// all says that every row got faster, or every row slower, when there are several.
func all(changes []change, count map[string]int) string {
	for _, word := range []string{stat.Slower, stat.Faster} {
		if n := count[word]; n == len(changes) && n > 1 {
			return fmt.Sprintf("All %d rows are %s.", n, word)
		}
	}
	return ""
}

// largest is the row that got slower most, of regressions if there are some, else
// the one that got faster most; nil when none did either.
func largest(changes []change) *change {
	var worst, best *change
	for i := range changes {
		c := &changes[i]
		switch c.Outcome() {
		case stat.Slower:
			if worst == nil || c.Regression && !worst.Regression ||
				c.Regression == worst.Regression && c.Difference.Median > worst.Difference.Median {
				worst = c
			}
		case stat.Faster:
			if best == nil || c.Difference.Median < best.Difference.Median {
				best = c
			}
		}
	}
	return cmp.Or(worst, best)
}

// fastest is the row of least ns a packet; nil when no row has a rate.
func fastest(changes []change) *change {
	var best *change
	for i := range changes {
		if c := &changes[i]; c.rate && (best == nil || c.New.Median < best.New.Median) {
			best = c
		}
	}
	return best
}

// mpps is the rate of a packet that takes ns.
func mpps(ns *stat.Quantity) string { return stat.Number(1e3 / ns.Median) }

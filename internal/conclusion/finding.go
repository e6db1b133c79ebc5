package conclusion

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Comparison says in a sentence or two what a comparison found: why nothing could
// be compared, or how many rows are slower and faster, and which changed most.
func Comparison(c *record.Comparison) string {
	if why := c.Nothing(); why != "" {
		return fmt.Sprintf("Nothing could be compared: %s.", why)
	}
	var f finding
	prices := 0
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Difference != nil {
			f.add(row.Name, &row.Change, !row.Price && !row.Cost)
			if row.Price {
				prices++
			}
		}
	}
	what, slower, faster := "row", "slower", "faster"
	if prices == len(f.changes) {
		what, slower, faster = "price", "higher", "lower"
	}
	said := f.say(what, slower, faster, fmt.Sprintf("%g %%", c.Threshold), "%")
	if n, first := c.Lost(); n > 0 {
		lost := count(n, "row lost its number", "rows lost their numbers")
		said = fmt.Sprintf("%s: %s: %s. %s", lost, first.Name, first.Missing, said)
	}
	return onMachine(&c.MachineChange, said)
}

// onMachine is what a comparison found, after what its references say of the machine: when they moved, that comes first.
func onMachine(m *record.MachineChange, found string) string {
	if moved := MachineChange(m); moved != "" {
		return moved + " " + found
	}
	return found
}

// MachineChange says which references moved from one run to the other, and what that means for verdicts; empty when none
// did.
func MachineChange(m *record.MachineChange) string {
	var moved []string
	for _, r := range m.Machine {
		if !r.Moved {
			continue
		}
		name := r.Name
		if r.Part != "" {
			name += " (" + r.Part + ")"
		}
		moved = append(moved, fmt.Sprintf("%s %s → %s %s", name, stat.Number(r.Old.Median), stat.Number(r.New.Median),
			record.ReferenceUnit(r.Name)))
	}
	if len(moved) == 0 {
		return ""
	}
	return fmt.Sprintf("The machine changed between the two runs: %s. Only more than that is called faster or slower.",
		strings.Join(moved, ", "))
}

// ComparisonBasis says what the verdicts of a comparison rest on.
func ComparisonBasis(c *record.Comparison) string {
	compared, paired, prices, judged := 0, 0, 0, ""
	for _, row := range c.Rows {
		if row.Difference == nil {
			continue
		}
		compared++
		if row.Paired {
			paired++
		}
		if row.Price {
			prices++
		}
		if row.Relative != nil {
			judged = " Verdicts, and what would have been seen, are of what the references leave unexplained, whose interval may be " +
				"larger than that of the change."
		}
	}
	what, apart := "row", "Two runs, drift allowed for"
	if prices == compared {
		what = "price"
	}
	if paired == compared {
		apart = "Paired round by round"
	}
	return fmt.Sprintf("%s; intervals and verdicts hold at 95 %% for all %ss together.%s", apart, what, judged)
}

// ProfileComparison says in a sentence or two which stages of two profiles differ.
func ProfileComparison(c *record.ProfileComparison) string {
	var f finding
	threshold := fmt.Sprintf("%g %% of the packet", c.Threshold)
	for i := range c.Rows {
		row := &c.Rows[i]
		if i == 0 && row.Old != nil { // the packet
			threshold += fmt.Sprintf(" (%s ns)", stat.Number(c.Threshold/100*row.Old.Median))
		}
		if row.Difference != nil {
			f.add(row.Name, &row.Change, false)
		}
	}
	return onMachine(&c.MachineChange, f.say("row", "slower", "faster", threshold, "ns"))
}

// ProfileBasis says what the verdicts of a comparison of profiles rest on.
const ProfileBasis = "Two runs, drift allowed for; intervals and verdicts hold at 95 % for all rows together. " +
	"Only stages of the redirect path, and softirq, locks and stack, count as a regression."

// finding is what the changes of a comparison come to.
type finding struct {
	changes []namedChange
	// faster are how many are that at all, regressions how many are slower by more than
	// the threshold.
	faster, regressions int
	// unknown are how many these runs cannot tell of.
	unknown int
	// most is the largest change that is slower or faster, by size.
	most *namedChange
}

type namedChange struct {
	name string
	*record.Change
	// rate is set when Mpps can be had of ns.
	rate bool
}

func (f *finding) add(name string, c *record.Change, rate bool) {
	n := namedChange{name, c, rate}
	f.changes = append(f.changes, n)
	if c.Regression {
		f.regressions++
	}
	switch c.Outcome() {
	case stat.Slower:
	case stat.Faster:
		f.faster++
	case stat.CannotTell:
		f.unknown++
		return
	default:
		return
	}
	size := func(n *namedChange) float64 { return math.Abs(n.Difference.Median) }
	// What got slower comes before what got faster.
	worse := f.most != nil && n.Regression != f.most.Regression
	if f.most == nil || worse && n.Regression || !worse && size(&n) > size(f.most) {
		f.most = &n
	}
}

// say says it: what a change is of, the words for more and for less ns, the threshold
// and the unit of differences.
func (f *finding) say(what, slower, faster, threshold, unit string) string {
	all := len(f.changes)
	rows := many(all, what)
	every := "All " + rows
	if all == 2 {
		every = fmt.Sprintf("Both %ss", what)
	}
	switch {
	case f.faster == all && all > 1:
		return fmt.Sprintf("%s are %s%s. %s", every, faster, f.between("less", unit), f.largest(unit))
	case f.regressions == all && all > 1:
		return fmt.Sprintf("%s are %s by more than %s%s. %s", every, slower, threshold,
			f.between("more", unit), f.largest(unit))
	case f.regressions > 0:
		return fmt.Sprintf("%d of %s %s by more than %s. %s", f.regressions, rows, slower, threshold, f.largest(unit))
	}
	if f.unknown == all {
		return fmt.Sprintf("These runs cannot tell whether any %s of %d is %s or %s.", what, all, slower, faster)
	}
	said := fmt.Sprintf("No %s of %d is proven %s by more than %s", what, all, slower, threshold)
	if f.faster > 0 {
		return fmt.Sprintf("%s; %s. %s", said, count(f.faster, "is "+faster, "are "+faster), f.largest(unit))
	}
	return said + "."
}

// between is ": 34 to 39 % less ns a packet", empty where differences have no percent.
func (f *finding) between(word, unit string) string {
	if unit != "%" {
		return ""
	}
	least, most := math.Inf(1), 0.0
	rate := true
	for _, c := range f.changes {
		size := math.Abs(c.Difference.Median)
		least, most = min(least, size), max(most, size)
		rate = rate && c.rate
	}
	of := "ns a packet"
	if !rate {
		of = "ns"
	}
	if stat.Number(least) == stat.Number(most) {
		return fmt.Sprintf(": %s %% %s %s", stat.Number(most), word, of)
	}
	return fmt.Sprintf(": %s to %s %% %s %s", stat.Number(least), stat.Number(most), word, of)
}

// largest names the row that changed most.
func (f *finding) largest(unit string) string {
	c := f.most
	if c == nil {
		return ""
	}
	return fmt.Sprintf("The largest change: %s, %s.", c.name, fromTo(c.Change, c.rate, unit))
}

// fromTo says from what to what a number went, in ns, and in Mpps where it is the time of
// a packet: "104 → 63.7 ns, 39 % less; 9.57 → 15.7 Mpps, 64 % more". unit is that of its
// difference.
func fromTo(c *record.Change, rate bool, unit string) string {
	more := func(percent float64) string {
		if percent < 0 {
			return stat.Number(-percent) + " % less"
		}
		return stat.Number(percent) + " % more"
	}
	said := fmt.Sprintf("%s → %s ns", stat.Number(c.Old.Median), stat.Number(c.New.Median))
	if unit != "%" {
		d := c.Difference.Median
		if d < 0 {
			return fmt.Sprintf("%s, %s ns less", said, stat.Number(-d))
		}
		return fmt.Sprintf("%s, %s ns more", said, stat.Number(d))
	}
	said += ", " + more(c.Difference.Median)
	if !rate || c.Old.Median <= 0 || c.New.Median <= 0 || c.Difference.Median <= -100 {
		return said
	}
	return fmt.Sprintf("%s; %s → %s Mpps, %s", said, stat.Number(1e3/c.Old.Median), stat.Number(1e3/c.New.Median),
		more(100*(1/(1+c.Difference.Median/100)-1)))
}

// count is a number with one of two words after it.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

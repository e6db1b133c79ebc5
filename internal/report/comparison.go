package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Comparison writes a comparison for people: what it found, ns per packet old and new, the
// difference in percent with its interval, the verdict and the smallest
// difference the runs would have shown; prices of calls likewise, in a table of
// their own; then what the machines differ in.
func Comparison(w io.Writer, opts Options, c *record.Comparison) error {
	p := newPrinter(opts)
	if c.By == "" {
		p.origin("old", c.Old, "")
		p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	} else {
		p.origin("in", c.New, "rows that differ in "+c.By)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", cells.Clean(conclusion.Comparison(c)))
	notes := newFootnotes(c.Warnings)
	var rows, prices []*record.CompareRow
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Price {
			prices = append(prices, row)
		} else {
			rows = append(rows, row)
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(&p.buf)
		p.wrap("", "ns per packet; change in % [interval], + is slower")
		p.changeTable(c.By, rows, c.MachineChanged(), notes)
	}
	if len(prices) > 0 {
		fmt.Fprintln(&p.buf)
		p.wrap("", "price in ns; change in % of the old price [interval], + is slower")
		p.changeTable(c.By, prices, c.MachineChanged(), notes)
	}
	notes.write(p)
	if c.By == "" {
		p.causes(c.Causes, c.MachineChanged())
	}
	if c.Nothing() == "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", conclusion.ComparisonBasis(c))
	}
	return p.flush(w)
}

// changeTable is a table of rows of bench, or of prices. When the machine moved, each row has a line on what that leaves
// of its change.
func (p *printer) changeTable(by string, compared []*record.CompareRow, moved bool, notes *footnotes) {
	const verdict = 5 // its column
	prices := len(compared) > 0 && compared[0].Price
	head := []string{"bulk", "old", "new", "", "change", "", ""}
	if by != "" {
		head[1], head[2] = "base", "this"
	}
	if prices {
		head[0] = "call"
	}
	t := newVerdictTable([]bool{prices, false, false, false, true, true, true}, []int{verdict}, head...)
	last := ""
	for _, row := range compared {
		heading, first := p.rowHeading(row)
		if heading != last && heading != "" {
			t.heading(heading)
		}
		last = heading
		mark := notes.mark(row.Name)
		if row.Difference == nil {
			t.add(first, cells.OrDash(row.Old), cells.OrDash(row.New), "-", "", "", mark)
			if row.Missing != "" {
				t.below("     ", row.Missing)
			}
			continue
		}
		change, around := cells.Difference(row.Difference)
		said := cells.Verdict(row)
		t.add(first, cells.OrDash(row.Old), cells.OrDash(row.New), change, around, said, mark)
		t.verdict(said, verdictColor(row.Verdict, row.Regression))
		if text := unexplained(&row.Change, "in cycles", "%"); (moved || misfits(&row.Change)) && text != "" {
			t.below("     ", text)
		}
	}
	p.verdictTable(t, t.fits(p.width))
}

// unexplained is a change in cycles of the core, which are named as given, and what the references leave of it; empty
// without references.
func unexplained(c *record.Change, cycles, unit string) string {
	var parts []string
	for _, part := range []struct {
		name string
		d    *stat.Difference
	}{{cycles, c.Cycles}, {"unexplained", c.Relative}} {
		if part.d != nil {
			change, around := cells.Difference(part.d)
			parts = append(parts, fmt.Sprintf("%s %s %s %s", part.name, change, unit, around))
		}
	}
	return strings.Join(parts, ", ")
}

// misfits tells whether what would have been seen does not fit the interval of a change: it is of what the references leave,
// which is then to be shown.
func misfits(c *record.Change) bool {
	return c.Relative != nil && c.Difference != nil && c.Relative.Smallest > 2*c.Difference.Smallest
}

// verdictColor is the color of a verdict.
func verdictColor(verdict string, regression bool) string {
	switch {
	case regression:
		return red
	case verdict == stat.Slower:
		return yellow
	case verdict == stat.Faster:
		return green
	}
	return ""
}

// rowHeading is the heading a row stands under, and its first cell: the bulk size
// of a row of bench, the name of a price. A name too long for a cell is a
// heading.
func (p *printer) rowHeading(row *record.CompareRow) (heading, first string) {
	if row.Price {
		name := cells.Clean(row.Name)
		if utf8.RuneCountInString(name) > p.width/3 {
			return name, ""
		}
		return "", name
	}
	heading, first = cells.SplitBulk(row.Name)
	if row.Against != "" {
		against, _ := cells.SplitBulk(row.Against)
		heading += " against " + against
	}
	if first == "" {
		first = "-"
	}
	return heading, first
}

// origin is one side of a comparison: its file and time.
func (p *printer) origin(name string, o record.Origin, after string) {
	s := originText(o)
	if after != "" {
		s += "  " + after
	}
	p.wrap(name+"  ", s)
}

// originText is a record's file and time.
func originText(o record.Origin) string {
	if o.Time.IsZero() {
		return o.File
	}
	return o.File + "  " + o.Time.UTC().Format("2006-01-02 15:04 UTC")
}

// later says how long after old new was measured.
func later(old, new time.Time) string {
	d := new.Sub(old).Abs()
	if old.IsZero() || new.IsZero() || d == 0 {
		return ""
	}
	word := "later"
	if new.Before(old) {
		word = "EARLIER"
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("(%d s %s)", int(d.Seconds()), word)
	case d < 2*time.Hour:
		return fmt.Sprintf("(%d min %s)", int(d.Minutes()), word)
	case d < 48*time.Hour:
		return fmt.Sprintf("(%d h %s)", int(d.Hours()), word)
	}
	return fmt.Sprintf("(%d days %s)", int(d.Hours()/24), word)
}

// causes are what the machines differ in; moved says that their speed does.
func (p *printer) causes(causes []record.Cause, moved bool) {
	fmt.Fprintln(&p.buf)
	switch {
	case len(causes) > 0:
	case moved:
		p.wrap("", "Their speed is the only difference between the machines in what unthunk looks at.")
		return
	default:
		p.wrap("", "There is no difference between the machines in what unthunk looks at.")
		return
	}
	p.wrap("", "What the machines differ in, most likely cause first:")
	for _, cause := range causes {
		p.wrap("  "+cells.Clean(cause.Name)+"  ", cells.Seen(cause.Old)+" → "+cells.Seen(cause.New))
		if cause.Why != "" {
			p.wrap("      ", cause.Why)
		}
	}
}

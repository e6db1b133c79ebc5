package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Comparison writes a comparison for people: ns per packet old and new, the
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
	notes := newFootnotes(c.Warnings)
	var rows, prices []*record.CompareRow
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Price {
			prices = append(prices, row)
		} else {
			rows = append(rows, row)
		}
	}
	if len(rows) > 0 || len(prices) == 0 {
		fmt.Fprintln(&p.buf)
		p.wrap("", "ns per packet; change in % [interval], + is slower")
		p.changes(c.By, rows, notes)
	}
	if len(prices) > 0 {
		fmt.Fprintln(&p.buf)
		p.wrap("", "price in ns; change in % of the old price [interval], + is slower")
		p.changes(c.By, prices, notes)
	}
	notes.write(p)
	if c.By == "" {
		p.causes(c.Causes)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", cells.ComparisonSummary(c))
	return p.flush(w)
}

// changes is a table of rows of bench, or of prices.
func (p *printer) changes(by string, compared []*record.CompareRow, notes *footnotes) {
	prices := len(compared) > 0 && compared[0].Price
	rows := [][]string{{"bulk", "old", "new", "", "change", "", ""}}
	if by != "" {
		rows[0][1], rows[0][2] = "base", "this"
	}
	if prices {
		rows[0][0] = "call"
	}
	verdicts := make(map[int]string)
	missing := make(map[int]string)
	colors := make(map[int]string)
	last := ""
	for _, row := range compared {
		heading, first := p.place(row)
		if heading != last && heading != "" {
			rows = append(rows, []string{heading})
		}
		last = heading
		mark := notes.mark(row.Name)
		if row.Difference == nil {
			missing[len(rows)] = row.Missing
			rows = append(rows, []string{first, cells.OrDash(row.Old), cells.OrDash(row.New), "-", "", "", mark})
			continue
		}
		d := row.Difference
		n := len(rows)
		verdicts[n] = cells.Verdict(row)
		switch {
		case row.Regression:
			colors[n] = red
		case row.Verdict == stat.Slower:
			colors[n] = yellow
		case row.Verdict == stat.Faster:
			colors[n] = green
		}
		rows = append(rows, []string{first, cells.OrDash(row.Old), cells.OrDash(row.New), cells.Signed(d.Median),
			cells.Interval(d.Low, d.High, cells.Signed), "", mark})
	}

	// Verdicts stand beside the numbers if all fit, else beneath.
	withVerdicts := make([][]string, len(rows))
	for i, row := range rows {
		withVerdicts[i] = append([]string{}, row...)
		if v, ok := verdicts[i]; ok {
			withVerdicts[i][5] = v
		}
	}
	left := []bool{prices, false, false, false, true, true, true}
	lines := columns(withVerdicts, left, "")
	beneath := false
	for i, line := range lines {
		beneath = beneath || len(rows[i]) > 1 && len([]rune(line)) > p.width
	}
	if beneath {
		lines = columns(rows, left, "")
	}
	for i, line := range lines {
		if len(rows[i]) == 1 {
			p.wrap("", line)
			continue
		}
		if v := verdicts[i]; v != "" && !beneath {
			before, after, _ := strings.Cut(line, v)
			fmt.Fprintln(&p.buf, before+p.paint(colors[i], v)+after)
		} else {
			p.line(line)
			if v != "" {
				fmt.Fprintln(&p.buf, "     "+p.paint(colors[i], v))
			}
		}
		if why := missing[i]; why != "" {
			p.wrap("     ", why)
		}
	}
}

// place is the heading a row stands under, and its first cell: the bulk size
// of a row of bench, the name of a price. A name too long for a cell is a
// heading.
func (p *printer) place(row *record.CompareRow) (heading, first string) {
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

func (p *printer) origin(name string, o record.Origin, after string) {
	s := o.File
	if !o.Time.IsZero() {
		s += "  " + o.Time.UTC().Format("2006-01-02 15:04 UTC")
	}
	if after != "" {
		s += "  " + after
	}
	p.wrap(name+"  ", s)
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

func (p *printer) causes(causes []record.Cause) {
	fmt.Fprintln(&p.buf)
	if len(causes) == 0 {
		p.wrap("", "The machines are alike in all that was looked at.")
		return
	}
	p.wrap("", "What the machines differ in, likeliest cause first:")
	for _, cause := range causes {
		p.wrap("  "+cells.Clean(cause.Name)+"  ", cells.Seen(cause.Old)+" → "+cells.Seen(cause.New))
		if cause.Why != "" {
			p.wrap("      ", cause.Why)
		}
	}
}

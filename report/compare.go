package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"unthunk/result"
	"unthunk/stat"
)

// Comparison writes a comparison for people: ns per packet old and new, the
// difference in percent with its interval, the verdict and the smallest
// difference the runs would have shown; then what the machines differ in.
func Comparison(w io.Writer, opts Options, c *result.Comparison) error {
	p := newPage(opts)
	if c.By == "" {
		p.origin("old", c.Old, "")
		p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	} else {
		p.origin("in", c.New, "rows that differ in "+c.By)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "ns per packet; change in % [interval], + is slower")

	notes := newFootnotes(c.Warnings)
	rows := [][]string{{"bulk", "old", "new", "", "change", "", ""}}
	if c.By != "" {
		rows[0][1], rows[0][2] = "base", "this"
	}
	verdicts := make(map[int]string)
	missing := make(map[int]string)
	colors := make(map[int]string)
	last, slower, compared := "", 0, 0
	for i := range c.Rows {
		row := &c.Rows[i]
		heading, bulk := split(row.Name)
		if row.Against != "" {
			against, _ := split(row.Against)
			heading += " against " + against
		}
		if heading != last {
			rows = append(rows, []string{heading})
			last = heading
		}
		if bulk == "" {
			bulk = "-"
		}
		mark := notes.mark(row.Name)
		if row.Difference == nil {
			missing[len(rows)] = row.Missing
			rows = append(rows, []string{bulk, side(row.Old), side(row.New), "-", "", "", mark})
			continue
		}
		compared++
		d := row.Difference
		n := len(rows)
		verdicts[n] = verdict(row)
		switch {
		case row.Regression:
			slower++
			colors[n] = red
		case row.Verdict == stat.Slower:
			colors[n] = yellow
		case row.Verdict == stat.Faster:
			colors[n] = green
		}
		rows = append(rows, []string{bulk, side(row.Old), side(row.New), signedNumber(d.Median), interval(d.Low, d.High, signedNumber), "", mark})
	}

	// Verdicts stand beside the numbers if all fit, else beneath.
	withVerdicts := make([][]string, len(rows))
	for i, row := range rows {
		withVerdicts[i] = append([]string{}, row...)
		if v, ok := verdicts[i]; ok {
			withVerdicts[i][5] = v
		}
	}
	left := []bool{false, false, false, false, true, true, true}
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
	notes.write(p)
	if c.By == "" {
		p.causes(c)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", summary(c, compared, slower))
	return p.flush(w)
}

func (p *page) origin(name string, o result.Origin, after string) {
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

func side(q *stat.Quantity) string {
	if q == nil {
		return "-"
	}
	return number(q.Median)
}

// verdict always ends in what would have been seen.
func verdict(row *result.CompareRow) string {
	if strings.HasPrefix(row.Verdict, stat.NoDifference) {
		return row.Verdict
	}
	return fmt.Sprintf("%s (would have seen %s %%)", row.Verdict, stat.FormatPercent(row.Difference.Smallest))
}

func (p *page) causes(c *result.Comparison) {
	fmt.Fprintln(&p.buf)
	if len(c.Causes) == 0 {
		p.wrap("", "The machines are alike in all that was looked at.")
		return
	}
	p.wrap("", "What the machines differ in, likeliest cause first:")
	for _, cause := range c.Causes {
		p.wrap("  "+clean(cause.Name)+"  ", seen(cause.Old)+" → "+seen(cause.New))
		if cause.Why != "" {
			p.wrap("      ", cause.Why)
		}
	}
}

func seen(s *string) string {
	if s == nil {
		return "(not seen)"
	}
	return *s
}

func summary(c *result.Comparison, compared, slower int) string {
	threshold := fmt.Sprintf("%g %%", c.Threshold)
	var s string
	switch {
	case compared == 0:
		s = "Nothing could be compared."
	case slower == 0:
		s = fmt.Sprintf("No row of %d is proven slower by more than %s.", compared, threshold)
	default:
		s = fmt.Sprintf("%d of %d rows slower by more than %s.", slower, compared, threshold)
	}
	how, paired := "", 0
	for _, row := range c.Rows {
		if row.Difference != nil && row.Paired {
			paired++
		}
	}
	switch {
	case compared > 0 && paired == compared:
		how = " Paired round by round;"
	case compared > 0:
		how = " Two runs, drift allowed for;"
	default:
		return s
	}
	return s + how + " intervals and verdicts hold at 95 % for all rows together."
}

package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// ProfileComparison writes what two profiles differ in for people: ns per packet
// of each stage old and new, the difference in ns with its interval, the verdict
// and the smallest difference the runs would have shown; then what the machines
// differ in.
func ProfileComparison(w io.Writer, opts Options, c *record.ProfileComparison) error {
	p := newPrinter(opts)
	p.origin("old", c.Old, "")
	p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	fmt.Fprintln(&p.buf)
	notes := newFootnotes(c.Warnings)
	p.stageChanges(c.Rows, notes)
	notes.write(p)
	p.causes(c.Causes)
	fmt.Fprintln(&p.buf)
	p.wrap("", cells.ProfileSummary(c))
	return p.flush(w)
}

// stageChanges is a table of stages. Verdicts stand beside the numbers if all
// fit, else beneath.
func (p *printer) stageChanges(changes []record.ProfileChange, notes *footnotes) {
	const verdict, sees = 5, 6 // columns
	rows := [][]string{{"stage", "old", "new", "", "change", "", "sees", ""}}
	left := []bool{true, false, false, false, true, true, false, true}
	for _, change := range changes {
		row := []string{cells.Clean(change.Name), cells.OrDash(change.Old), cells.OrDash(change.New), "-", "",
			change.Missing, "", notes.mark(change.Name)}
		if d := change.Difference; d != nil {
			row[3], row[4] = cells.Signed(d.Median), cells.Interval(d.Low, d.High, cells.Signed)
			row[verdict], _, _ = strings.Cut(change.Verdict, " (")
			row[sees] = stat.FormatPercent(d.Smallest)
		}
		rows = append(rows, row)
	}
	lines := columns(rows, left, "")
	beneath := false
	for _, line := range lines {
		beneath = beneath || utf8.RuneCountInString(line) > p.width
	}
	text := "ns per packet; change in ns [interval], + is slower"
	if !beneath {
		text += "; sees: the smallest change in ns that these runs would have shown"
	}
	p.wrap("", text)
	if beneath {
		for _, row := range rows {
			row[verdict], row[sees] = "", ""
		}
		lines = columns(rows, left, "")
	}
	fmt.Fprintln(&p.buf)
	p.line(lines[0])
	for i, line := range lines[1:] {
		change, color := changes[i], changeColor(changes[i])
		if !beneath {
			word := rows[i+1][verdict]
			at := strings.LastIndex(line, word) // only a number and a mark follow
			fmt.Fprintln(&p.buf, line[:at]+p.paint(color, word)+line[at+len(word):])
			continue
		}
		p.line(line)
		said := change.Missing
		if d := change.Difference; d != nil {
			word, _, _ := strings.Cut(change.Verdict, " (")
			said = word + " (" + d.WouldHaveSeen() + ")"
		}
		fmt.Fprintln(&p.buf, "     "+p.paint(color, cells.Clean(said)))
	}
}

func changeColor(change record.ProfileChange) string {
	switch {
	case change.Regression:
		return red
	case change.Verdict == stat.Slower:
		return yellow
	case change.Verdict == stat.Faster:
		return green
	}
	return ""
}

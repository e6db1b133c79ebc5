package report

import (
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// FindingComparison writes what two records of check differ in: the findings, each old and
// new, with what the new one means and what to do about it.
func FindingComparison(w io.Writer, opts Options, c *record.FindingComparison) error {
	p := newPrinter(opts)
	p.origin("old", c.Old, "")
	p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	fmt.Fprintln(&p.buf)
	p.wrap("", conclusion.FindingComparison(c))
	for i := range c.Rows {
		row := &c.Rows[i]
		mark, color := "  ", ""
		if row.Worse() {
			mark, color = "! ", yellow
		}
		fmt.Fprintln(&p.buf)
		p.paintLines(color, func() { p.line(mark + cells.Clean(row.Name)) })
		p.wrap("    old  ", foundText(row.Old))
		p.wrap("    new  ", foundText(row.New))
		if row.New != nil && row.New.Means != "" {
			p.wrap("    → ", row.New.Means)
		}
		if row.New != nil && row.New.Do != "" {
			p.wrap("    do: ", row.New.Do)
		}
	}
	notes := newFootnotes(c.Warnings)
	notes.write(p)
	p.causes(c.Causes, false)
	return p.flush(w)
}

// foundText is what a finding found.
func foundText(f *host.Finding) string {
	switch {
	case f == nil:
		return "(there is no such row)"
	case f.Found == "":
		return "-"
	}
	return cells.Clean(f.Found)
}

package report

import (
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// LabComparison writes what two records of lab differ in.
func LabComparison(w io.Writer, opts Options, c *record.LabComparison) error {
	p := newPrinter(opts)
	p.line(fmt.Sprintf("old  %s %s", cells.Clean(c.Old.File), c.Old.Time.UTC().Format("2006-01-02 15:04 UTC")))
	p.line(fmt.Sprintf("new  %s %s", cells.Clean(c.New.File), c.New.Time.UTC().Format("2006-01-02 15:04 UTC")))
	fmt.Fprintln(&p.buf)
	for _, row := range c.Rows {
		p.wrap("", row.Name)
		for _, what := range row.What {
			p.wrap("  ", what)
		}
		if row.Trace != nil {
			p.labTraceChange(row.Trace)
		}
	}
	if len(c.Rows) > 0 {
		fmt.Fprintln(&p.buf)
	}
	p.wrap("", conclusion.LabComparison(c))
	return p.flush(w)
}

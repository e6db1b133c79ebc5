package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// SiteComparison writes what two records of xray differ in for people: branches
// that are new, gone or made otherwise, then what the machines differ in.
func SiteComparison(w io.Writer, opts Options, c *record.SiteComparison) error {
	p := newPrinter(opts)
	p.origin("old", c.Old, "")
	p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	fmt.Fprintln(&p.buf)
	count := make(map[string]int)
	for _, row := range c.Rows {
		count[row.Change]++
		of := row.New
		if of == nil {
			of = row.Old
		}
		p.wrap(fmt.Sprintf("%-8s", row.Change), fmt.Sprintf("%s, per %s, %s", row.Name, of.Per, cells.Made(*of)))
		if len(row.What) > 0 {
			p.wrap("          ", strings.Join(row.What, "; "))
		}
	}
	if len(c.Rows) > 0 {
		fmt.Fprintln(&p.buf)
	}
	notes := newFootnotes(c.Warnings)
	notes.write(p)
	p.wrap("", fmt.Sprintf("Indirect branches: %d new, %d gone, %d changed, %d as they were.", count["new"],
		count["gone"], count["changed"], c.Same))
	p.causes(c.Causes, false)
	return p.flush(w)
}

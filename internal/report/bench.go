package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Bench writes a record of bench for people: for each row Mpps, ns per packet
// and the cost of the redirect alone with their 95 % intervals, and frames per
// ndo_xdp_xmit call. Rows of one ladder stand under one heading. A row that
// was refused says why. Warnings are footnotes.
func Bench(w io.Writer, opts Options, doc *record.Document[record.BenchRow]) error {
	p := newPrinter(opts)
	p.ladder(doc)
	p.verdicts(doc.Rows)
	p.queues(doc.Rows)
	return p.flush(w)
}

// ladder is the bulk ladder with its footnotes. Warnings of prices are not its own.
func (p *printer) ladder(doc *record.Document[record.BenchRow]) {
	p.incomplete(doc.Incomplete)
	var names []string
	for _, row := range doc.Rows {
		names = append(names, row.Name)
	}
	notes := newFootnotes(inOrder(warningsOf(doc.Warnings, func(row string) bool {
		return !slices.ContainsFunc(doc.Prices, func(price record.TaxRow) bool { return price.Name == row })
	}), names))
	t := newTextTable([]bool{false, false, true, false, true, false, true, false, true}, " ",
		"bulk", "", "Mpps", "", "ns/packet", "", "redirect ns", "frames/xmit", "")
	last := ""
	for i := range doc.Rows {
		row := &doc.Rows[i]
		heading, bulk := cells.SplitBulk(row.Name)
		if heading != last {
			t.heading(heading)
			last = heading
		}
		bulk = cmp.Or(bulk, "-")
		if row.Refused != "" {
			t.add(bulk, "-", "", "-", "", "-", "", "-", notes.mark(row.Name))
			t.below("     refused: ", row.Refused)
			continue
		}
		c := cells.Bench(row)
		t.add(bulk, c.Mpps, c.MppsInterval, c.Ns, c.NsInterval, cmp.Or(c.Hop, "-"), c.HopInterval,
			cmp.Or(c.Frames, "-"), notes.mark(row.Name))
	}
	t.dropEmpty()
	p.table(t)
	notes.write(p)
	if basis := conclusion.RatesBasis(doc); basis != "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", basis)
	}
}

package report

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Gate writes a verdict for people: both sides, each row with its counts, what differs in those that changed, and the
// verdict.
func Gate(w io.Writer, opts Options, g *record.Gate) error {
	p := newPrinter(opts)
	p.wrap("base  ", cells.GateSide(g.OldRelease, g.Old.File)+g.Old.Time.UTC().Format(", 2006-01-02 15:04 UTC"))
	p.wrap("now   ", cells.GateSide(g.NewRelease, g.Kernel))
	for _, u := range g.Unlike {
		p.wrap("      ", "unlike in "+cells.GateBuild(u))
	}
	fmt.Fprintln(&p.buf)
	t := newTextTable([]bool{true, false, false, false, false, true}, "", "per packet", "base", "now", "change", "allowed", "")
	for i := range g.Rows {
		row := &g.Rows[i]
		t.heading(cells.Clean(row.Name))
		for _, c := range cells.GateCounts(row) {
			verdict := c.Verdict()
			if row.Verdict == record.GateCannotTell {
				verdict = ""
			}
			t.add("  "+c.Name, stat.Exact(c.Old), stat.Exact(c.New), cells.Signed(c.Difference()), cells.Allowed(c.GateCount), verdict)
		}
		if row.Behavior != "" {
			t.below("    ", row.Behavior)
		}
		if row.Missing != "" {
			if len(t.rows[len(t.rows)-1]) == 1 {
				t.add("  -", "", "", "", "", "")
			}
			if row.Missing != g.Why { // which the verdict says
				t.below("    ", row.Missing)
			}
		}
	}
	p.table(t)
	for i := range g.Rows {
		p.gateRow(&g.Rows[i])
		if g.Rows[i].Trace != nil {
			fmt.Fprintln(&p.buf)
			p.labTraceChange(g.Rows[i].Trace)
		}
	}
	for _, w := range g.Warnings {
		fmt.Fprintln(&p.buf)
		p.wrap("", cells.Join(": ", w.Row, w.Text))
	}
	if len(g.Console) > 0 {
		fmt.Fprintln(&p.buf)
		p.line("The last lines of the guest:")
		for _, line := range g.Console {
			p.wrap("  ", line)
		}
	}
	fmt.Fprintln(&p.buf)
	if g.Price != nil && priced(g) {
		price, around := cells.Quantity(g.Price)
		p.wrap("", fmt.Sprintf("ns are an estimate: %s ns %s for an indirect branch %s, by the prices of %s.", price, around,
			pricedAs(g.PriceThunk), cells.Clean(g.PriceOf)))
	}
	p.paintLines(gateColor(g.Verdict), func() { p.wrap("", conclusion.Gate(g)) })
	return p.flush(w)
}

// GateBase writes what was counted for a base, and in a sentence what it is. file is where it is saved; empty where it is not.
func GateBase(w io.Writer, opts Options, l *record.Lab, file string) error {
	if err := Lab(w, opts, l); err != nil {
		return err
	}
	p := newPrinter(opts)
	fmt.Fprintln(&p.buf)
	p.wrap("", conclusion.GateBase(l, cells.Clean(file)))
	return p.flush(w)
}

// gateColor is that of a verdict.
func gateColor(verdict string) string {
	return map[string]string{record.GateWithin: green, record.GateBeyond: red, record.GateCannotTell: yellow}[verdict]
}

// pricedAs says what a price was measured for: tax prices a jump that CFI does not test, through the thunk of the machine's kernel.
func pricedAs(thunk string) string {
	if thunk == "" {
		return "whose target CFI does not test, through which thunk is not known"
	}
	return "through a " + cells.Clean(thunk) + " whose target CFI does not test"
}

// priced tells whether a price was paid anywhere.
func priced(g *record.Gate) bool {
	for i := range g.Rows {
		for _, c := range g.Rows[i].Sites {
			if c.Ns != nil {
				return true
			}
		}
	}
	return false
}

// gateRow lists what a row differs in.
func (p *printer) gateRow(row *record.GateRow) {
	for _, of := range []struct {
		what    string
		changes []record.GateChange
	}{{"indirect branches", row.Sites}, {"functions entered", row.Functions}} {
		if len(of.changes) == 0 {
			continue
		}
		fmt.Fprintln(&p.buf)
		p.wrap("", row.Name+", "+of.what+":")
		var table [][]string
		for i := range of.changes {
			change, what, ns := cells.GateChange(&of.changes[i])
			table = append(table, []string{"  " + change, what, ns})
		}
		for i, line := range columns(table, []bool{false, true, true}, "") {
			if utf8.RuneCountInString(line) > p.width { // what became of it is at the end
				p.wrap(table[i][0]+" ", cells.Join(" ", table[i][1:]...))
				continue
			}
			p.line(line)
		}
	}
}

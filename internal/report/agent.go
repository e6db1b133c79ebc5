package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Agent writes a run of agent for people, on one screen: the machine, what was measured, what was read, and what the run
// took.
func Agent(w io.Writer, opts Options, doc *record.Agent) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	h := &doc.Host
	p.wrap("", cells.Join("", cmp.Or(doc.Machine.Name, doc.Machine.ID), ": Linux ", h.Kernel, ", ", h.CPU))
	p.wrap("", conclusion.AgentMachine(doc))
	fmt.Fprintln(&p.buf)
	notes := newFootnotes(doc.Warnings)
	if doc.Measured != nil {
		p.agentNumbers(doc, notes)
		fmt.Fprintln(&p.buf)
	}
	for _, text := range []string{conclusion.AgentPaths(doc), conclusion.AgentPrograms(doc), conclusion.AgentFindings(doc)} {
		if text != "" {
			p.wrap("", text)
		}
	}
	for _, r := range doc.Refused {
		what := "no " + strings.ReplaceAll(r.Part, "-", " ")
		if r.Part == record.PartMeasure {
			what = "not measured"
		}
		p.wrap("! ", fmt.Sprintf("%s (%s): %s", what, r.Reason, r.Text))
	}
	notes.write(p)
	fmt.Fprintln(&p.buf)
	p.wrap("", conclusion.AgentCost(doc))
	return p.flush(w)
}

// agentNumbers writes prices of calls, and the redirect alone.
func (p *printer) agentNumbers(doc *record.Agent, notes *footnotes) {
	t := newTextTable([]bool{true, false, true, true, true}, " ", "one call", "ns", "", "", "")
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if row.Price == nil {
			t.add("  "+cells.Clean(row.Name), "-", "", "", "")
			t.below("    no price: ", row.Refused)
			continue
		}
		price, around := cells.Quantity(row.Price)
		t.add("  "+cells.Clean(row.Name), price, around, notes.mark(row.Name), conclusion.AgentCalls(row.Name))
	}
	t.add("redirect alone", "", "", "", "")
	for i := range doc.Redirect {
		row := &doc.Redirect[i]
		bulk := "  bulk " + cells.Clean(row.Labels["bulk"])
		if row.Hop == nil {
			t.add(bulk, "-", "", "", "")
			t.below("    no number: ", row.Refused)
			continue
		}
		hop, around := cells.Quantity(row.Hop)
		t.add(bulk, hop, around, notes.mark(row.Name), "a packet")
	}
	t.dropEmpty()
	p.table(t)
}

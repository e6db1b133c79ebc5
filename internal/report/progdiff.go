package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ProgDiff writes what two programs differ in for people: first which packets come out otherwise, then their code, then
// ns a packet with the difference and its verdict.
func ProgDiff(w io.Writer, opts Options, d *record.ProgDiff) error {
	p := newPrinter(opts)
	p.incomplete(d.Incomplete)
	p.wrap("old  ", programText(&d.OldProgram))
	p.wrap("new  ", programText(&d.NewProgram))
	p.wrap("on   ", packetsText(&d.Packets))
	if fragmented := cells.Fragmented(&d.Packets); fragmented != "" {
		p.wrap("     ", fragmented)
	}
	fmt.Fprintln(&p.buf)
	for _, line := range cells.Behaviors(d) {
		p.paintLines(behaviorColor(d), func() { p.wrap(line[:len(line)-len(strings.TrimLeft(line, " "))], line) })
	}
	for _, line := range cells.CallChanges(d) {
		p.wrap("", line)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", cells.Clean(conclusion.Comparison(&d.Comparison)))
	fmt.Fprintln(&p.buf)
	notes := newFootnotes(d.Warnings)
	if len(d.Rows) > 0 {
		p.wrap("", "ns of the program a packet; change in % [interval], + is slower")
		p.costChanges(d, notes)
	}
	notes.write(p)
	if d.Old.Run != d.New.Run {
		p.causes(d.Causes, d.MachineChanged())
	}
	if d.Nothing() == "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", conclusion.ComparisonBasis(&d.Comparison)+" Of a packet that costs less than 1 ns the change is in percent of 1 ns.")
	}
	return p.flush(w)
}

// behaviorColor is that of what packets come out as.
func behaviorColor(d *record.ProgDiff) string {
	if len(d.Behaviors) > 0 {
		return red
	}
	return ""
}

// costChanges is the table of rows.
func (p *printer) costChanges(d *record.ProgDiff, notes *footnotes) {
	const verdict = 5 // its column
	t := newVerdictTable([]bool{true, false, false, false, true, true, true}, []int{verdict}, "", "old", "new", "change", "", "", "")
	for i := range d.Rows {
		row := &d.Rows[i]
		mark := notes.mark(row.Name)
		if row.Difference == nil {
			t.add(cells.Clean(row.Name), cells.OrDash(row.Old), cells.OrDash(row.New), "-", "", "", mark)
			if row.Missing != "" {
				t.below("  ", row.Missing)
			}
			continue
		}
		change, around := cells.Difference(row.Difference)
		said := cells.Verdict(row)
		t.add(cells.Clean(row.Name), cells.OrDash(row.Old), cells.OrDash(row.New), change, around, said, mark)
		t.verdict(said, verdictColor(row.Verdict, row.Regression))
	}
	p.verdictTable(t, t.fits(p.width))
}

// programText is a program with the size of its code.
func programText(id *record.ProgramIdentity) string {
	text := id.Name
	if id.Target != "" && id.Target != id.Name {
		text = strings.TrimSpace(text + " of " + id.Target)
	}
	switch {
	case id.Programs > 1 && id.AllInstructions > 0:
		text += fmt.Sprintf(": %d machine instructions, %d bytes in %d programs", id.AllInstructions, id.AllBytes, id.Programs)
	case id.Programs > 1:
		text += fmt.Sprintf(": %d bytes in %d programs", id.AllBytes, id.Programs)
	case id.Instructions > 0:
		text += fmt.Sprintf(": %d machine instructions, %d bytes", id.Instructions, id.JitedBytes)
	case id.JitedBytes > 0:
		text += fmt.Sprintf(": %d bytes", id.JitedBytes)
	}
	return cells.Clean(text)
}

// packetsText is how many packets of what.
func packetsText(p *record.PacketSource) string {
	n := cells.Plural(p.Kept, "packet")
	if p.Seen > p.Kept {
		n = fmt.Sprintf("%d of %s", p.Kept, cells.Plural(p.Seen, "packet"))
	}
	return cells.Clean(n + ": " + p.Source)
}

// ProgDiffBench writes both programs' ns a packet in the Go benchmark format, a line for each row and round, for benchstat:
// -col /program compares them, and pairs nothing. old and new are the rounds of each side.
func ProgDiffBench(w io.Writer, old, new *record.ProgCost) error {
	var b bytes.Buffer
	fmt.Fprint(&b, "Unit ns/pkt better=lower assume=nothing\n\n")
	for _, side := range []struct {
		name string
		doc  *record.ProgCost
	}{{"old", old}, {"new", new}} {
		for _, row := range side.doc.Rows {
			name := "BenchmarkXDP/packets=" + strings.Join(strings.Fields(cells.Clean(row.Name)), "_") + "/program=" + side.name
			if row.Refused != "" {
				fmt.Fprintf(&b, "# %s refused: %s\n", name, strings.Join(strings.Fields(cells.Clean(row.Refused)), " "))
				continue
			}
			for _, ns := range row.Samples {
				fmt.Fprintf(&b, "%s 1 %s ns/pkt\n", name, strconv.FormatFloat(ns, 'g', 6, 64))
			}
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write benchmarks: %w", err)
	}
	return nil
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ProgCost writes a record of prog cost for people: for each class of packets how many there are, what comes out of
// them, and ns a packet with its 95 % interval, then what that is.
func ProgCost(w io.Writer, opts Options, doc *record.ProgCost) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	p.wrap("", costHeading(doc))
	fmt.Fprintln(&p.buf)
	var names []string
	for _, row := range doc.Rows {
		names = append(names, row.Name)
	}
	notes := newFootnotes(inOrder(doc.Warnings, names))
	t := costTable(doc.Rows, notes, withVerdicts)
	for _, narrower := range []costLayout{withoutVerdicts, namesAbove} { // what a packet costs goes before what comes of it
		if !t.wider(p.width) {
			break
		}
		t = costTable(doc.Rows, notes, narrower)
	}
	p.table(t)
	notes.write(p)
	fmt.Fprintln(&p.buf)
	p.wrap("", costBasis(doc))
	p.costLines(doc.Lines)
	return p.flush(w)
}

// mostLines is how many source lines are written: the dearest, in the order of the source.
const mostLines = 40

// costLines writes how often each source line runs a packet, and what it takes.
func (p *printer) costLines(all []record.CostLine) {
	if len(all) == 0 {
		return
	}
	shown := slices.Clone(all)
	if len(shown) > mostLines {
		slices.SortStableFunc(shown, func(a, b record.CostLine) int {
			return cmp.Or(cmp.Compare(b.Sampled, a.Sampled), cmp.Compare(b.Runs, a.Runs))
		})
		least := shown[mostLines]
		shown = slices.DeleteFunc(slices.Clone(all), func(l record.CostLine) bool {
			return cmp.Or(cmp.Compare(l.Sampled, least.Sampled), cmp.Compare(l.Runs, least.Runs)) <= 0
		})
	}
	fmt.Fprintln(&p.buf)
	t := newTextTable([]bool{false, false, false, true}, "", "runs", "ns", "line", "")
	place := ""
	for _, l := range shown {
		if at := cells.Clean(l.Program + ", " + l.File); at != place {
			place = at
			t.heading(at)
		}
		t.add(strconv.FormatFloat(l.Runs, 'g', 3, 64), cells.LineNs(l.Ns), strconv.Itoa(l.Line), cells.Clean(l.Text))
	}
	for _, line := range columns(t.rows, t.left, t.gap) {
		if r := []rune(line); len(r) > p.width {
			line = string(r[:p.width-1]) + "…"
		}
		p.line(strings.TrimRight(line, " "))
	}
	fmt.Fprintln(&p.buf)
	text := "runs: how often the line ran a packet, counted in a copy of the program. ns: its share of the ns of a packet, " +
		"with what it calls, by samples; a line's samples can be its neighbor's."
	if left := len(all) - len(shown); left > 0 {
		text += fmt.Sprintf(" %s that take less are left out.", cells.Plural(left, "line"))
	}
	p.wrap("", text)
}

// costLayout is how a table of costs is laid out, by the room that there is.
type costLayout int

const (
	withVerdicts costLayout = iota
	withoutVerdicts
	namesAbove // each row's name has a line of its own: flows of IPv6 are long
)

// wider tells whether a line of the table has more than width characters.
func (t *textTable) wider(width int) bool {
	return slices.ContainsFunc(columns(t.rows, t.left, t.gap), func(line string) bool { return utf8.RuneCountInString(line) > width })
}

// costTable has a line for each row, with verdicts where there is room for them.
func costTable(rows []record.CostRow, notes *footnotes, layout costLayout) *textTable {
	head, left := []string{"", "packets", "share", "ns/packet", "", ""}, []bool{true, false, false, false, true, true}
	if layout == withVerdicts {
		head, left = append(head, "verdict"), append(left, true)
	}
	t := newTextTable(left, "", head...)
	for i := range rows {
		row := &rows[i]
		ns, around := cells.Quantity(row.Ns)
		name := cells.Clean(row.Name)
		if layout == namesAbove {
			t.heading(name)
			name = ""
		}
		line := []string{
			name, strconv.Itoa(row.Packets), cells.Share(row), cmp.Or(ns, "-"), around, notes.mark(row.Name),
		}
		if layout == withVerdicts {
			line = append(line, cells.Verdicts(row))
		}
		t.add(line...)
		if row.Refused != "" {
			t.below("  no number: ", row.Refused)
		}
	}
	return t
}

// costHeading says what was measured on what.
func costHeading(doc *record.ProgCost) string {
	code := ""
	if doc.Program.JitedBytes > 0 {
		code = fmt.Sprintf(" (%d bytes of machine code)", doc.Program.JitedBytes)
	}
	packets := cells.Plural(doc.Packets.Kept, "packet")
	if doc.Packets.Seen > doc.Packets.Kept {
		packets = fmt.Sprintf("%d of %s", doc.Packets.Kept, cells.Plural(doc.Packets.Seen, "packet"))
	}
	name := doc.Program.Name
	if doc.Program.Target != "" && doc.Program.Target != name {
		name = strings.TrimSpace(name + " of " + doc.Program.Target)
	}
	return cells.Clean(fmt.Sprintf("%s%s on %s: %s", name, code, packets, doc.Packets.Source))
}

// costBasis says what the numbers are.
func costBasis(doc *record.ProgCost) string {
	rounds, null := 0, 0.0
	for _, row := range doc.Rows {
		rounds = max(rounds, len(row.Rounds))
		if row.Null != nil {
			null = max(null, row.Null.Median)
		}
	}
	text := fmt.Sprintf("ns of the program a packet, %s, estimates [95 %% intervals]: a run less one of a program that only passes. "+
		"Each run had its packet restored, and came out as a single run does.", cells.Plural(rounds, "round"))
	working := cells.Clean(cmp.Or(doc.Settings["working-set"], "64"))
	switch cold := cells.Clean(doc.Settings["cold"]); {
	case cold != "":
		text += " Cold: each run walked through " + cold + " of memory before it."
	case len(working) > 3:
		text += " The working set is " + working + " packets."
	default:
		text += " Hot: " + working + " packets took turns."
	}
	if fragmented := cells.Fragmented(&doc.Packets); fragmented != "" {
		text += " " + fragmented
	}
	if doc.Program.Places > 1 {
		text += " The program was loaded anew for each round: the interval holds what its place in memory does."
	}
	return text
}

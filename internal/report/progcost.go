package report

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

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
	t := newTextTable([]bool{true, false, false, false, true, true, true}, "", "", "packets", "share", "ns/packet", "", "", "verdict")
	for i := range doc.Rows {
		row := &doc.Rows[i]
		name, out, mark := cells.Clean(row.Name), cells.Verdicts(row), notes.mark(row.Name)
		ns, around := cells.Quantity(row.Ns)
		t.add(name, strconv.Itoa(row.Packets), cells.Share(row), cmp.Or(ns, "-"), around, mark, out)
		if row.Refused != "" {
			t.below("  no number: ", row.Refused)
		}
	}
	p.table(t)
	notes.write(p)
	fmt.Fprintln(&p.buf)
	p.wrap("", costBasis(doc))
	return p.flush(w)
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
	if cold := doc.Settings["cold"]; cold != "" {
		text += " Cold: each run walked through " + cells.Clean(cold) + " of memory before it."
	} else {
		text += " Hot: " + cells.Clean(cmp.Or(doc.Settings["working-set"], "64")) + " packets took turns."
	}
	if doc.Program.Places > 1 {
		text += " The program was loaded anew for each round: the interval holds what its place in memory does."
	}
	return text
}

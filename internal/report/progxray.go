package report

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// ProgXray writes for people what was read of a program: what it is and how it is called,
// each place where something is called, jumped to or looked up, by lines of its source, and
// what to change.
func ProgXray(w io.Writer, opts Options, doc *record.ProgXray) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	p.wrap("", cells.Program(&doc.Program)+programParts(doc)+".")
	p.wrap("", cells.ProgDispatcher(doc))
	fmt.Fprintln(&p.buf)
	p.programRows(doc)
	p.wrap("", programTotals(doc))
	if doc.PricesFrom != "" {
		p.wrap("", fmt.Sprintf("ns: prices of %s; of a tail call and of a lookup what they take more than by a constant index and of a "+
			"known map, of a callback one turn, of a direct call the call and its return alone.", doc.PricesFrom))
	}
	if len(doc.Changes) > 0 {
		p.programChanges(doc.Changes)
	}
	newFootnotes(doc.Warnings).write(p)
	return p.flush(w)
}

// programParts are how large a program is.
func programParts(doc *record.ProgXray) string {
	text := fmt.Sprintf(": %d BPF instructions, %d bytes of machine code", doc.Program.BPFInstructions, doc.Program.Bytes)
	if n := len(doc.Functions); n > 1 {
		text += ", " + cells.Plural(n, "function")
	}
	if n := len(doc.Maps); n > 0 {
		text += ", " + cells.Plural(n, "map")
	}
	return text
}

// programRows lists the places, beneath the line of the source that each is from.
func (p *printer) programRows(doc *record.ProgXray) {
	if len(doc.Rows) == 0 {
		p.wrap("", "It calls nothing, jumps to nothing and looks into no map.")
		fmt.Fprintln(&p.buf)
		return
	}
	ns := "ns"
	if doc.PricesFrom == "" {
		ns = ""
	}
	table := [][]string{{"", "", ns, "what", "made", "calls"}}
	function, line := "", ""
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if row.Function != function && len(doc.Functions) > 1 {
			table = append(table, []string{cells.Clean(row.Function) + ":"})
		}
		if at := cells.SourceLine(row.Source); at != "" && (at != line || row.Function != function) {
			table = append(table, []string{at})
		}
		function, line = row.Function, cells.SourceLine(row.Source)
		c := cells.ProgSite(row)
		mark := " "
		if row.Indirect || row.Within > 0 {
			mark = "»"
		}
		table = append(table, []string{mark, c.Offset, c.Price, cut(c.What, 36), c.Made, c.Calls})
	}
	for i, line := range columns(table, []bool{true, false, false, true, true, true}, "") {
		color := ""
		if len(table[i]) == 1 && i > 0 {
			color = dim
		} else if table[i][0] == "»" {
			color = bold
		}
		fmt.Fprintln(&p.buf, p.paint(color, strings.TrimRight(cut(line, p.width), " ")))
	}
	fmt.Fprintln(&p.buf)
}

// programTotals counts the indirect branches, and what has none.
func programTotals(doc *record.ProgXray) string {
	own, within, direct, inline := 0, 0, 0, 0
	for i := range doc.Rows {
		switch row := &doc.Rows[i]; {
		case row.Indirect:
			own++
		case row.Made == "inline":
			inline++
		case row.Within > 0:
			within++
		case row.Made != "empty":
			direct++
		}
	}
	text := fmt.Sprintf("» indirect branches: %d in its code; calls of functions that have some in theirs: %d. Direct without one: %d; "+
		"inlined: %d.", own, within, direct, inline)
	for _, thunk := range slices.Sorted(maps.Keys(doc.Returns)) {
		text += fmt.Sprintf(" Returns by %s: %d.", cells.Clean(thunk), doc.Returns[thunk])
	}
	return text
}

// programChanges lists what to change, and what that saves.
func (p *printer) programChanges(changes []record.ProgXrayChange) {
	fmt.Fprintln(&p.buf)
	p.wrap("", "What to change:")
	for i := range changes {
		c := &changes[i]
		first := "  "
		if c.Saves != nil {
			first = fmt.Sprintf("  %8s  ", cells.Join(" ", stat.Signed(-c.Saves.Median)+" ns", cells.PlusMinus(c.Saves)))
		}
		if c.Saves != nil && !c.Saves.Seen() {
			first = "  " + cells.NoSaving + "  "
		}
		p.wrap(first, c.Text)
	}
}

// ListingLines are the instructions of a listing of a [record.ProgCode], by its number.
type ListingLines func(listing int) iter.Seq[record.ProgListingLine]

// ProgAsm writes the code of a program, each line of its source before the code of it. It is written piece by piece, and
// ends with ctx's error once ctx is done.
func ProgAsm(ctx context.Context, w io.Writer, opts Options, doc *record.ProgCode, lines ListingLines) error {
	const piece = 64 << 10
	p := newPrinter(opts)
	p.wrap("", fmt.Sprintf("%s: » marks indirect branches.", cells.Program(&doc.Program)))
	for i, l := range doc.Listings {
		fmt.Fprintln(&p.buf)
		p.line(fmt.Sprintf("%s at %x:", cells.Clean(l.Name), l.Address))
		for line := range lines(i) {
			p.asmLine(&line)
			if p.buf.Len() < piece {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.flush(w); err != nil {
				return err
			}
			p.buf.Reset()
		}
	}
	return p.flush(w)
}

// asmLine is an instruction, behind the line of the source that begins there.
func (p *printer) asmLine(line *record.ProgListingLine) {
	if line.Source != nil {
		fmt.Fprintln(&p.buf, p.paint(dim, cut("; "+cells.SourceLine(line.Source), p.width)))
	}
	mark := " "
	if line.Indirect {
		mark = "»"
	}
	p.line(fmt.Sprintf("%s %6s  %s", mark, fmt.Sprintf("+%#x", line.Offset), instruction(line.Text)))
	if line.Note != "" {
		p.wrap("          ; ", line.Note)
	}
}

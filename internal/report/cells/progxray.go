package cells

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Program is a program by its name, id and tag.
func Program(p *record.ProgXrayProgram) string {
	name := cmp.Or(Clean(p.Name), "a program without a name")
	if p.Loaded {
		return fmt.Sprintf("%s (tag %s; loaded to be read, and gone)", name, Clean(p.Tag))
	}
	return fmt.Sprintf("%s (id %d, tag %s)", name, p.ID, Clean(p.Tag))
}

// ProgDispatcher is a sentence that says where a program is attached, and how it is called.
func ProgDispatcher(doc *record.ProgXray) string {
	d, at := doc.Dispatcher, "No device of this namespace has it: prog list looks into others too."
	if n := len(doc.Program.Attached); n > 0 {
		const most = 8
		at = "Attached to " + Clean(strings.Join(doc.Program.Attached[:min(n, most)], ", "))
		if n > most {
			at += fmt.Sprintf(" and %d more", n-most)
		}
		at += "."
	}
	if n := len(doc.Program.Entries); n > 0 {
		at += " Held by " + Clean(strings.Join(doc.Program.Entries[:min(n, 8)], ", ")) + "."
	}
	if n := len(doc.Program.Parts); n > 0 {
		at += " It is a libxdp dispatcher; below are its parts too: " +
			Clean(strings.Join(doc.Program.Parts[:min(n, 10)], ", ")) + "."
	}
	switch {
	case doc.Program.Type == "extension":
		return at + " It stands in place of a function of a libxdp dispatcher, which calls it directly."
	case d == nil:
		return at + " The kernel calls each XDP program indirectly: it has no BPF dispatcher."
	case d.In:
		return fmt.Sprintf("%s It is one of the %d programs in the BPF dispatcher, which has %d slots: it is called directly.",
			at, d.Programs, d.Slots)
	case doc.Program.Loaded:
		return fmt.Sprintf("The BPF dispatcher has %d of %d slots taken: a program that is attached gets one while there is room.",
			d.Programs, d.Slots)
	case tailCalled(doc):
		return at + " A tail call does not go through the BPF dispatcher: it jumps to the program itself."
	}
	return fmt.Sprintf("%s It is not among the %d programs in the BPF dispatcher, which has %d slots: who calls it does so indirectly (%s).",
		at, d.Programs, d.Slots, cmp.Or(Clean(d.Fallback), "how is not known"))
}

// SourceLine is a place in the source and its text; empty for none.
func SourceLine(s *record.SourceLine) string {
	if s == nil {
		return ""
	}
	file := Clean(s.File)
	return fmt.Sprintf("%s:%d  %s", file[strings.LastIndexByte(file, '/')+1:], s.Line, Clean(s.Text))
}

// ProgSiteCells are a row of prog xray in cells.
type ProgSiteCells struct{ Offset, What, Made, Calls, Price string }

// ProgSite is a row of prog xray in cells.
func ProgSite(row *record.ProgSiteRow) ProgSiteCells {
	c := ProgSiteCells{What: Clean(row.Kind), Made: Clean(row.Made), Calls: Clean(row.Calls)}
	if row.Offset != nil {
		c.Offset = fmt.Sprintf("+%#x", *row.Offset)
	}
	var maps []string
	for _, m := range row.Maps {
		maps = append(maps, Clean(m))
	}
	for _, m := range row.Inner {
		maps = append(maps, "one in "+Clean(m))
	}
	what := strings.Join(maps, " or ")
	switch {
	case row.Index != nil:
		what += fmt.Sprintf("[%d]", *row.Index)
	case what == "" && row.Generic:
		what = "of a map not known"
	}
	c.What = Join(" ", c.What, what)
	switch {
	case row.Within > 0:
		c.Calls += fmt.Sprintf(" (» %d in it)", row.Within)
	case row.Calls == "" && len(row.Programs) > 0:
		c.Calls = Clean(strings.Join(row.Programs, ", "))
	case row.Calls == "" && row.Thunk != "":
		c.Calls = "by " + Clean(row.Thunk)
	}
	if row.Price != nil {
		c.Price = row.Price.Cost(stat.Number)
	}
	return c
}

// NoSaving stands for what a change saves whose price is not told from 0.
const NoSaving = "none seen"

// tailCalled tells whether nothing but tables for tail calls holds a program.
func tailCalled(doc *record.ProgXray) bool {
	p := &doc.Program
	return len(p.Attached) == 0 && len(p.Entries) > 0 &&
		!slices.ContainsFunc(p.Entries, func(entry string) bool { return !strings.HasPrefix(entry, "prog_array ") })
}

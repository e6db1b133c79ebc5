package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// labPrograms writes the rows of programs of the user's: a table for each program and packets, with the guests in it.
func (p *printer) labPrograms(l *record.Lab, notes *footnotes) {
	var rows []*record.LabRow
	for i := range l.Rows {
		if cells.OfProgram(&l.Rows[i]) {
			rows = append(rows, &l.Rows[i])
		}
	}
	if len(rows) == 0 {
		return
	}
	if i := slices.IndexFunc(rows, func(r *record.LabRow) bool { return r.Program != nil }); i >= 0 {
		p.wrap("", labProgramHeading(rows[i].Program))
		fmt.Fprintln(&p.buf)
	}
	t := newTextTable([]bool{true, false, false, false, false, false, true}, "",
		"per packet", "packets", "share", "instructions", "least", "most", "verdict")
	heading := ""
	for _, row := range rows {
		if name := cells.GuestOf(row); name != heading {
			heading = name
			mark := notes.mark(name)
			if row.Refused == "" {
				name += labGuest(row)
			}
			t.heading(cells.Join("  ", name, mark))
		}
		line := append([]string{"  " + cells.Clean(row.Labels["class"])}, slices.Repeat([]string{"-"}, 6)...)
		if row.Program != nil {
			line[1], line[2] = strconv.Itoa(row.Program.Packets), stat.Number(row.Program.Share)+" %"
			line[6] = cells.VerdictsOf(row.Program.Verdicts)
		}
		if row.Instructions != nil {
			line[3] = cells.Mean(*row.Instructions)
			line[4], line[5] = stat.Exact(row.Program.Least), stat.Exact(row.Program.Most)
		}
		t.add(line...)
		if row.Refused != "" {
			t.below("    no number: ", row.Refused)
		}
	}
	p.table(t)
	fmt.Fprintln(&p.buf)
	if said := conclusion.ProgramDifferences(l); len(said) > 0 {
		for _, s := range said {
			p.wrap("", s)
		}
		fmt.Fprintln(&p.buf)
	}
	p.wrap("", "Instructions that the program executes for a packet more than one that only passes, with the helpers that it calls, "+
		"counted in the emulated guest. Least and most are single packets. Instructions are no time: QEMU predicts no branches.")
}

// labProgramHeading says what was counted on what.
func labProgramHeading(program *record.LabProgram) string {
	packets := cells.Plural(program.Source.Kept, "packet")
	if program.Source.Seen > program.Source.Kept {
		packets = fmt.Sprintf("%d of %s", program.Source.Kept, cells.Plural(program.Source.Seen, "packet"))
	}
	name := program.Identity.Name
	if target := program.Identity.Target; target != "" && target != name {
		name = strings.TrimSpace(name + " of " + target)
	}
	return cells.Clean(fmt.Sprintf("%s on %s: %s", name, packets, program.Source.Source))
}

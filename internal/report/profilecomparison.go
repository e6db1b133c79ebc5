package report

import (
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// ProfileComparison writes what two profiles differ in for people: ns per packet
// of each stage old and new, the difference in ns with its interval, the verdict
// and the smallest difference the runs would have shown; then what the machines
// differ in.
func ProfileComparison(w io.Writer, opts Options, c *record.ProfileComparison) error {
	p := newPrinter(opts)
	p.origin("old", c.Old, "")
	p.origin("new", c.New, later(c.Old.Time, c.New.Time))
	fmt.Fprintln(&p.buf)
	p.wrap("", cells.Clean(conclusion.ProfileComparison(c)))
	fmt.Fprintln(&p.buf)
	notes := newFootnotes(c.Warnings)
	p.stageChanges(c.Rows, c.MachineChanged(), notes)
	notes.write(p)
	p.causes(c.Causes, c.MachineChanged())
	fmt.Fprintln(&p.buf)
	p.wrap("", conclusion.ProfileBasis)
	return p.flush(w)
}

// stageChanges is a table of stages. When the machine moved, each has a line on what that leaves of its change.
func (p *printer) stageChanges(changes []record.ProfileChange, moved bool, notes *footnotes) {
	const verdict, sees = 5, 6 // their columns
	t := newVerdictTable([]bool{true, false, false, false, true, true, false, true}, []int{verdict, sees},
		"stage", "old", "new", "", "change", "", "sees", "")
	for i := range changes {
		c := &changes[i]
		name, mark := cells.Clean(c.Name), notes.mark(c.Name)
		if c.Difference == nil {
			t.add(name, cells.OrDash(c.Old), cells.OrDash(c.New), "-", "", c.Missing, "", mark)
			t.verdict(c.Missing, "")
			continue
		}
		change, around := cells.Difference(c.Difference)
		t.add(name, cells.OrDash(c.Old), cells.OrDash(c.New), change, around, c.Outcome(),
			stat.FormatPercent(c.Judged().Smallest), mark)
		t.verdict(cells.StageVerdict(c), verdictColor(c.Verdict, c.Regression))
		if text := unexplained(&c.Change, "at the old clock", "ns"); (moved || misfits(&c.Change)) && text != "" {
			t.below("     ", text)
		}
	}
	beside := t.fits(p.width)
	text := "ns per packet; change in ns [interval], + is slower"
	if beside {
		text += "; sees: the smallest change in ns that these runs would have shown"
	}
	p.wrap("", text)
	fmt.Fprintln(&p.buf)
	p.verdictTable(t, beside)
}

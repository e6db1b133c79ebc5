package page

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ComparisonMarkdown writes what two records differ in for a comment on a pull request
// (GitHub Flavored Markdown): the finding, the rows, what the machines differ in, warnings.
// Strings of the records are text only, as in [Markdown].
func ComparisonMarkdown(w io.Writer, c record.Changes) error {
	saved := record.NewSaved(c)
	v := &viewer{src: Source{Records: []*record.Saved{saved}}, first: saved}
	b := memory.NewBuffer(context.Background(), MaxPage)
	fmt.Fprintf(b, "### %s\n\n", markdown(conclusion.Of(saved).Title))
	if d, ok := c.(*record.ProgDiff); ok { // behavior comes before speed
		for _, text := range append(cells.Behaviors(d), cells.CallChanges(d)...) {
			fmt.Fprintf(b, "- %s\n", markdown(strings.TrimSpace(text)))
		}
		fmt.Fprintln(b)
	}
	for i, block := range v.changeBlocks() {
		if i == 0 {
			fmt.Fprintf(b, "%s\n\n", markdown(block.Heading))
		}
		block.Heading = ""
		block.markdown(b)
	}
	if speed := speedBlock(c); len(speed.Tables) > 0 {
		speed.markdown(b)
	}
	if err := b.Err(); err != nil {
		return fmt.Errorf("make Markdown: %w", tooMuch(err))
	}
	var text bytes.Buffer
	b.WriteTo(&text) // which returns no error
	if _, err := w.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n"))); err != nil {
		return fmt.Errorf("write Markdown: %w", err)
	}
	return nil
}

// speedBlock is what the references of two runs say of the machine's speed, and the rows as
// they are without it; without references it is empty.
func speedBlock(c record.Changes) (b block) {
	var machine []record.ReferenceChange
	rows := &table{Caption: "Change of each row in cycles of the core, and relative to the references", Columns: []column{
		{"row", ""}, {"old cycles", "n"}, {"new cycles", "n"}, {"change %", "n"}, {"", "i"}, {"relative", "n"}, {"", "i"},
	}}
	add := func(name string, c *record.Change) {
		if c.Cycles == nil && c.Relative == nil {
			return
		}
		var cycles, cyclesAround, relative, relativeAround string
		if c.Cycles != nil {
			cycles, cyclesAround = cells.Difference(c.Cycles)
		}
		if c.Relative != nil {
			relative, relativeAround = cells.Difference(c.Relative)
		}
		rows.add(name, cells.OrDash(c.OldCycles), cells.OrDash(c.NewCycles), cycles, cyclesAround, relative, relativeAround)
	}
	switch c := c.(type) {
	case *record.Comparison:
		machine = c.Machine
		for i := range c.Rows {
			add(c.Rows[i].Name, &c.Rows[i].Change)
		}
		if c.Mean != nil {
			add("geometric mean", c.Mean)
		}
	case *record.ProfileComparison:
		machine = c.Machine
		for i := range c.Rows {
			add(c.Rows[i].Name, &c.Rows[i].Change)
		}
	}
	references := &table{Caption: "References that no change of the kernel moves; + is a slower machine", Columns: []column{
		{"reference", ""}, {"old", "n"}, {"new", "n"}, {"unit", ""}, {"change %", "n"}, {"", "i"}, {"moved", ""},
	}}
	for _, r := range machine {
		change, around, moved := "", "", ""
		if r.Difference != nil {
			change, around = cells.Difference(r.Difference)
		}
		if r.Moved {
			moved = "yes"
		}
		references.add(cells.Join(" ", r.Part, r.Name), cells.OrDash(r.Old), cells.OrDash(r.New), record.ReferenceUnit(r.Name),
			change, around, moved)
	}
	for _, t := range []*table{references, rows} {
		if len(t.Rows) > 0 {
			t.Folded = true
			b.Tables = append(b.Tables, t)
		}
	}
	return b
}

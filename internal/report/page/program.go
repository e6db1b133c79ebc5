package page

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// programBlocks are what was read of programs: each place of their code, and what to change.
func (v *viewer) programBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		doc := s.ProgXray()
		if doc == nil {
			continue
		}
		b := block{
			Heading: cells.Join(": ", v.heading(s), cells.Program(&doc.Program)),
			Text: []string{
				conclusion.Of(s).Title + ".", fmt.Sprintf("%d BPF instructions, %d bytes of machine code. %s",
					doc.Program.BPFInstructions, doc.Program.Bytes, cells.ProgDispatcher(doc)),
			},
			Tables: []*table{programTable(doc)},
		}
		if t := changesTable(doc); t != nil {
			b.Tables = append(b.Tables, t)
		}
		v.addFootnotes(&b, s, programPart)
		out = append(out, b)
	}
	return out
}

// programTable has a row for each place, beneath its line of the source.
func programTable(doc *record.ProgXray) *table {
	t := &table{Caption: "What is called, jumped to and looked up", Columns: []column{
		{"place", "m"}, {"what", ""}, {"made", "w"}, {"calls", "m c"}, {"ns", "n"},
	}}
	if doc.PricesFrom != "" {
		t.Remark = "ns are prices of " + cells.Clean(doc.PricesFrom) + "."
	}
	line := ""
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if at := cells.SourceLine(row.Source); at != "" && at != line {
			t.group(at)
			line = at
		}
		c := cells.ProgSite(row)
		t.add(row.Function+c.Offset, c.What, c.Made, c.Calls, c.Price).Differs = row.Indirect || row.Within > 0
	}
	return t
}

// changesTable has a row for each change, nil when there is none.
func changesTable(doc *record.ProgXray) *table {
	if len(doc.Changes) == 0 {
		return nil
	}
	t := &table{Caption: "What to change", Columns: []column{{"change", "t"}, {"saves ns", "n"}, {"95 %", "i"}, {"of", "m w"}}}
	for i := range doc.Changes {
		c := &doc.Changes[i]
		saves, around := cells.Quantity(c.Saves)
		if c.Saves != nil && !c.Saves.Seen() {
			saves = cells.NoSaving
		}
		t.add(c.Text, saves, around, strings.Join(c.Rows, ", "))
	}
	return t
}

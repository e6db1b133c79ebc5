package page

import (
	"strconv"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// attachedBlocks are the XDP programs of machines, and what packets pay beside them.
func (v *viewer) attachedBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		doc := s.Programs()
		if doc == nil {
			continue
		}
		b := block{Heading: v.heading(s), Text: []string{conclusion.Of(s).Title + "."}, Tables: []*table{attachedTable(doc)}}
		if t := programCostsTable(doc); t != nil {
			b.Tables = append(b.Tables, t)
		}
		var unseen []note
		for _, text := range doc.Unseen {
			unseen = append(unseen, note{"", cells.Clean(text)})
		}
		b.addList("Not seen", unseen)
		out = append(out, b)
	}
	return out
}

// attachedTable has a row for each program.
func attachedTable(doc *record.ProgramList) *table {
	t := &table{Caption: "XDP programs: what runs them, and how they are called", Columns: []column{
		{"program", "m"}, {"run by", "t"}, {"called", "t w"}, {"bytes", "n"}, {"maps", "t w"},
	}}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		size := strconv.FormatUint(uint64(row.JitedBytes), 10)
		if row.JitedBytes == 0 {
			size = "–"
		}
		t.add(row.Title(), cells.RunBy(row, doc), cells.InDispatcher(row), size, cells.Maps(row.MapIDs, doc)).Differs =
			row.Dispatcher == record.OutOfDispatcher
	}
	return t
}

// programCostsTable has what packets pay beside the programs, nil for nothing.
func programCostsTable(doc *record.ProgramList) *table {
	if len(doc.Costs) == 0 {
		return nil
	}
	t := &table{Caption: "What packets pay beside the programs’ own instructions", Columns: []column{
		{"what", "t"}, {"each", "t"}, {"ns", "n"}, {"95 %", "i w"}, {"price from", "t w"},
	}}
	for i := range doc.Costs {
		c := &doc.Costs[i]
		ns, around := "not priced", ""
		if c.Ns != nil {
			ns, around = cells.Quantity(c.Ns)
		}
		what := c.What
		if c.Note != "" {
			what += " (" + c.Note + ")"
		}
		t.add(what, c.Each, ns, around, c.Source)
	}
	return t
}

package page

import (
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// priceBlocks are the prices of tax and run.
func (v *viewer) priceBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		rows := s.Prices()
		if len(rows) == 0 || !v.shows(s, pricesPart) {
			continue
		}
		t := priceTable(rows)
		b := block{Heading: v.heading(s), Folded: v.draw && v.folds(s, pricesPart), Tables: []*table{t}}
		b.addText(v.mergedText(s, pricesPart))
		if v.draw {
			b.Figure = pricesFigure(v.id(), "Prices of calls in "+v.labels[s], rows)
			t.Folded = b.Figure != nil
		}
		v.addFootnotes(&b, s, pricesPart)
		b.addList("What else is in these prices", priceNotes(rows))
		out = append(out, b)
	}
	return out
}

// priceTable has the numbers of each row, under what is called.
func priceTable(rows []record.TaxRow) *table {
	const caption = "Price of one call: ns with it less ns without it; calls and ns for a redirected packet at " +
		"bulk 64, empty where the path has none"
	t := &table{Caption: caption, Columns: []column{
		{"call", "m"}, {"with", "n w"}, {"without", "n w"}, {"price ns", "n"}, {"95 %", "i"}, {"cycles", "n w"},
		{"calls/pkt", "n w"}, {"ns/pkt", "n"},
	}}
	last := ""
	for i := range rows {
		row := &rows[i]
		if row.Target != last {
			last = row.Target
			t.group(last)
		}
		if row.Refused != "" {
			t.add(row.Name, "–", "–", "–")
			continue
		}
		c := cells.Price(row)
		if row.PerPacket != nil && row.PerPacket.Median == 0 {
			c.PerPacket, c.NsPerPacket = "", "" // not on this path
		}
		t.add(row.Name, c.With, c.Without, c.Price, c.PriceInterval, c.Cycles, c.PerPacket, c.NsPerPacket)
	}
	return t
}

// priceNotes say of each row why it has no price, or what else is in it.
func priceNotes(rows []record.TaxRow) []note {
	var out []note
	for _, row := range rows {
		switch {
		case row.Refused != "":
			out = append(out, note{cells.Clean(row.Name), "no price: " + cells.Clean(row.Refused)})
		case row.Note != "":
			out = append(out, note{cells.Clean(row.Name), cells.Clean(row.Note)})
		}
	}
	return out
}

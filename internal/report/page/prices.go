package page

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// priceBlocks are those of tax and run.
func (v *viewer) priceBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		rows := s.Prices()
		if len(rows) == 0 {
			continue
		}
		t := &table{Caption: "Price of one call: ns with it less ns without it; calls and ns for a redirected packet at bulk 64", Columns: []column{
			{"call", "m"}, {"with", "n w"}, {"without", "n w"}, {"price ns", "n"}, {"95 %", "i"}, {"cycles", "n w"}, {"calls/pkt", "n w"}, {"ns/pkt", "n"},
		}}
		calls := ""
		var calling []record.TaxRow // without estimates
		var notes []note
		for _, row := range rows {
			if row.Calls != calls {
				calls = row.Calls
				t.group(calls)
			}
			if row.Refused != "" {
				t.add(row.Name, "–", "–", "–")
				notes = append(notes, note{cells.Clean(row.Name), "no price: " + cells.Clean(row.Refused)})
				continue
			}
			with, _ := cells.Quantity(row.With)
			without, _ := cells.Quantity(row.Without)
			price, around := cells.Quantity(row.Price)
			cycles := ""
			if row.Cycles != nil {
				cycles = fmt.Sprintf("%.0f", row.Cycles.Median)
			}
			perPacket, _ := cells.Quantity(row.PerPacket)
			nsPerPacket, _ := cells.Quantity(row.NsPerPacket)
			t.add(row.Name, with, without, price, around, cycles, perPacket, nsPerPacket)
			if row.Note != "" {
				notes = append(notes, note{cells.Clean(row.Name), cells.Clean(row.Note)})
			}
			if row.Labels["pair"] != "packet" {
				calling = append(calling, row)
			}
		}
		b := block{Heading: v.heading(s), Tables: []*table{t}, Notes: notes, NotesTitle: "What else is in these prices"}
		if v.draw {
			b.Figure = priceFigure(v.id(), "Prices of calls in "+v.labels[s], calling)
		}
		out = append(out, b)
	}
	return out
}

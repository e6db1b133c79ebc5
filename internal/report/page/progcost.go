package page

import (
	"strconv"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// costBlocks are what packets cost programs that were replayed.
func (v *viewer) costBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		c := s.ProgCost()
		if c == nil {
			continue
		}
		b := block{Heading: v.heading(s), Tables: []*table{costTable(c)}}
		var refused []note
		for _, row := range c.Rows {
			if row.Refused != "" {
				refused = append(refused, note{cells.Clean(row.Name), "no number: " + cells.Clean(row.Refused)})
			}
		}
		b.addList("Rows without a number", refused)
		out = append(out, b)
	}
	return out
}

// costTable has the numbers of each row.
func costTable(c *record.ProgCost) *table {
	t := &table{
		Caption: cells.Clean("ns of " + c.Program.Name + " a packet, on " + c.Packets.Source),
		Columns: []column{{"packets", "m"}, {"number", "n"}, {"share", "n"}, {"ns/packet", "n"}, {"95 %", "i"}, {"verdict", "t"}},
	}
	for i := range c.Rows {
		row := &c.Rows[i]
		ns, around := cells.Quantity(row.Ns)
		if row.Refused != "" {
			ns = "–"
		}
		t.add(row.Name, strconv.Itoa(row.Packets), cells.Share(row), ns, around, cells.Verdicts(row))
	}
	return t
}

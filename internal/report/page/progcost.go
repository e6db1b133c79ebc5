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
		if len(c.Lines) > 0 {
			b.Tables = append(b.Tables, linesTable(c))
		}
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

// linesTable has how often each source line runs a packet, and what it takes. The dearest tenth
// is marked.
func linesTable(c *record.ProgCost) *table {
	t := &table{
		Caption: "source lines, a packet: runs counted in a copy of the program, ns by samples, with what the line calls",
		Columns: []column{{"runs", "n"}, {"ns", "n"}, {"line", "n"}, {"source", "m"}},
	}
	most := 0
	for _, l := range c.Lines {
		most = max(most, l.Sampled)
	}
	place := ""
	for _, l := range c.Lines {
		if at := l.Program + ", " + l.File; at != place {
			place = at
			t.group(at)
		}
		row := t.add(strconv.FormatFloat(l.Runs, 'g', 3, 64), cells.LineNs(l.Ns), strconv.Itoa(l.Line), l.Text)
		row.Differs = most > 0 && l.Sampled > most/10
	}
	return t
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

package page

import (
	"strconv"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// fleetBlocks are the answers about many machines.
func (v *viewer) fleetBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		switch doc := s.Doc.(type) {
		case *record.FleetCompare:
			out = append(out, fleetBlock("What the canaries pay", conclusion.FleetCompare(doc), &doc.FleetHead, canaryTable(doc)))
		case *record.FleetWho:
			out = append(out, fleetBlock("Who pays what", conclusion.FleetWho(doc), &doc.FleetHead, whoTable(doc)))
		case *record.FleetOdd:
			out = append(out, fleetBlock("Machines unlike their twins", conclusion.FleetOdd(doc), &doc.FleetHead, oddTable(doc)))
		}
	}
	return out
}

func fleetBlock(heading, said string, h *record.FleetHead, t *table) block {
	b := block{Heading: heading, Text: []string{said}}
	b.addText("Newest records from " + cells.Day(h.Since) + " to " + cells.Day(h.Until) + only(h.Where) + ".")
	var notes []note
	for _, text := range conclusion.FleetNotes(h) {
		notes = append(notes, note{"", cells.Clean(text)})
	}
	b.addList("", notes)
	if len(t.Rows) > 0 {
		b.Tables = append(b.Tables, t)
	}
	return b
}

// only names the conditions that machines had to meet.
func only(where string) string {
	if where == "" {
		return ""
	}
	return "; only " + where
}

func whoTable(doc *record.FleetWho) *table {
	t := &table{Caption: "Medians over machines, in ns", Columns: []column{{"machines like this", "t"}, {"machines", "n"}}}
	names := cells.FleetRows(doc)
	for _, name := range names {
		t.Columns = append(t.Columns, column{name, "n"}, column{"95 %", "i w"})
	}
	t.Columns = append(t.Columns, column{"without a number", "t w"})
	for i := range doc.Rows {
		row := &doc.Rows[i]
		line := []string{row.Name, strconv.Itoa(row.Machines)}
		for _, name := range names {
			median, around := cells.Quantity(cells.FleetNumber(row, name))
			line = append(line, median, around)
		}
		t.add(append(line, cells.FleetRefused(row))...)
	}
	return t
}

func oddTable(doc *record.FleetOdd) *table {
	t := &table{Caption: "Machines, by what a packet’s redirect loses in bulks of 16", Columns: []column{
		{"machine", "m"}, {"ns lost", "n"}, {"twins", "n w"}, {"like", "t w"}, {"but", "t"},
	}}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		lost := ""
		if row.Lost != nil {
			lost = stat.Signed(*row.Lost)
		}
		var but []string
		for _, f := range row.Fields {
			but = append(but, cells.FleetField(f))
		}
		for _, l := range row.Prices {
			but = append(but, cells.FleetLimit(l))
		}
		added := t.add(row.Name, lost, strconv.Itoa(row.Twins), cells.FleetTwins(row, doc.Twins), cells.Join(". ", but...))
		added.Differs = len(row.Fields) > 0
	}
	return t
}

func canaryTable(doc *record.FleetCompare) *table {
	t := &table{Caption: "Medians over machines, in ns; change in %", Columns: []column{
		{"row", "m"}, {"base", "n"}, {"canary", "n"}, {"change", "n"}, {"95 %", "i w"}, {"verdict", "t"}, {"canaries to show 1 %", "n w"},
	}}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if row.Difference == nil {
			t.add(row.Name, cells.OrDash(row.Base), cells.OrDash(row.Canary), "–", "", row.Missing)
			continue
		}
		change, around := cells.Difference(row.Difference)
		added := t.add(row.Name, cells.OrDash(row.Base), cells.OrDash(row.Canary), change, around, row.Verdict, cells.Needed(row.Needed))
		added.Differs = row.Regression
	}
	return t
}

// who writes the numbers of groups of machines.
func (c csvRecord) who(doc *record.FleetWho) {
	for i := range doc.Rows {
		row := &doc.Rows[i]
		c.exact(row.Name, "machines", float64(row.Machines), "machines", "")
		c.exact(row.Name, "measured", float64(row.Measured), "machines", cells.FleetRefused(row))
		for _, n := range row.Numbers {
			c.quantity(row.Name, n.Row, n.Ns, "")
		}
	}
}

// odd writes what machines lose, and in what they are unlike their twins.
func (c csvRecord) odd(doc *record.FleetOdd) {
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if row.Lost != nil {
			c.exact(row.Name, "lost", *row.Lost, "ns", "machine "+row.Machine)
		}
		for _, f := range row.Fields {
			c.none(row.Name, f.Name, cells.FleetField(f))
		}
		for _, l := range row.Prices {
			q := stat.Quantity{Median: l.Ns, Low: l.Low, High: l.High, Unit: "ns"}
			c.line(row.Name, l.Row, q, "low and high are the limits of its twins")
		}
	}
}

// canaries writes both sides of each number, and the difference.
func (c csvRecord) canaries(doc *record.FleetCompare) {
	for i := range doc.Rows {
		row := &doc.Rows[i]
		c.change(row.Name, row.Base, row.Canary, row.Difference, "percent", row.Verdict, row.Missing)
	}
}

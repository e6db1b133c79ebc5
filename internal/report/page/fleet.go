package page

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

// fleetBlocks are the answers about many machines.
func (v *viewer) fleetBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		switch doc := s.Doc.(type) {
		case *record.FleetCompare:
			out = append(out, fleetBlock("What the canaries pay", conclusion.FleetCompare(doc), &doc.FleetHead, canaryTable(doc)))
		case *record.FleetWho:
			out = append(out, fleetBlock("Who pays what", strings.TrimSpace(conclusion.FleetPays(doc)+" "+conclusion.FleetWho(doc)),
				&doc.FleetHead, whoTables(doc)...))
		case *record.FleetOdd:
			out = append(out, fleetBlock("Machines unlike their twins", conclusion.FleetOdd(doc), &doc.FleetHead, oddTable(doc)))
		}
	}
	return out
}

func fleetBlock(heading, said string, h *record.FleetHead, tables ...*table) block {
	b := block{Heading: heading, Text: []string{said}}
	b.addText("Newest records from " + cells.Day(h.Since) + " to " + cells.Day(h.Until) + only(h.Where) + ".")
	var notes []note
	for _, text := range conclusion.FleetNotes(h) {
		notes = append(notes, note{"", cells.Clean(text)})
	}
	b.addList("", notes)
	for _, t := range tables {
		if len(t.Rows) > 0 {
			b.Tables = append(b.Tables, t)
		}
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

// whoTables are what redirects take in groups of machines, and what calls do.
func whoTables(doc *record.FleetWho) []*table {
	redirects := &table{Caption: "A redirect: medians over machines ± half of the 95 % interval, in ns", Columns: []column{
		{"machines like this", "t"}, {"machines", "n"},
	}}
	calls := &table{Caption: "One call of that kind, in ns", Columns: []column{{"machines like this", "t"}}}
	var shown, priced []string
	names, others := cells.FleetRows(doc)
	for _, name := range names {
		bulk, is := strings.CutPrefix(name, "redirect/")
		switch {
		case is && name == record.FleetRedirectAnswer:
			redirects.Columns = append(redirects.Columns, column{bulk, "n"})
		case is:
			redirects.Columns = append(redirects.Columns, column{bulk, "n w"})
		default:
			calls.Columns = append(calls.Columns, column{name, "n w"})
			priced = append(priced, name)
			continue
		}
		shown = append(shown, name)
	}
	redirects.Columns = append(redirects.Columns, column{"without a number", "t w"})
	if slices.ContainsFunc(doc.Rows, func(row record.FleetWhoRow) bool { return row.Number(record.FleetIndirect) != nil }) {
		calls.Caption += "; indirect: what the branches of a packet in bulks of " + record.AnswerBulk +
			" take if each packet? one runs, at the price of " + record.FleetBranch
		calls.Columns = append(calls.Columns, column{"indirect", "n"})
		priced = append(priced, record.FleetIndirect)
	}
	if others > 0 {
		last := redirects
		if len(priced) > 0 {
			last = calls
		}
		last.Remark = fmt.Sprintf("%s without a column: those of most machines have one.", cells.Plural(others, "number"))
	}
	for i := range doc.Rows {
		row := &doc.Rows[i]
		redirect, call := []string{row.Name, strconv.Itoa(row.Machines)}, []string{row.Name}
		number := func(name string) string {
			q := row.Number(name)
			return cells.Join(" ", cells.OrDash(q), cells.PlusMinus(q))
		}
		if i < maxTable { // the tables count the others
			for _, name := range shown {
				redirect = append(redirect, number(name))
			}
			for _, name := range priced {
				call = append(call, number(name))
			}
		}
		redirects.add(append(redirect, cells.FleetRefused(row))...)
		if len(priced) > 0 {
			calls.add(call...)
		}
	}
	return []*table{redirects, calls}
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
	t := &table{Caption: "Medians over machines, in ns; change in %; needed: canaries that would show 1 %", Columns: []column{
		{"row", "m"}, {"base", "n"}, {"canary", "n"}, {"change", "n"}, {"95 %", "i w"}, {"verdict", ""}, {"needed", "n w"},
	}}
	var missing []string
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if row.Difference == nil {
			t.add(row.Name, cells.OrDash(row.Base), cells.OrDash(row.Canary), "–")
			if !slices.Contains(missing, row.Missing) {
				missing = append(missing, row.Missing)
			}
			continue
		}
		change, around := cells.Difference(row.Difference)
		added := t.add(row.Name, cells.OrDash(row.Base), cells.OrDash(row.Canary), change, around, row.Verdict, cells.Needed(row.Needed))
		added.Differs = row.Regression
	}
	if len(missing) > 0 {
		t.Remark = "–: " + cells.Clean(strings.Join(missing, "; ")) + "."
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

package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// labs are counts of guests.
func (v *viewer) labs() []block {
	var out []block
	for _, s := range v.src.Records {
		if s.Lab == nil {
			continue
		}
		if slices.ContainsFunc(s.Lab.Rows, func(r record.LabRow) bool { return cells.OnWires(&r) }) {
			out = append(out, v.labWires(s))
		}
		out = append(out, v.labDifferences(s))
		out = append(out, v.labPaths(s)...)
	}
	return out
}

// labWires are indirect branches and DMA calls of interfaces on wires, for each DMA setup.
func (v *viewer) labWires(s *record.Saved) block {
	b := block{Heading: cmp.Or(v.heading(s), "Interfaces and their DMA")}
	t := &table{Caption: "What a redirected packet makes", Columns: []column{
		{"NIC", ""}, {"DMA", ""}, {"bulk", "n"}, {"kernel", ""}, {"indirect calls are", "w"}, {"indirect branches", "n"}, {"map", "n"}, {"sync", "n w"}, {"bounce", "n w"}, {"flush", "n w"}, {"≈ ns", "n"},
	}}
	var rows []pairedRow
	drawn, bulks := make(map[string]bool), make(map[string]bool)
	for _, row := range s.Lab.Rows {
		bulks[row.Labels["bulk"]] = true
	}
	for i := range s.Lab.Rows {
		row := &s.Lab.Rows[i]
		if !cells.OnWires(row) || row.Calls == nil {
			continue
		}
		dma, ns := row.SumDMA(), "–"
		if s.Lab.Price != nil && strings.HasPrefix(row.Thunk, "retpoline") {
			ns = cells.Number(*row.Calls * s.Lab.Price.Median)
		}
		t.add(row.Labels["nic"], row.Labels["dma"], row.Labels["bulk"], row.Release, row.Thunk, cells.Few(*row.Calls), cells.Few(dma.Map), cells.Few(dma.Sync), cells.Few(dma.Bounce), cells.Few(dma.Flush), ns)
		// With retpolines and without it is the same count.
		version, _, _ := strings.Cut(strings.ReplaceAll(row.Release, "+", "-"), "-")
		name := fmt.Sprintf("%s %s %s", row.Labels["nic"], row.Labels["dma"], version)
		if len(bulks) > 1 {
			name += " bulk " + row.Labels["bulk"]
		}
		if name = cells.Clean(name); !drawn[name] {
			drawn[name] = true
			change := cells.Few(*row.Calls)
			if ns != "–" {
				change += ", ≈ " + ns + " ns"
			}
			rows = append(rows, pairedRow{name, nil, &stat.Quantity{Median: *row.Calls, Low: *row.Calls, High: *row.Calls, Unit: "branches"}, change, "", ""})
		}
	}
	b.Tables = []*table{t}
	if v.draw {
		t.Folded = true
		b.Figure = pairedFigure(v.id(), "Indirect branches a packet by DMA setup", "a packet",
			"● Indirect branches that a redirected packet makes, by interface, DMA setup and kernel; ns are those at this machine’s price of one, an estimate.", rows)
	}
	return b
}

func (v *viewer) labDifferences(s *record.Saved) block {
	l := s.Lab
	b := block{Heading: v.heading(s)}
	exactOr := func(x *float64) string {
		if x == nil {
			return "–"
		}
		return cells.Exact(*x)
	}
	var rows []pairedRow
	d := &table{Caption: "With against without: what accounts for the difference in instructions a packet", Columns: []column{
		{"with", ""}, {"without", ""}, {"instructions", "n"}, {"by branches", "n"}, {"branches", "n"}, {"by observer", "n w"}, {"left", "n w"}, {"≈ ns", "n"}, {"95 %", "i"},
	}}
	for _, diff := range l.Differences {
		ns, around := cells.Quantity(diff.Ns)
		d.add(diff.With, diff.Without, cells.Exact(diff.Instructions), cells.Exact(diff.BySites), cells.Exact(diff.Calls), cells.Exact(diff.ByObserver), cells.Exact(diff.Remainder), cmp.Or(ns, "–"), around)
		change := fmt.Sprintf("%s branches", cells.Number(diff.Calls))
		if ns != "" {
			change += fmt.Sprintf(", ≈ %s ns", ns)
		}
		exact := func(x float64) *stat.Quantity {
			return &stat.Quantity{Median: x, Low: x, High: x, Unit: "instructions"}
		}
		if strings.Contains(diff.With, "/nic=") {
			continue // what they differ in is one picture above
		}
		rows = append(rows, pairedRow{cells.Clean(diff.With), exact(0), exact(diff.Instructions), change, "", ""})
	}
	if len(d.Rows) > 0 {
		d.Folded = v.draw
		b.Tables = append(b.Tables, d)
		if v.draw && len(rows) > 0 {
			b.Figure = pairedFigure(v.id(), "Instructions with and without", "instructions more",
				"Instructions a packet executes more ● with than ○ without, which stands at 0. Beside them the indirect branches that account for them. Instructions are no time: the ns are those branches at this machine’s price of one, an estimate.", rows)
		}
	}
	t := &table{Caption: "Counts a packet, exact", Folded: v.draw && len(l.Differences) > 0, Columns: []column{
		{"guest", ""}, {"kernel", "w"}, {"indirect calls are", ""}, {"instructions", "n"}, {"indirect branches", "n"},
	}}
	for _, row := range l.Rows {
		if row.Refused != "" {
			t.add(row.Name, row.Release, "no number: "+row.Refused, "–", "–")
			continue
		}
		t.add(row.Name, row.Release, row.Thunk, exactOr(row.Instructions), exactOr(row.Calls))
	}
	b.Tables = append(b.Tables, t)
	b.Text = append(b.Text, "Counts of the emulated guests, exact to the digit. Instructions are no time: QEMU predicts no branches.")
	return b
}

// labPaths draws where the branches of guests stand: for each kernel the row with
// most of them.
func (v *viewer) labPaths(s *record.Saved) []block {
	const most = 4
	best := make(map[string]*record.LabRow)
	var order []string
	for i := range s.Lab.Rows {
		row := &s.Lab.Rows[i]
		if row.Calls == nil || len(row.Sites) == 0 {
			continue
		}
		was := best[row.Release]
		if was == nil {
			order = append(order, row.Release)
		}
		if was == nil || *row.Calls > *was.Calls {
			best[row.Release] = row
		}
	}
	var out []block
	for _, release := range order[:min(len(order), most)] {
		row := best[release]
		stages := labStages(row)
		b := block{Heading: cells.Clean(row.Name) + ": where its indirect branches are"}
		if v.draw {
			b.Figure = pathFigure(v.id(), "The path of a packet in "+row.Name, stages, nil)
		}
		if t := siteTable(stages); t != nil {
			t.Folded = v.draw
			b.Tables = []*table{t}
		}
		out = append(out, b)
	}
	return out
}

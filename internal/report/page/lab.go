package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// labBlocks are counts of guests.
func (v *viewer) labBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		if s.Lab() == nil {
			continue
		}
		if slices.ContainsFunc(s.Lab().Rows, func(r record.LabRow) bool { return cells.OnWires(&r) }) {
			out = append(out, v.labWiresBlock(s))
		}
		out = append(out, v.labCountsBlock(s))
		out = append(out, v.labTraceBlocks(s.Lab())...)
		out = append(out, v.labPathBlocks(s.Lab())...)
	}
	return out
}

// exactQuantity is a count with no interval around it.
func exactQuantity(x float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: x, Low: x, High: x, Unit: unit}
}

// labWiresBlock are indirect branches and DMA calls of interfaces on wires, for each DMA
// setup.
func (v *viewer) labWiresBlock(s *record.Saved) block {
	b := block{Heading: cmp.Or(v.heading(s), "Interfaces and their DMA")}
	t := &table{Caption: "What a redirected packet makes", Columns: []column{
		{"NIC", ""}, {"DMA", ""}, {"scenario", ""}, {"bulk", "n"}, {"kernel", ""}, {"indirect calls are", "w"},
		{"indirect branches", "n"}, {"map", "n"}, {"sync", "n w"}, {"bounce", "n w"}, {"flush", "n w"}, {"copy", "n w"}, {"≈ ns", "n"},
	}}
	var pairs []pair
	bulks := make(map[string]bool)
	for _, row := range s.Lab().Rows {
		bulks[row.Labels["bulk"]] = true
	}
	for i := range s.Lab().Rows {
		row := &s.Lab().Rows[i]
		if !cells.OnWires(row) || row.CallsPerPacket == nil {
			continue
		}
		dma, ns, copies, change := row.SumDMA(), "–", "–", cells.Few(*row.CallsPerPacket)
		if dma.Copy != nil {
			copies = cells.Few(*dma.Copy)
		}
		if x := s.Lab().BranchNs(row); x != nil {
			ns = stat.Number(*x)
			change += ", ≈ " + ns + " ns"
		}
		t.add(row.Labels["nic"], row.Labels["dma"], row.Scenario(), row.Labels["bulk"], row.Release, row.Thunk, cells.Few(*row.CallsPerPacket),
			cells.Few(dma.Map), cells.Few(dma.Sync), cells.Few(dma.Bounce), cells.Few(dma.Flush), copies, ns)
		// With retpolines and without it is the same count: one of them is drawn.
		label := labWiresLabel(row, len(bulks) > 1)
		if !slices.ContainsFunc(pairs, func(p pair) bool { return p.label == label }) {
			pairs = append(pairs, pair{label: label, new: exactQuantity(*row.CallsPerPacket, "branches"), change: change})
		}
	}
	b.Tables = []*table{t}
	if v.draw {
		t.Folded = true
		b.Figure = pairsFigure(v.id(), "Indirect branches a packet by DMA setup", "a packet",
			"● Indirect branches that a redirected packet makes, by interface, DMA setup and kernel; ns are those "+
				"at this machine’s price of one, an estimate.", pairs)
	}
	return b
}

// labWiresLabel names what a row's count depends on.
func labWiresLabel(row *record.LabRow, bulk bool) string {
	version, _, _ := strings.Cut(strings.ReplaceAll(row.Release, "+", "-"), "-")
	name := fmt.Sprintf("%s %s %s", row.Labels["nic"], row.Labels["dma"], version)
	if bulk {
		name += " bulk " + row.Labels["bulk"]
	}
	if !row.IsDefault() {
		name += " " + row.Scenario()
	}
	return cells.Clean(name)
}

// labCountsBlock are the counts of each guest, and what accounts for their differences.
func (v *viewer) labCountsBlock(s *record.Saved) block {
	l := s.Lab()
	b := block{Heading: v.heading(s)}
	if len(l.Differences) > 0 {
		t := labDifferenceTable(l)
		t.Folded = v.draw
		b.Tables = append(b.Tables, t)
		const few = 3
		switch pairs := labDifferencePairs(l); {
		case !v.draw:
		case len(pairs) > few:
			b.Figure = pairsFigure(v.id(), "Instructions with and without", "instructions more",
				"● Instructions that a packet executes more with than without. Beside them the indirect branches that "+
					"account for them; the ns are those branches at this machine’s price of one, an estimate.", pairs)
		default:
			var notes []note
			for _, p := range pairs {
				notes = append(notes, note{p.label, fmt.Sprintf("%s instructions a packet more than without, by %s at this "+
					"machine’s price, an estimate", stat.Exact(p.new.Median), p.change)})
			}
			b.addList("", notes)
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
		count := func(x *float64) string {
			if x == nil {
				return "–"
			}
			return stat.Exact(*x)
		}
		t.add(row.Name, row.Release, row.Thunk, count(row.Instructions), count(row.CallsPerPacket))
	}
	b.Tables = append(b.Tables, t)
	v.addFootnotes(&b, s, labPart)
	for _, said := range conclusion.ProgramDifferences(l) {
		b.Text = append(b.Text, cells.Clean(said))
	}
	b.Text = append(b.Text, "Counts of the emulated guests, exact to the digit. "+
		"Instructions are no time: QEMU predicts no branches.")
	return b
}

// labDifferenceTable has a row for each difference of two guests.
func labDifferenceTable(l *record.Lab) *table {
	const caption = "With against without: what accounts for the difference in instructions a packet"
	t := &table{Caption: caption, Columns: []column{
		{"with", ""}, {"without", ""}, {"instructions", "n"}, {"by branches", "n"}, {"branches", "n"},
		{"by observer", "n w"}, {"left", "n w"}, {"≈ ns", "n"}, {"95 %", "i"},
	}}
	for _, d := range l.Differences {
		ns, around := cells.Quantity(d.Ns)
		t.add(d.With, d.Without, stat.Exact(d.Instructions), stat.Exact(d.BySites), stat.Exact(d.CallsPerPacket),
			stat.Exact(d.ByObserver), stat.Exact(d.Remainder), cmp.Or(ns, "–"), around)
	}
	return t
}

// labDifferencePairs are the differences of guests whose chain is veth; those of
// interfaces on wires have a picture of their own.
func labDifferencePairs(l *record.Lab) []pair {
	var pairs []pair
	for _, d := range l.Differences {
		if strings.Contains(d.With, "/nic=") {
			continue
		}
		change := cells.PerPackets(d.CallsPerPacket, "branch", "branches")
		if ns, _ := cells.Quantity(d.Ns); ns != "" {
			change += fmt.Sprintf(", ≈ %s ns", ns)
		}
		pairs = append(pairs, pair{label: cells.Clean(d.With), new: exactQuantity(d.Instructions, "instructions"), change: change})
	}
	return pairs
}

// labPathBlocks are where the branches of guests stand: for each kernel the row with
// most of them.
func (v *viewer) labPathBlocks(l *record.Lab) []block {
	const most = 4
	best := make(map[string]*record.LabRow)
	var releases []string
	for i := range l.Rows {
		row := &l.Rows[i]
		if row.CallsPerPacket == nil || len(row.Sites) == 0 {
			continue
		}
		was := best[row.Release]
		if was == nil {
			releases = append(releases, row.Release)
		}
		if was == nil || *row.CallsPerPacket > *was.CallsPerPacket {
			best[row.Release] = row
		}
	}
	var out []block
	for _, release := range releases[:min(len(releases), most)] {
		row := best[release]
		stages := labStages(row)
		b := block{Heading: cells.Clean(row.Name) + ": where its indirect branches are"}
		if v.draw {
			b.Figure = pathFigure(v.id(), "The path of a packet in "+row.Name, stages, false)
		}
		if t := siteTable(stages); t != nil {
			t.Folded = v.draw
			b.Tables = []*table{t}
		}
		out = append(out, b)
	}
	return out
}

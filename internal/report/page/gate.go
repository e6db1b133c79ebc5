package page

import (
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// gateBlock is a verdict of a gate.
func gateBlock(g *record.Gate) block {
	counts := &table{Caption: "Counts per packet", Columns: []column{
		{"row", "m"}, {"count", ""}, {"base", "n"}, {"now", "n"}, {"change", "n"}, {"allowed", "n"}, {"verdict", ""}, {"why", "t"},
	}}
	changes := &table{Caption: "What is executed another number of times for a packet", Columns: []column{
		{"row", "m"}, {"change", "n"}, {"what", "t"}, {"ns, estimate", "n"},
	}}
	for i := range g.Rows {
		row := &g.Rows[i]
		found := cells.GateCounts(row)
		for _, c := range found {
			verdict := c.Verdict()
			if row.Verdict == record.GateCannotTell {
				verdict = row.Verdict
			}
			counts.add(row.Name, c.Name, stat.Exact(c.Old), stat.Exact(c.New), cells.Signed(c.Difference()), cells.Allowed(c.GateCount),
				verdict, cells.Join(", ", row.Missing, row.Behavior)).Differs = verdict == record.GateBeyond
		}
		if len(found) == 0 {
			counts.add(row.Name, "", "–", "–", "–", "–", row.Verdict, row.Missing)
		}
		for _, list := range [][]record.GateChange{row.Sites, row.Functions} {
			for j := range list {
				change, what, ns := cells.GateChange(&list[j])
				changes.add(row.Name, change, what, ns)
			}
		}
		if row.Trace != nil {
			for _, d := range row.Trace.Functions {
				what := "instructions in " + d.Name + ", " + stat.Exact(d.Old) + " → " + stat.Exact(d.New)
				changes.add(row.Name, cells.Signed(d.Difference), what, "")
			}
		}
	}
	b := block{
		Heading: cells.GateSide(g.OldRelease, g.Old.File) + " → " + cells.GateSide(g.NewRelease, g.Kernel),
		Text:    []string{conclusion.Gate(g)},
	}
	for _, u := range g.Unlike {
		b.Text = append(b.Text, "Unlike in "+cells.GateBuild(u)+".")
	}
	for _, t := range []*table{counts, changes} {
		if len(t.Rows) > 0 {
			b.Tables = append(b.Tables, t)
		}
	}
	if len(g.Console) > 0 {
		t := &table{Caption: "The last lines of the guest", Columns: []column{{"line", "t"}}}
		for _, line := range g.Console {
			t.add(line)
		}
		b.Tables = append(b.Tables, t)
	}
	return b
}

// gate writes both sides of each count, and what differs.
func (c csvRecord) gate(g *record.Gate) {
	for i := range g.Rows {
		row := &g.Rows[i]
		found := cells.GateCounts(row)
		for _, count := range found {
			c.exact(row.Name, count.Name+"/old", count.Old, "per packet", "")
			c.exact(row.Name, count.Name+"/new", count.New, "per packet", row.Verdict)
		}
		if len(found) == 0 {
			c.none(row.Name, "instructions", cells.Join(": ", row.Verdict, row.Missing))
		}
		for _, list := range [][]record.GateChange{row.Sites, row.Functions} {
			for j := range list {
				change, what, _ := cells.GateChange(&list[j])
				c.exact(row.Name, "change", list[j].Difference(), "per packet", cells.Join(" ", change, what))
			}
		}
	}
}

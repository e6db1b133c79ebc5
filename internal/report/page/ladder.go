package page

import (
	"cmp"

	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// ladderBlocks are the rows of bench and run.
func (v *viewer) ladderBlocks() []block {
	high := 0.0
	for _, s := range v.src.Records {
		if s.Bench != nil {
			high = max(high, ladderSpan(s.Bench.Rows))
		}
	}
	var out []block
	for _, s := range v.src.Records {
		if s.Bench == nil || len(s.Bench.Rows) == 0 {
			continue
		}
		t := &table{Caption: "Rate, ns a packet, ns of the redirect hop; medians [95 % intervals]", Folded: v.draw, Columns: []column{
			{"row", ""}, {"Mpps", "n"}, {"", "i"}, {"ns", "n"}, {"", "i"}, {"hop ns", "n"}, {"", "i"}, {"frames/xmit", "n"},
		}}
		for _, row := range s.Bench.Rows {
			if row.Refused != "" {
				t.add(row.Name, "–", "no number: "+row.Refused)
				continue
			}
			mpps, mppsAround := cells.Quantity(row.Mpps)
			ns, nsAround := cells.Quantity(row.Ns)
			hop, hopAround := cells.Quantity(row.Hop)
			frames := "–"
			if row.FramesPerXmit != nil {
				frames = stat.Number(row.FramesPerXmit.Median)
			}
			t.add(row.Name, mpps, mppsAround, ns, nsAround, cmp.Or(hop, "–"), hopAround, frames)
		}
		b := block{Heading: v.heading(s), Text: []string{cells.BenchMethod(s.Bench)}, Tables: []*table{t}}
		if v.draw && high > 0 {
			b.Figure = ladderFigure(v.id(), "Bulk ladder of "+v.labels[s], s.Bench.Rows, high)
		}
		out = append(out, b)
	}
	return out
}

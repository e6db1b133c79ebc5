package page

import (
	"cmp"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ladderBlocks are the rows of bench and run.
func (v *viewer) ladderBlocks() []block {
	high := 0.0 // one scale for all ladders of the page
	for _, s := range v.src.Records {
		if s.Bench() != nil {
			high = max(high, ladderSpan(s.Bench().Rows))
		}
	}
	var out []block
	for _, s := range v.src.Records {
		if s.Bench() == nil || len(s.Bench().Rows) == 0 {
			continue
		}
		t := ladderTable(s.Bench().Rows)
		t.Folded = v.draw
		b := block{Heading: v.heading(s), Text: []string{conclusion.RatesBasis(s.Bench())}, Tables: []*table{t}}
		if v.draw && high > 0 {
			b.Figure = ladderFigure(v.id(), "Bulk ladder of "+v.labels[s], s.Bench().Rows, high)
		}
		out = append(out, b)
	}
	return out
}

// ladderTable has the numbers of each row.
func ladderTable(rows []record.BenchRow) *table {
	t := &table{Caption: "Rate, ns a packet, ns of the redirect hop; medians [95 % intervals]", Columns: []column{
		{"row", ""}, {"Mpps", "n"}, {"", "i"}, {"ns", "n"}, {"", "i"}, {"hop ns", "n"}, {"", "i"}, {"frames/xmit", "n"},
	}}
	for i := range rows {
		row := &rows[i]
		if row.Refused != "" {
			t.add(row.Name, "–", "no number: "+row.Refused)
			continue
		}
		c := cells.Bench(row)
		t.add(row.Name, c.Mpps, c.MppsInterval, c.Ns, c.NsInterval, cmp.Or(c.Hop, "–"), c.HopInterval,
			cmp.Or(c.Frames, "–"))
	}
	return t
}

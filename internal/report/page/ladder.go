package page

import (
	"cmp"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ladderBlocks are the rows of bench and run.
func (v *viewer) ladderBlocks() []block {
	high := v.ladderHigh() // one scale for all ladders of the page
	var out []block
	for _, s := range v.src.Records {
		if s.Bench() == nil || len(s.Bench().Rows) == 0 || !v.shows(s, ladderPart) {
			continue
		}
		t := ladderTable(s.Bench().Rows)
		t.Folded = v.draw
		b := block{Heading: v.heading(s), Folded: v.draw && v.folds(s, ladderPart), Tables: []*table{t}}
		for _, text := range []string{conclusion.RatesBasis(s.Bench()), v.mergedText(s, ladderPart)} {
			b.addText(text)
		}
		if v.draw && high > 0 {
			b.Figure = ladderFigure(v.id(), "Bulk ladder of "+v.labels[s], s.Bench().Rows, high)
		}
		v.addFootnotes(&b, s, ladderPart)
		out = append(out, b)
	}
	return out
}

// ladderTable has the numbers of each row.
func ladderTable(rows []record.BenchRow) *table {
	t := &table{Caption: "Rate, ns a packet of the whole test, ns of the redirect alone; medians [95 % intervals]", Columns: []column{
		{"row", ""}, {"Mpps", "n"}, {"", "i"}, {"ns", "n"}, {"", "i"}, {"redirect ns", "n"}, {"", "i"}, {"frames/xmit", "n"},
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

package page

import (
	"cmp"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// watchBlocks are programs that were watched at work.
func (v *viewer) watchBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		if w := s.ProgWatch(); w != nil {
			out = append(out, block{Heading: v.heading(s), Tables: []*table{watchTable(w)}})
		}
	}
	return out
}

// watchTable has the figures.
func watchTable(w *record.ProgWatch) *table {
	t := &table{
		Caption: cells.Clean(conclusion.WatchHead(w)),
		Columns: []column{{"figure", "m"}, {"mean", "n"}, {"95 %", "i"}, {"of", "t"}},
	}
	for i := range w.Rows {
		row := &w.Rows[i]
		mean, around := cells.Quantity(row.Value)
		t.add(cells.Clean(row.Name), cmp.Or(mean, "–"), around, cmp.Or(cells.WatchUnit(w, row), cells.Clean(row.Refused)))
	}
	return t
}

package page

import (
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Most rows of a page that have a picture of their trend, and dots that one has.
const (
	maxTrends = 60
	maxDots   = 400
)

// history are the trends, a block for each group.
func (v *viewer) history() []block {
	h := v.src.History
	if h == nil {
		return nil
	}
	said := conclusion.OfHistory(h).Text
	if len(v.src.Records) > 0 { // else it is the page's title
		said = conclusion.OfHistory(h).Title + ". " + said
	}
	out := []block{{Text: []string{said, cells.HistoryMethod}}}
	drawn := 0
	for i := range h.Groups {
		g := &h.Groups[i]
		b := block{Heading: g.Name + ". " + cells.Clean(cells.GroupTitle(g)), Text: []string{cells.GroupSpan(g) + "."}}
		t := &table{Caption: "Rows of group " + g.Name + ", ns; medians of runs", Columns: []column{
			{"row", ""}, {"runs", "n"}, {"first", "n"}, {"last", "n"}, {"level", "n"}, {"95 %", "i"}, {"changes", "t"},
		}}
		var plotted []*record.HistoryRow
		for j := range h.Rows {
			row := &h.Rows[j]
			if row.Group != g.Name || len(row.Points) == 0 {
				continue
			}
			level, around := cells.Quantity(row.Level)
			t.add(row.Name, strconv.Itoa(len(row.Points)), cells.Number(row.Points[0].Ns.Median), cells.Number(row.Points[len(row.Points)-1].Ns.Median), level, around,
				strings.Join(cells.HistoryLines(h, row), "; ")).Differs = len(row.Changes) > 0
			if len(row.Points) > 1 && drawn < maxTrends {
				plotted = append(plotted, row)
				drawn++
			}
		}
		b.Tables = []*table{t}
		if v.draw && len(plotted) > 0 {
			b.Figure = v.trendFigure(h, g, plotted)
			t.Folded = true
		}
		if len(g.Differs) > 0 {
			tables := causesTable(g.Differs)
			tables[0].Caption = "What differs from the group before"
			tables[0].Folded = len(g.Differs) > 4
			b.Tables = append(b.Tables, tables...)
		}
		out = append(out, b)
	}
	if len(h.Left) > 0 {
		b := block{NotesTitle: cells.Plural(len(h.Left), "file") + " of the folder left out"}
		for _, left := range h.Left[:min(len(h.Left), maxTable)] {
			b.Notes = append(b.Notes, note{cells.Clean(left.File), cells.Clean(left.Why)})
		}
		out = append(out, b)
	}
	return out
}

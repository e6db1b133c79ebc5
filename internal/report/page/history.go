package page

import (
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxTrends is the most rows of a page that have a picture of their trend.
const maxTrends = 60

// historyBlocks are the trends, a block for each group.
func (v *viewer) historyBlocks() []block {
	h := v.src.History
	if h == nil {
		return nil
	}
	said := conclusion.OfHistory(h).Text
	if len(v.src.Records) > 0 { // else it is the page's title
		said = conclusion.OfHistory(h).Title + ". " + said
	}
	out := []block{{Text: []string{said, conclusion.HistoryBasis}}}
	drawn := 0
	for i := range h.Groups {
		out = append(out, v.groupBlock(h, &h.Groups[i], &drawn))
	}
	if len(h.Left) > 0 {
		var notes []note
		for _, left := range h.Left[:min(len(h.Left), maxTable)] {
			notes = append(notes, note{cells.Clean(left.File), cells.Clean(left.Why)})
		}
		var b block
		b.addList(cells.Plural(len(h.Left), "file")+" of the folder left out", notes)
		out = append(out, b)
	}
	return out
}

// groupBlock are the rows of a group. drawn counts those of the page with a picture.
func (v *viewer) groupBlock(h *record.History, g *record.HistoryGroup, drawn *int) block {
	b := block{Heading: g.Name + ". " + cells.Clean(cells.GroupTitle(g)), Text: []string{cells.GroupSpan(g) + "."}}
	t := &table{Caption: "Rows of group " + g.Name + ", ns; medians of runs", Columns: []column{
		{"row", ""}, {"runs", "n"}, {"first", "n"}, {"last", "n"}, {"level", "n"}, {"95 %", "i"}, {"changes", "t"},
	}}
	var plotted []*record.HistoryRow
	for i := range h.Rows {
		row := &h.Rows[i]
		n := len(row.Points)
		if row.Group != g.Name || n == 0 {
			continue
		}
		first, last := row.Points[0].Ns.Median, row.Points[n-1].Ns.Median
		level, around := cells.Quantity(row.Level)
		t.add(row.Name, strconv.Itoa(n), stat.Number(first), stat.Number(last), level, around,
			strings.Join(cells.HistoryLines(h, row), "; ")).Differs = len(row.Changes) > 0
		if n > 1 && *drawn < maxTrends {
			plotted = append(plotted, row)
			*drawn++
		}
	}
	b.Tables = []*table{t}
	if v.draw && len(plotted) > 0 {
		b.Figure = trendsFigure(v.id(), h, g, plotted)
		t.Folded = true
	}
	if causes := causesTable(g.Differs); causes != nil {
		causes.Caption = "What differs from the group before"
		causes.Folded = len(g.Differs) > 4
		b.Tables = append(b.Tables, causes)
	}
	return b
}

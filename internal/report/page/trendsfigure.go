package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxDots is about the most dots that a row of a figure has.
const maxDots = 400

// trendsFigure draws rows over the runs of a group: dots with intervals, levels as
// lines, changes as triangles.
func trendsFigure(id string, h *record.History, g *record.HistoryGroup, rows []*record.HistoryRow) *figure {
	var said []string
	for _, row := range rows {
		s := fmt.Sprintf("%s: %d runs, level %s ns", row.Name, len(row.Points), stat.Number(row.Level.Median))
		for _, c := range row.Changes {
			s += fmt.Sprintf(", %s from %s on", cells.Shift(c.Shift), cells.Day(h.Origin(row, c.Record).Time))
		}
		said = append(said, s)
	}
	caption := "Each row over its runs, in the order of time: ● ns with 95 % intervals, lines are levels, ▲ and ▼ " +
		"where one begins. Scales differ from row to row; the numbers beside them are their ends, in ns; what " +
		"reaches beyond is cut."
	return newFigure(id, "Trends of group "+g.Name, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		const height = 60.0
		y := 4.0
		last := len(g.Records) - 1
		runs := axis{0, float64(max(last, 1)), 200, d.width - 58}
		if !d.wide() {
			runs.left = 4
		}
		for _, row := range rows {
			if d.wide() {
				d.fit("end", runs.left-14, y+height/2, runs.left-18, row.Name)
				level := "level " + stat.Number(row.Level.Median) + " ns"
				d.fit("soft end", runs.left-14, y+height/2+16, runs.left-18, level)
			} else {
				d.fit("", 0, y+12, d.width, row.Name)
				y += 20
			}
			d.trendRow(row, runs, y, y+height)
			y += height + 8
		}
		if last >= 0 {
			d.text("soft", runs.left, y+12, cells.Day(g.Records[0].Time))
			d.text("soft end", runs.right, y+12, cells.Day(g.Records[last].Time))
		}
		d.height = y + 18
	})
}

// trendRow draws one row between top and bottom: its points, levels and changes, and
// the ends of its scale. runs is the axis of its group's records.
func (d *drawing) trendRow(row *record.HistoryRow, runs axis, top, bottom float64) {
	s := trendSpan(row)
	at := func(ns float64) float64 {
		return bottom - (bottom-top)*min(max((ns-s.low)/(s.high-s.low), 0), 1)
	}
	d.line("grid", runs.left, top, runs.right, top)
	d.line("grid", runs.left, bottom, runs.right, bottom)
	radius := 2.6
	if len(row.Points) > 60 {
		radius = 1.6
	}
	step := 1 + len(row.Points)/maxDots
	for i := 0; i < len(row.Points); i += step {
		p := row.Points[i]
		x := runs.x(float64(p.Record))
		if !math.IsNaN(p.Ns.Low) && !math.IsNaN(p.Ns.High) {
			d.line("whisker thin", x, at(p.Ns.Low), x, at(p.Ns.High))
		}
		d.circle("dot", x, at(p.Ns.Median), radius)
	}
	for i, level := range row.Levels() {
		d.line("level", runs.x(float64(level.From)), at(level.Ns), runs.x(float64(level.To)), at(level.Ns))
		if i < len(row.Changes) {
			d.levelChange(row.Changes[i], runs, top, bottom)
		}
	}
	d.text("soft", runs.right+8, top+10, stat.Number(s.high))
	d.text("soft", runs.right+8, bottom-1, stat.Number(s.low))
}

// trendSpan is the scale of a row: intervals have as much room as the values, and what
// reaches further is cut.
func trendSpan(row *record.HistoryRow) span {
	var values, all span
	for _, p := range row.Points {
		values.add(p.Ns.Median)
		all.add(p.Ns.Median, p.Ns.Low, p.Ns.High)
	}
	room := values.high - values.low
	pad := 0.15*room + 1e-9*math.Abs(values.high) + 1e-12
	return span{low: max(all.low, values.low-room) - pad, high: min(all.high, values.high+room) + pad}
}

// levelChange draws where a new level begins.
func (d *drawing) levelChange(c record.HistoryChange, runs axis, top, bottom float64) {
	x := runs.x(float64(c.Record) - 0.5)
	d.line("cutline", x, top, x, bottom)
	d.text("marktext mid", x, top+10, cells.ChangeMark(c.Shift))
	if x < (runs.left+runs.right)/2 {
		d.text("soft", x+8, top+11, cells.ShortShift(c.Shift))
	} else {
		d.text("soft end", x-8, top+11, cells.ShortShift(c.Shift))
	}
}

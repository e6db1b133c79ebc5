package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// trendFigure draws rows over the runs of a group: dots with intervals, levels as
// lines, changes as triangles.
func (v *viewer) trendFigure(h *record.History, g *record.HistoryGroup, rows []*record.HistoryRow) *figure {
	var said []string
	for _, row := range rows {
		s := fmt.Sprintf("%s: %d runs, level %s ns", row.Name, len(row.Points), cells.Number(row.Level.Median))
		for _, c := range row.Changes {
			s += fmt.Sprintf(", %s from %s on", cells.Shift(c.Shift), cells.Day(h.Origin(row, c.Record).Time))
		}
		said = append(said, s)
	}
	caption := "Each row over its runs, in the order of time: ● ns with 95 % intervals, lines are levels, ▲ and ▼ where one begins. Scales differ from row to row; the numbers beside them are their ends, in ns; what reaches beyond is cut."
	return draws(v.id(), "Trends of group "+g.Name, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		y := 4.0
		last := len(g.Records) - 1
		for _, row := range rows {
			left, right, height := 200.0, d.width-58, 60.0
			if d.wide() {
				d.fit("end", left-14, y+height/2, left-18, row.Name)
				d.fit("soft end", left-14, y+height/2+16, left-18, "level "+cells.Number(row.Level.Median)+" ns")
			} else {
				left = 4
				d.fit("", 0, y+12, d.width, row.Name)
				y += 20
			}
			d.trend(row, axis{0, float64(max(last, 1)), left, right}, y, y+height)
			y += height + 8
		}
		left := 200.0
		if !d.wide() {
			left = 4
		}
		if last >= 0 {
			d.text("soft", left, y+12, cells.Day(g.Records[0].Time))
			d.text("soft end", d.width-58, y+12, cells.Day(g.Records[last].Time))
		}
		d.height = y + 18
	})
}

// trend draws one row between top and bottom.
func (d *drawing) trend(row *record.HistoryRow, x axis, top, bottom float64) {
	var s span
	for _, p := range row.Points {
		s.add(p.Ns.Median)
	}
	low, high := s.low, s.high
	for _, p := range row.Points {
		s.add(p.Ns.Low, p.Ns.High)
	}
	// Intervals have as much room as the values; what reaches further is cut.
	room := high - low
	pad := 0.15*room + 1e-9*math.Abs(high) + 1e-12
	s.low, s.high = max(s.low, low-room)-pad, min(s.high, high+room)+pad
	at := func(v float64) float64 { return bottom - (bottom-top)*min(max((v-s.low)/(s.high-s.low), 0), 1) }
	d.line("grid", x.left, top, x.right, top)
	d.line("grid", x.left, bottom, x.right, bottom)
	step := 1 + len(row.Points)/maxDots
	for i := 0; i < len(row.Points); i += step {
		p := row.Points[i]
		px := x.x(float64(p.Record))
		if !math.IsNaN(p.Ns.Low) && !math.IsNaN(p.Ns.High) {
			d.line("whisker thin", px, at(p.Ns.Low), px, at(p.Ns.High))
		}
		d.circle("dot", px, at(p.Ns.Median), map[bool]float64{true: 2.6, false: 1.6}[len(row.Points) <= 60])
	}
	// Levels from change to change.
	from := 0
	for i := 0; i <= len(row.Changes); i++ {
		to := len(row.Points)
		if i < len(row.Changes) {
			for j, p := range row.Points {
				if p.Record == row.Changes[i].Record {
					to = j
				}
			}
		}
		var xs []float64
		for _, p := range row.Points[min(from, to):to] {
			xs = append(xs, p.Ns.Median)
		}
		if len(xs) > 0 && len(row.Points) >= stat.MinChanges {
			level := at(stat.Median(xs))
			d.line("level", x.x(float64(row.Points[from].Record)), level, x.x(float64(row.Points[to-1].Record)), level)
		}
		if i < len(row.Changes) {
			c := row.Changes[i]
			px := x.x(float64(c.Record) - 0.5)
			d.line("cutline", px, top, px, bottom)
			d.text("marktext mid", px, top+10, cells.ChangeMark(c.Shift))
			if px < (x.left+x.right)/2 {
				d.text("soft", px+8, top+11, cells.ShortShift(c.Shift))
			} else {
				d.text("soft end", px-8, top+11, cells.ShortShift(c.Shift))
			}
		}
		from = to
	}
	d.text("soft", x.right+8, top+10, cells.Number(s.high))
	d.text("soft", x.right+8, bottom-1, cells.Number(s.low))
}

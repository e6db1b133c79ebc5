package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// ladderSpan is the range of ns of the rows, from 0.
func ladderSpan(rows []record.BenchRow) float64 {
	high := 0.0
	for _, row := range rows {
		for _, q := range []*stat.Quantity{row.Ns, row.Hop} {
			if q == nil {
				continue
			}
			for _, x := range []float64{q.Median, q.High} {
				if !math.IsNaN(x) {
					high = max(high, x)
				}
			}
		}
	}
	return high
}

// ladderFigure is the bulk ladder: ns per packet and of the hop, each a dot with its
// interval. high is where the axis ends, so that ladders of a page share one.
func ladderFigure(id, title string, rows []record.BenchRow, high float64) *figure {
	rows = rows[:min(len(rows), maxPlotted)]
	var said []string
	hops := false
	for _, row := range rows {
		switch {
		case row.Ns != nil && row.Mpps != nil:
			said = append(said, fmt.Sprintf("%s %s ns, %s Mpps", row.Name, stat.Number(row.Ns.Median),
				stat.Number(row.Mpps.Median)))
		default:
			said = append(said, row.Name+" has no number")
		}
		hops = hops || row.Hop != nil
	}
	caption := "● ns a packet of the whole test on one core"
	if hops {
		caption += ", ◇ of them the redirect alone"
	}
	caption += "; lines are 95 % intervals. On the right million packets a second."
	return newFigure(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		ns := axis{0, max(high*1.02, 1e-9), 100, d.width - 160}
		if !d.wide() {
			ns.left, ns.right = 66, d.width-56
		}
		d.text("soft end", d.width, 16, "Mpps")
		const top, step = 24.0, 22.0
		lines := ladderLines(rows)
		bottom := top + step*float64(len(lines)) + 4
		ns.draw(d, top, bottom, "ns")
		for i, line := range lines {
			y := top + step*float64(i)
			if line.row == nil {
				d.rect("paper", 0, y+2, d.width, 17)
				d.fit("strong", 0, y+15, d.width, line.heading)
				continue
			}
			d.ladderRow(line.row, ns, y+11)
		}
		d.height = bottom + 20
	})
}

// ladderLine is a line of a ladder's figure: a row, or else a heading.
type ladderLine struct {
	heading string
	row     *record.BenchRow
}

// ladderLines are rows, and above those of each ladder its heading.
func ladderLines(rows []record.BenchRow) []ladderLine {
	var out []ladderLine
	last := ""
	for i := range rows {
		if heading, _ := cells.SplitBulk(rows[i].Name); heading != last {
			out = append(out, ladderLine{heading: heading})
			last = heading
		}
		out = append(out, ladderLine{row: &rows[i]})
	}
	return out
}

// ladderRow draws a row at y: its bulk size, ns as dots with intervals, and Mpps.
func (d *drawing) ladderRow(row *record.BenchRow, ns axis, y float64) {
	label := "–"
	if _, bulk := cells.SplitBulk(row.Name); bulk != "" {
		label = "bulk " + bulk
	}
	d.fit("end", ns.left-12, y+4, ns.left-12, label)
	if row.Ns == nil || row.Mpps == nil {
		d.fit("soft", ns.left+4, y+4, ns.right-ns.left, "no number: "+row.Refused)
		return
	}
	d.interval(ns, y, row.Ns, "", func(x, y float64) { d.circle("dot", x, y, 4.5) })
	d.interval(ns, y, row.Hop, "second", func(x, y float64) { d.diamond("dot second", x, y, 5) })
	c := cells.Bench(row)
	if d.wide() {
		d.text("end", ns.right+52, y+4, c.Mpps)
		d.text("soft end", d.width, y+4, c.MppsInterval)
	} else {
		d.text("end", d.width, y+4, c.Mpps)
	}
}

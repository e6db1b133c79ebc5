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
			said = append(said, fmt.Sprintf("%s %s ns, %s Mpps", row.Name, cells.Number(row.Ns.Median), cells.Number(row.Mpps.Median)))
		default:
			said = append(said, row.Name+" has no number")
		}
		hops = hops || row.Hop != nil
	}
	caption := "● ns a packet of the whole chain on one core"
	if hops {
		caption += ", ◇ of them the redirect hop"
	}
	caption += "; lines are 95 % intervals. On the right million packets a second."
	return draws(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		a := axis{0, max(high*1.02, 1e-9), 100, d.width - 160}
		if !d.wide() {
			a.left, a.right = 66, d.width-56
		}
		y := 16.0
		d.text("soft end", d.width, y, "Mpps")
		top := y + 8
		y = top
		type heading struct {
			y    float64
			text string
		}
		var headings []heading
		type placed struct {
			y   float64
			row *record.BenchRow
		}
		var all []placed
		last := ""
		for i := range rows {
			head, _ := cells.SplitBulk(rows[i].Name)
			if head != last {
				headings = append(headings, heading{y + 15, head})
				last = head
				y += 22
			}
			all = append(all, placed{y + 11, &rows[i]})
			y += 22
		}
		a.draw(d, top, y+4, "ns")
		for _, h := range headings {
			d.rect("paper", 0, h.y-13, d.width, 17)
			d.fit("strong", 0, h.y, d.width, h.text)
		}
		for _, p := range all {
			_, bulk := cells.SplitBulk(p.row.Name)
			label := "–"
			if bulk != "" {
				label = "bulk " + bulk
			}
			d.fit("end", a.left-12, p.y+4, a.left-12, label)
			if p.row.Ns == nil || p.row.Mpps == nil {
				d.fit("soft", a.left+4, p.y+4, a.right-a.left, "no number: "+p.row.Refused)
				continue
			}
			d.interval(a, p.y, p.row.Ns, "", func(x, y float64) { d.circle("dot", x, y, 4.5) })
			d.interval(a, p.y, p.row.Hop, "second", func(x, y float64) { d.diamond("dot second", x, y, 5) })
			mpps, around := cells.Quantity(p.row.Mpps)
			if d.wide() {
				d.text("end", a.right+52, p.y+4, mpps)
				d.text("soft end", d.width, p.y+4, around)
			} else {
				d.text("end", d.width, p.y+4, mpps)
			}
		}
		d.height = y + 24
	})
}

package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// priceFigure draws prices as dots with intervals on one axis.
func priceFigure(id, title string, rows []record.TaxRow) *figure {
	var plotted []record.TaxRow
	var s span
	s.add(0)
	for _, row := range rows {
		if row.Price != nil && !math.IsNaN(row.Price.Median) && len(plotted) < maxPlotted {
			plotted = append(plotted, row)
			s.add(row.Price.Median, row.Price.Low, row.Price.High)
		}
	}
	if len(plotted) < 2 {
		return nil
	}
	var said []string
	for _, row := range plotted {
		said = append(said, fmt.Sprintf("%s %s ns", row.Name, stat.Number(row.Price.Median)))
	}
	return newFigure(id, title, strings.Join(said, "; ")+".", "Price of one call, ns with it less ns without it, with 95 % intervals.", func(d *drawing) {
		a := axis{s.low - 0.01*(s.high-s.low), s.high * 1.02, 180, d.width - 130}
		if !d.wide() {
			a.left, a.right = 128, d.width-46
		}
		const step = 18.0
		top := 4.0
		y := top + step*float64(len(plotted))
		a.draw(d, top, y, "ns")
		if a.low < 0 {
			d.line("rule", a.x(0), top, a.x(0), y)
		}
		for i, row := range plotted {
			mid := top + step*float64(i) + step/2
			d.fit("mono end", a.left-10, mid+4, a.left-10, row.Name)
			d.interval(a, mid, row.Price, "", func(x, y float64) { d.circle("dot", x, y, 4) })
			value, around := cells.Quantity(row.Price)
			if d.wide() {
				d.text("end", a.right+42, mid+4, value)
				d.text("soft", a.right+48, mid+4, around)
			} else {
				d.text("end", d.width, mid+4, value)
			}
		}
		d.height = y + 20
	})
}

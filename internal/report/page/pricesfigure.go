package page

import (
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pricesFigure draws prices as dots with intervals on one axis, without the estimates
// for a whole packet. It is nil for fewer than two.
func pricesFigure(id, title string, rows []record.TaxRow) *figure {
	var plotted []record.TaxRow
	var said []string
	var s span
	s.add(0)
	for _, row := range rows {
		if row.Refused != "" || row.Labels["pair"] == "packet" || row.Price == nil || math.IsNaN(row.Price.Median) ||
			len(plotted) == maxPlotted {
			continue
		}
		plotted = append(plotted, row)
		s.add(row.Price.Median, row.Price.Low, row.Price.High)
		said = append(said, fmt.Sprintf("%s %s ns", row.Name, stat.Number(row.Price.Median)))
	}
	if len(plotted) < 2 {
		return nil
	}
	const caption = "Price of one call, ns with it less ns without it, with 95 % intervals."
	return newFigure(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		ns := axis{s.low - 0.01*(s.high-s.low), s.high * 1.02, 180, d.width - 130}
		if !d.wide() {
			ns.left, ns.right = 128, d.width-46
		}
		const top, step = 4.0, 18.0
		bottom := top + step*float64(len(plotted))
		ns.draw(d, top, bottom, "ns")
		if ns.low < 0 {
			d.line("rule", ns.x(0), top, ns.x(0), bottom)
		}
		for i := range plotted {
			d.priceRow(&plotted[i], ns, top+step*float64(i)+step/2)
		}
		d.height = bottom + 20
	})
}

// priceRow draws a price at y: its name, a dot with its interval, and both in digits.
func (d *drawing) priceRow(row *record.TaxRow, ns axis, y float64) {
	d.fit("mono end", ns.left-10, y+4, ns.left-10, row.Name)
	d.interval(ns, y, row.Price, "", func(x, y float64) { d.circle("dot", x, y, 4) })
	c := cells.Price(row)
	if d.wide() {
		d.text("end", ns.right+42, y+4, c.Price)
		d.text("soft", ns.right+48, y+4, c.PriceInterval)
	} else {
		d.text("end", d.width, y+4, c.Price)
	}
}

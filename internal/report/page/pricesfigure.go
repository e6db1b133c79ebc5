package page

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// priceGroup is what a price is of.
type priceGroup struct {
	title string
	pairs []string
}

// priceGroups part the prices of one indirect call from those of more than that. What
// they do not name is a reference, an estimate for a packet, or what bulking saves, which
// is more than calls: the table has those.
var priceGroups = []priceGroup{
	{"one indirect call", []string{"bpf-prog", "map-lookup", "tail-call", "callback"}},
	{"one indirect call in user space", []string{"user"}},
	{"more than a call: with it against without it", []string{"devmap-prog", "tracepoint", "return-frame"}},
}

// priceLine is a line of the figure of prices: a row, or else a heading.
type priceLine struct {
	heading string
	row     *record.TaxRow
}

// priceLines are the rows that the figure shows under their headings.
func priceLines(rows []record.TaxRow) []priceLine {
	var out []priceLine
	for _, g := range priceGroups {
		heading := g.title
		for i := range rows {
			row := &rows[i]
			if row.Refused != "" || row.Price == nil || math.IsNaN(row.Price.Median) || len(out) >= maxPlotted ||
				!slices.Contains(g.pairs, row.Labels["pair"]) {
				continue
			}
			if heading != "" {
				out = append(out, priceLine{heading: heading})
				heading = ""
			}
			out = append(out, priceLine{row: row})
		}
	}
	return out
}

// pricesFigure draws prices as dots with intervals on one axis, by what they are of. It is
// nil for none.
func pricesFigure(id, title string, rows []record.TaxRow) *figure {
	lines := priceLines(rows)
	var said []string
	var s span
	s.add(0)
	for _, line := range lines {
		if line.row != nil {
			s.add(line.row.Price.Median, line.row.Price.Low, line.row.Price.High)
			said = append(said, fmt.Sprintf("%s %s ns", line.row.Name, stat.Number(line.row.Price.Median)))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	const caption = "ns with it less ns without it, with 95 % intervals."
	return newFigure(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		ns := axis{s.low - 0.01*(s.high-s.low), s.high * 1.02, nameWidth(lines, d.width), d.width - 130}
		if !d.wide() {
			ns.right = d.width - 46
		}
		const top, step, above = 4.0, 18.0, 6.0
		bottom := top
		for _, line := range lines {
			bottom += step
			if line.row == nil {
				bottom += above
			}
		}
		ns.draw(d, top, bottom, "ns")
		if ns.low < 0 {
			d.line("rule", ns.x(0), top, ns.x(0), bottom)
		}
		y := top
		for _, line := range lines {
			if line.row == nil {
				d.rect("paper", 0, y, d.width, step+above)
				d.fit("strong", 0, y+above+13, d.width, line.heading)
				y += step + above
				continue
			}
			d.priceRow(line.row, ns, y+step/2)
			y += step
		}
		d.height = bottom + 20
	})
}

// nameWidth is the width that names left of the axis take, at most half the figure.
func nameWidth(lines []priceLine, width float64) float64 {
	most := 0.0
	for _, line := range lines {
		if line.row != nil {
			most = max(most, 16+charMono*float64(utf8.RuneCountInString(line.row.Name)))
		}
	}
	return min(most, width/2)
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

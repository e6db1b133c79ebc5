package page

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Headings of the figure of prices.
const (
	oneCall     = "one indirect call"
	oneUserCall = "one indirect call in user space"
	moreThan    = "more than a call: with it against without it"
)

// priceHeading is the heading that a price stands under; empty for one that is a reference
// or an estimate for a packet: the table has those.
func priceHeading(row *record.TaxRow) string {
	family, _, _ := strings.Cut(row.Name, "/")
	switch cmp.Or(row.Labels["pair"], family) {
	case "control", "dispatcher-tree", "direct-call", "run-statistics", "packet":
		return ""
	case "bpf-prog", "map-lookup", "tail-call", "callback", "ndo-xdp-xmit":
		return oneCall
	case "user":
		return oneUserCall
	}
	return moreThan
}

// priceLine is a line of the figure of prices: a row, or else a heading.
type priceLine struct {
	heading string
	row     *record.TaxRow
	// price is what its calls take.
	price *stat.Quantity
}

// priceLines are the rows that the figure shows under their headings.
func priceLines(rows []record.TaxRow) []priceLine {
	var out []priceLine
	for _, title := range []string{oneCall, oneUserCall, moreThan} {
		heading := title
		for i := range rows {
			row := &rows[i]
			price, _ := row.CallPart()
			if row.Refused != "" || price == nil || math.IsNaN(price.Median) || len(out) >= maxPlotted ||
				priceHeading(row) != title {
				continue
			}
			if heading != "" {
				out = append(out, priceLine{heading: heading})
				heading = ""
			}
			out = append(out, priceLine{row: row, price: price})
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
			s.add(line.price.Median, line.price.Low, line.price.High)
			said = append(said, fmt.Sprintf("%s %s ns", line.row.Name, line.price.Cost(stat.Number)))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	const caption = "ns with it less ns without it, with 95 % intervals; of ndo-xdp-xmit the part of the calls."
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
			d.priceRow(line, ns, y+step/2)
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
func (d *drawing) priceRow(line priceLine, ns axis, y float64) {
	d.fit("mono end", ns.left-10, y+4, ns.left-10, line.row.Name)
	d.interval(ns, y, line.price, "", func(x, y float64) { d.circle("dot", x, y, 4) })
	median, around := cells.Quantity(line.price)
	if d.wide() {
		d.text("end", ns.right+42, y+4, median)
		d.text("soft", ns.right+48, y+4, around)
	} else {
		d.text("end", d.width, y+4, median)
	}
}

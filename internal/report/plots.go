package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Most rows that a plot has place for; a table beneath may have more.
const maxPlotted = 80

// interval draws a dot and its interval at y.
func (d *drawing) interval(a axis, y float64, q *stat.Quantity, class string, dot func(x, y float64)) {
	if q == nil || math.IsNaN(q.Median) {
		return
	}
	if !math.IsNaN(q.Low) && !math.IsNaN(q.High) {
		d.line("whisker "+class, a.x(q.Low), y, a.x(q.High), y)
	}
	dot(a.x(q.Median), y)
}

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
			said = append(said, fmt.Sprintf("%s %s ns, %s Mpps", row.Name, number(row.Ns.Median), number(row.Mpps.Median)))
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
			head, _ := split(rows[i].Name)
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
			_, bulk := split(p.row.Name)
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
			mpps, around := quantity(p.row.Mpps)
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

// pairedRow is a row of an A/B plot.
type pairedRow struct {
	label    string
	old, new *stat.Quantity
	// change says what new is against old, word the verdict; mark is a shape for it.
	change, word, mark string
}

// pairedFigure draws old and new of each row as two dots on one axis.
func pairedFigure(id, title, unit, caption string, rows []pairedRow) *figure {
	rows = shortLabels(rows[:min(len(rows), maxPlotted)])
	var s span
	s.add(0)
	var said []string
	for _, row := range rows {
		for _, q := range []*stat.Quantity{row.old, row.new} {
			if q != nil {
				s.add(q.Median, q.Low, q.High)
			}
		}
		said = append(said, fmt.Sprintf("%s: %s to %s %s, %s", row.label, side(row.old), side(row.new), unit, joinedBy(", ", row.change, row.word)))
	}
	return draws(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		a := axis{s.low - 0.02*(s.high-s.low), s.high + 0.02*(s.high-s.low), 190, d.width - 200}
		if s.low >= 0 {
			a.low = 0
		}
		step := 28.0
		if !d.wide() {
			a.left, a.right, step = 8, d.width-8, 58
		}
		top := 4.0
		y := top + step*float64(len(rows))
		a.draw(d, top, y, unit)
		for i, row := range rows {
			mid := top + step*float64(i) + step/2
			if d.wide() {
				d.fit("end", a.left-14, mid+4, a.left-18, row.label)
				d.text("mid", a.right+20, mid+4, row.mark)
				d.fit("", a.right+34, mid+4, d.width-a.right-34, row.change)
			} else {
				d.rect("paper", 0, mid-28, d.width, 30)
				d.fit("", 0, mid-15, d.width, row.label)
				d.fit("soft", 0, mid, d.width, joinedBy(" ", row.mark, joinedBy(", ", row.change, row.word)))
				mid += 15
			}
			if row.old != nil && row.new != nil {
				d.line("link", a.x(row.old.Median), mid-4, a.x(row.new.Median), mid+4)
			}
			d.interval(a, mid-4, row.old, "old", func(x, y float64) { d.circle("dot open", x, y, 4) })
			d.interval(a, mid+4, row.new, "", func(x, y float64) { d.circle("dot", x, y, 4) })
		}
		d.height = y + 20
	})
}

// shortLabels takes off the first part of the rows' names where all share it, and what
// they are held against: the table has the whole names.
func shortLabels(rows []pairedRow) []pairedRow {
	if len(rows) == 0 {
		return rows
	}
	out := slices.Clone(rows)
	first, _, _ := strings.Cut(rows[0].label, "/")
	shared := true
	for i := range out {
		out[i].label, _, _ = strings.Cut(out[i].label, " against ")
		_, rest, ok := strings.Cut(out[i].label, "/")
		shared = shared && ok && rest != "" && strings.HasPrefix(out[i].label, first+"/")
	}
	for i := range out {
		if shared {
			out[i].label = strings.TrimPrefix(out[i].label, first+"/")
		}
	}
	return out
}

// verdictMark is a shape for a verdict.
func verdictMark(verdict string) string {
	word, _, _ := strings.Cut(verdict, " (")
	switch word {
	case stat.Slower:
		return "▲"
	case stat.Faster:
		return "▼"
	case stat.NoDifference:
		return "="
	case stat.CannotTell:
		return "?"
	}
	return ""
}

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
		said = append(said, fmt.Sprintf("%s %s ns", row.Name, number(row.Price.Median)))
	}
	return draws(id, title, strings.Join(said, "; ")+".", "Price of one call, ns with it less ns without it, with 95 % intervals.", func(d *drawing) {
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
			value, around := quantity(row.Price)
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

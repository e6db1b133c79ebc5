package page

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// pair is a row of an A/B plot.
type pair struct {
	label    string
	old, new *stat.Quantity
	// change says how new differs from old, word the verdict; mark is a shape for it.
	change, word, mark string
}

// pairsFigure draws old and new of each row as two dots on one axis.
func pairsFigure(id, title, unit, caption string, rows []pair) *figure {
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
		said = append(said, fmt.Sprintf("%s: %s to %s %s, %s", row.label, cells.OrDash(row.old), cells.OrDash(row.new),
			unit, cells.Join(", ", row.change, row.word)))
	}
	return newFigure(id, title, strings.Join(said, "; ")+".", caption, func(d *drawing) {
		names, changes := pairWidths(rows, d.width)
		a := axis{s.low - 0.02*(s.high-s.low), s.high + 0.02*(s.high-s.low), names, d.width - changes}
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
				d.fit("soft", 0, mid, d.width, cells.Join(" ", row.mark, cells.Join(", ", row.change, row.word)))
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

// pairWidths are the widths of the names left of the axis and of the changes right of it:
// as wide as they are, as long as the axis keeps a third of the figure.
func pairWidths(rows []pair, width float64) (names, changes float64) {
	for _, row := range rows {
		names = max(names, 18+charSans*float64(utf8.RuneCountInString(row.label)))
		changes = max(changes, 40+charSans*float64(utf8.RuneCountInString(row.change)))
	}
	if over := names + changes - 2*width/3; over > 0 {
		part := names / (names + changes)
		names, changes = names-over*part, changes-over*(1-part)
	}
	return names, changes
}

// shortLabels takes off the first part of the rows' names where all share it, and what
// they are compared with: the table has the whole names.
func shortLabels(rows []pair) []pair {
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
	switch verdict {
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

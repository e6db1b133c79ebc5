package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// History writes trends for people: for each group of records what they have in
// common, then each row's trend as a line of bars, the first, last and middle of its
// runs, and the changes of level.
func History(w io.Writer, opts Options, h *record.History) error {
	p := newPrinter(opts)
	p.wrap("", conclusion.OfHistory(h).Title+".")
	for i := range h.Groups {
		fmt.Fprintln(&p.buf)
		p.historyGroup(h, &h.Groups[i])
	}
	if len(h.Left) > 0 {
		fmt.Fprintln(&p.buf)
		const most = 8
		for _, left := range h.Left[:min(len(h.Left), most)] {
			p.wrap("left out: ", left.File+": "+left.Why)
		}
		if n := len(h.Left) - most; n > 0 {
			p.wrap("left out: ", fmt.Sprintf("and %d more, which --json lists", n))
		}
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", conclusion.HistoryBasis)
	return p.flush(w)
}

// historyGroup is one group's title and a line for each of its rows.
func (p *printer) historyGroup(h *record.History, g *record.HistoryGroup) {
	p.wrap(g.Name+"  ", cells.GroupTitle(g))
	p.wrap("   ", cells.GroupSpan(g))
	table := [][]string{{"ns", "trend", "first", "last", "level", ""}}
	beneath := make(map[int][]string)
	for i := range h.Rows {
		row := &h.Rows[i]
		if row.Group != g.Name || len(row.Points) == 0 {
			continue
		}
		name := cells.Clean(row.Name)
		if utf8.RuneCountInString(name) > p.width/3 {
			table = append(table, []string{"  " + name})
			name = ""
		}
		n := len(table)
		level, around := cells.Quantity(row.Level)
		first, last := row.Points[0].Ns.Median, row.Points[len(row.Points)-1].Ns.Median
		table = append(table, []string{"  " + name, trend(row, p.width/4), stat.Number(first), stat.Number(last), level,
			strings.TrimSuffix(around, "[?]")})
		beneath[n] = cells.HistoryLines(h, row)
	}
	for i, line := range columns(table, []bool{true, true, false, false, false, true}, "") {
		p.line(line)
		for _, text := range beneath[i] {
			p.wrap("    ", text)
		}
	}
}

// trend is a row as a line of bars, from the lowest to the highest, at most most columns
// wide. A bar is the median of its share of the runs.
func trend(row *record.HistoryRow, most int) string {
	n := len(row.Points)
	if n == 1 {
		return "-" // there is no trend yet
	}
	columns := min(n, max(most, 8))
	values := make([]float64, columns)
	for i := range values {
		var xs []float64
		for _, p := range row.Points[i*n/columns : (i+1)*n/columns] {
			xs = append(xs, p.Ns.Median)
		}
		values[i] = stat.Median(xs)
	}
	low, high := slices.Min(values), slices.Max(values)
	var b strings.Builder
	for _, x := range values {
		bar := 0
		if high > low {
			bar = int(math.Round(7 * (x - low) / (high - low)))
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[bar])
	}
	return b.String()
}

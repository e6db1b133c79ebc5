package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// History writes trends for people: for each group of records what they have in
// common, then each row's trend as a line of bars, the first, last and middle of its
// runs, and the changes of level.
func History(w io.Writer, opts Options, h *record.History) error {
	p := newPage(opts)
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
	p.wrap("", historyMethod)
	return p.flush(w)
}

// historyMethod says what a change is.
var historyMethod = fmt.Sprintf("ns: medians of runs; level: the median of the runs [95 %% interval]. A ▲ or ▼ is a run from which on a row has another level: found by self-normalized CUSUM, at 5 %% for all rows of a group together, from %d runs on. Levels of different groups are held against each other without such a test: what else changed is not known.", stat.MinChanges)

// groupTitle names a group by what its records have in common.
func groupTitle(g *record.HistoryGroup) string {
	f := g.Host
	return joinedBy(", ", "Linux "+orUnseen(f.Kernel), f.Compiler, thunkWords(f.IndirectThunk, f.CallSites), f.ReturnThunk, f.CPU)
}

func orUnseen(s string) string {
	if s == "" {
		return "not seen"
	}
	return s
}

func thunkWords(thunk, sites string) string {
	if thunk == "" {
		return ""
	}
	return joinedBy(" ", "indirect calls:", thunk, sites)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func groupSpan(g *record.HistoryGroup) string {
	n := many(len(g.Records), "record")
	first, last := g.Records[0].Time, g.Records[len(g.Records)-1].Time
	if day(first) == day(last) {
		return n + ", " + day(first)
	}
	return n + ", " + day(first) + " to " + day(last)
}

func (p *page) historyGroup(h *record.History, g *record.HistoryGroup) {
	p.wrap(g.Name+"  ", groupTitle(g))
	p.wrap("   ", groupSpan(g))
	table := [][]string{{"ns", "trend", "first", "last", "level", ""}}
	beneath := make(map[int][]string)
	for i := range h.Rows {
		row := &h.Rows[i]
		if row.Group != g.Name || len(row.Points) == 0 {
			continue
		}
		name := clean(row.Name)
		if utf8.RuneCountInString(name) > p.width/3 {
			table = append(table, []string{"  " + name})
			name = ""
		}
		n := len(table)
		level, around := quantity(row.Level)
		first, last := row.Points[0].Ns.Median, row.Points[len(row.Points)-1].Ns.Median
		table = append(table, []string{"  " + name, trend(row, p.width/4), number(first), number(last), level, strings.TrimSuffix(around, "[?]")})
		beneath[n] = historyLines(h, row)
	}
	for i, line := range columns(table, []bool{true, true, false, false, false, true}, "") {
		p.line(line)
		for _, text := range beneath[i] {
			p.wrap("    ", text)
		}
	}
}

// historyLines say what changed in a row, a line each.
func historyLines(h *record.History, row *record.HistoryRow) []string {
	var out []string
	for _, c := range row.Changes {
		o := h.Origin(row, c.Record)
		out = append(out, fmt.Sprintf("%s %s from %s on (%s), p %s", changeMark(c.Shift), shiftText(c.Shift), o.Time.UTC().Format("2006-01-02 15:04"), clean(o.File), strconv.FormatFloat(c.P, 'g', 2, 64)))
	}
	if row.Drifts {
		said := "! runs resemble those before them: this machine drifts"
		if len(row.Changes) > 0 {
			said += ", and a change may be drift"
		}
		out = append(out, said)
	}
	if d := row.Against; d != nil && !math.IsNaN(d.Median) {
		out = append(out, fmt.Sprintf("against group %s: %s", row.AgainstGroup, shiftText(*d)))
	}
	return out
}

func changeMark(d stat.Difference) string {
	if d.Median < 0 {
		return "▼"
	}
	return "▲"
}

func shiftText(d stat.Difference) string {
	unit := "%"
	if d.Unit != "percent" {
		unit = "ns"
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s %s", signedNumber(d.Median), unit, interval(d.Low, d.High, signedNumber)), " [?]")
}

// trend is a row as a line of bars of at most so many columns, each the median of its
// share of the runs, from the lowest to the highest.
func trend(row *record.HistoryRow, most int) string {
	n := len(row.Points)
	columns := min(n, max(most, 8))
	values := make([]float64, columns)
	for i := range values {
		var xs []float64
		for _, p := range row.Points[i*n/columns : (i+1)*n/columns] {
			xs = append(xs, p.Ns.Median)
		}
		values[i] = stat.Median(xs)
	}
	var s span
	s.add(values...)
	var b strings.Builder
	for _, x := range values {
		if s.high > s.low {
			b.WriteRune([]rune("▁▂▃▄▅▆▇█")[int(math.Round(7*(x-s.low)/(s.high-s.low)))])
		} else {
			b.WriteRune('▁')
		}
	}
	return b.String()
}

// Most rows of a page that have a picture of their trend, and dots that one has.
const (
	maxTrends = 60
	maxDots   = 400
)

// history are the trends, a block for each group.
func (v *viewer) history() []block {
	h := v.d.History
	if h == nil {
		return nil
	}
	said := conclusion.OfHistory(h).Text
	if len(v.d.Records) > 0 { // else it is the page's title
		said = conclusion.OfHistory(h).Title + ". " + said
	}
	out := []block{{Text: []string{said, historyMethod}}}
	drawn := 0
	for i := range h.Groups {
		g := &h.Groups[i]
		b := block{Heading: g.Name + ". " + clean(groupTitle(g)), Text: []string{groupSpan(g) + "."}}
		t := &table{Caption: "Rows of group " + g.Name + ", ns; medians of runs", Columns: []column{
			{"row", ""}, {"runs", "n"}, {"first", "n"}, {"last", "n"}, {"level", "n"}, {"95 %", "i"}, {"changes", "t"},
		}}
		var plotted []*record.HistoryRow
		for j := range h.Rows {
			row := &h.Rows[j]
			if row.Group != g.Name || len(row.Points) == 0 {
				continue
			}
			level, around := quantity(row.Level)
			t.add(row.Name, strconv.Itoa(len(row.Points)), number(row.Points[0].Ns.Median), number(row.Points[len(row.Points)-1].Ns.Median), level, around,
				strings.Join(historyLines(h, row), "; ")).Differs = len(row.Changes) > 0
			if len(row.Points) > 1 && drawn < maxTrends {
				plotted = append(plotted, row)
				drawn++
			}
		}
		b.Tables = []*table{t}
		if v.draw && len(plotted) > 0 {
			b.Figure = v.trendFigure(h, g, plotted)
			t.Folded = true
		}
		if len(g.Differs) > 0 {
			tables := causesTable(g.Differs)
			tables[0].Caption = "What differs from the group before"
			tables[0].Folded = len(g.Differs) > 4
			b.Tables = append(b.Tables, tables...)
		}
		out = append(out, b)
	}
	if len(h.Left) > 0 {
		b := block{NotesTitle: many(len(h.Left), "file") + " of the folder left out"}
		for _, left := range h.Left[:min(len(h.Left), maxTable)] {
			b.Notes = append(b.Notes, note{clean(left.File), clean(left.Why)})
		}
		out = append(out, b)
	}
	return out
}

// trendFigure draws rows over the runs of a group: dots with intervals, levels as
// lines, changes as triangles.
func (v *viewer) trendFigure(h *record.History, g *record.HistoryGroup, rows []*record.HistoryRow) *figure {
	var said []string
	for _, row := range rows {
		s := fmt.Sprintf("%s: %d runs, level %s ns", row.Name, len(row.Points), number(row.Level.Median))
		for _, c := range row.Changes {
			s += fmt.Sprintf(", %s from %s on", shiftText(c.Shift), day(h.Origin(row, c.Record).Time))
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
				d.fit("soft end", left-14, y+height/2+16, left-18, "level "+number(row.Level.Median)+" ns")
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
			d.text("soft", left, y+12, day(g.Records[0].Time))
			d.text("soft end", d.width-58, y+12, day(g.Records[last].Time))
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
			d.text("marktext mid", px, top+10, changeMark(c.Shift))
			if px < (x.left+x.right)/2 {
				d.text("soft", px+8, top+11, shiftShort(c.Shift))
			} else {
				d.text("soft end", px-8, top+11, shiftShort(c.Shift))
			}
		}
		from = to
	}
	d.text("soft", x.right+8, top+10, number(s.high))
	d.text("soft", x.right+8, bottom-1, number(s.low))
}

func shiftShort(d stat.Difference) string {
	unit := "%"
	if d.Unit != "percent" {
		unit = "ns"
	}
	return signedNumber(d.Median) + " " + unit
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Xray writes the indirect branches of the redirect path for people: by stage,
// what each calls, how often it runs and how it is made, then totals. Those that cannot
// run in this setup stand apart and are not in the totals. Rare ones,
// those of errors and slow paths, are left out unless rare is set or a guest of lab
// executed them. path is what was looked at.
func Xray(w io.Writer, opts Options, doc *record.Document[record.SiteRow], path string, rare bool) error {
	p := newPrinter(opts)
	p.wrap("", path)
	fmt.Fprintln(&p.buf)
	if len(doc.Rows) > 0 {
		p.wrap("", xrayLegend(doc))
		fmt.Fprintln(&p.buf)
	}
	hidden := 0
	var may, cannot []record.SiteRow
	for _, row := range doc.Rows {
		switch {
		case row.Aside() && !rare:
			hidden++
		case row.CannotRun != "":
			cannot = append(cannot, row)
		default:
			may = append(may, row)
		}
	}
	p.siteTable(may, doc.Counts != nil)
	if len(cannot) > 0 {
		fmt.Fprintln(&p.buf)
		p.wrap("", fmt.Sprintf("These are on the path in code and cannot run here: %s.", cells.CannotRun(cannot)))
		p.siteTable(cannot, doc.Counts != nil)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", totals(doc.Rows, hidden))
	if text := cells.Checks(doc.Rows); text != "" {
		p.wrap("", text)
	}
	if doc.Counts != nil {
		p.siteCounts(doc.Counts)
	}
	if len(doc.Partial) > 0 {
		const most = 8
		var names []string
		for _, f := range doc.Partial[:min(most, len(doc.Partial))] {
			names = append(names, f.Name)
		}
		if more := len(doc.Partial) - most; more > 0 {
			names = append(names, fmt.Sprintf("and %d more", more))
		}
		p.wrap("", fmt.Sprintf("Not followed to their end, so that more may be called from them (--json lists all "+
			"and says why): %s.", strings.Join(names, ", ")))
	}
	notes := newFootnotes(doc.Warnings)
	notes.write(p)
	return p.flush(w)
}

// xrayLegend says what the columns of the tables are.
func xrayLegend(doc *record.Document[record.SiteRow]) string {
	text := "per: what runs it, as far as code tells: a packet, a bulk of 16 frames, a poll; with ? it may go without."
	if doc.Counts != nil {
		text += " counted: how often a packet executed it in a guest of lab; -: it was not counted."
	}
	return text
}

// siteTable lists branches by stage, with their counts where there are some.
func (p *printer) siteTable(rows []record.SiteRow, counted bool) {
	head, left := []string{"", "per"}, []bool{true, true}
	if counted {
		head, left = append(head, "counted"), append(left, false)
	}
	table := [][]string{append(head, "made", "calls")}
	left = append(left, true, true)
	stage := ""
	for _, row := range rows {
		if row.Stage != stage {
			stage = row.Stage
			table = append(table, []string{cells.Clean(stage)})
		}
		per := cells.Clean(row.Per)
		if !row.Always {
			per += "?"
		}
		line := []string{"  " + cells.Site(row), per}
		if counted {
			line = append(line, cells.SiteCount(row))
		}
		table = append(table, append(line, cells.Made(row), cells.Target(row)))
	}
	for i, line := range columns(table, left, "") {
		if len(table[i]) == 1 || i == 0 {
			p.line(line)
			continue
		}
		p.site(table[i], line)
	}
}

// siteCounts says what a guest counted in all, and at which branches that the path does
// not have.
func (p *printer) siteCounts(c *record.SiteCounts) {
	p.wrap("", cells.SiteCounts(c))
	if len(c.Others) == 0 {
		return
	}
	p.wrap("", "Of them at branches that are not on this path:")
	var table [][]string
	for _, s := range c.Others {
		table = append(table, []string{"  " + stat.Exact(s.PerPacket), fmt.Sprintf("%s+%#x", cells.Clean(s.Function), s.Offset),
			cells.Clean(s.Target)})
	}
	for _, line := range columns(table, []bool{false, true, true}, "") {
		p.line(line)
	}
}

// site writes a line of the table, what is called beneath the rest when it does
// not fit beside it.
func (p *printer) site(row []string, line string) {
	what := row[len(row)-1]
	if len([]rune(line)) <= p.width {
		p.line(line)
		return
	}
	p.line(strings.TrimSuffix(line, what))
	p.wrap("    → ", what)
}

// totals counts branches that may run by how often they do.
func totals(rows []record.SiteRow, hidden int) string {
	always, maybe := make(map[string]int), make(map[string]int)
	for _, row := range rows {
		switch {
		case row.CannotRun != "":
		case row.Always:
			always[row.Per]++
		default:
			maybe[row.Per]++
		}
	}
	var parts []string
	for _, per := range []string{"packet", "bulk", "poll", "unknown"} {
		n, m := always[per], maybe[per]
		if n+m == 0 {
			continue
		}
		name := "per " + per
		if per == "unknown" {
			name = "how often is not known"
		}
		switch {
		case m == 0:
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		case n == 0:
			parts = append(parts, fmt.Sprintf("%s %d that may run", name, m))
		default:
			parts = append(parts, fmt.Sprintf("%s %d and %d that may run", name, n, m))
		}
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	text := "Indirect branches: " + strings.Join(parts, "; ") + "."
	if hidden > 0 {
		text += fmt.Sprintf(" Rare, on errors and slow paths: %d, which --rare shows.", hidden)
	}
	return text
}

// Branches writes the calls, the returns and the jumps out of a function; jumps within it are
// counted.
func Branches(w io.Writer, opts Options, c *record.Code) error {
	p := newPrinter(opts)
	var table [][]string
	indirect, within := 0, 0
	for _, b := range c.Branches {
		if b.Indirect {
			indirect++
		}
		if b.Within && b.Verb == "jmp" {
			within++
			continue
		}
		table = append(table, []string{fmt.Sprintf("  %s+%#x", cells.Clean(c.Function), b.Offset), b.Verb, cells.Clean(b.Class),
			cells.Clean(cmp.Or(b.To, b.Register)), cells.Clean(b.Check), cells.Clean(b.Pending)})
	}
	for _, line := range columns(table, []bool{true, true, true, true, true, true}, "") {
		p.line(line)
	}
	fmt.Fprintln(&p.buf)
	text := fmt.Sprintf("%s: %d branches, %d of them indirect.", c.Function, len(c.Branches), indirect)
	if within > 0 {
		text += fmt.Sprintf(" Jumps within the function: %d, which --json lists too.", within)
	}
	p.wrap("", text)
	return p.flush(w)
}

// Totals writes how many branches of each class a kernel's text has.
func Totals(w io.Writer, opts Options, c *record.Code) error {
	p := newPrinter(opts)
	where := "as it is in memory"
	if !c.Totals.Live {
		where = "as it is in the file, before the kernel patches it"
	}
	p.wrap("", fmt.Sprintf("%d functions in %.1f MB of text, %s; modules and BPF programs are not in it.",
		c.Totals.Functions, float64(c.Totals.Size)/1e6, where))
	fmt.Fprintln(&p.buf)
	table := [][]string{{"branches", ""}}
	for _, class := range slices.Sorted(maps.Keys(c.Totals.Classes)) {
		table = append(table, []string{"  " + cells.Clean(class), strconv.Itoa(c.Totals.Classes[class])})
	}
	for _, line := range columns(table, []bool{true, false}, " ") {
		p.line(line)
	}
	return p.flush(w)
}

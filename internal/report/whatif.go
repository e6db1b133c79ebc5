package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// WhatIf writes what to do first, then what changes to drivers would save, by change: ns, the calls that go, and the indirect calls
// that go with them, with a column for each DMA setup and the drivers below. Drivers of which all of that is alike are together; those for
// whom most is sure come first. Then which changes have no row, what the calls of the DMA API do, and the prices.
func WhatIf(w io.Writer, opts Options, doc *record.WhatIf) error {
	p := newPrinter(opts)
	p.whatIfFirst(doc)
	p.wrap("", "An estimate: what changes to NIC drivers would save of a redirected packet. It is counts times prices of the calls "+
		"alone. Nothing of it was measured on a NIC.")
	fmt.Fprintln(&p.buf)
	groups, dmas := whatIfGroups(doc.Rows)
	notes := newFootnotes(whatIfNotes(groups, dmas))
	heads, left := []string{"change", "from", ""}, []bool{true, true, true}
	for _, dma := range dmas {
		heads, left = append(heads, cells.Clean(strings.TrimPrefix(dma, "iommu-"))), append(left, false)
	}
	t := newTextTable(append(left, true), "", append(heads, "")...)
	for _, g := range groups {
		t.add(slices.Concat([]string{cells.Clean(g.change), cells.Clean(g.source), "ns"}, g.ns, []string{notes.mark(g.key)})...)
		t.add(slices.Concat([]string{"", "", "calls"}, g.calls, []string{""})...)
		t.add(slices.Concat([]string{"", "", "indirect"}, g.indirect, []string{""})...)
		if g.counted {
			t.add(slices.Concat([]string{"", "", "insns"}, g.instructions, []string{""})...)
		}
		t.below("    ", strings.Join(g.drivers, ", ")+g.of)
	}
	if len(groups) > 0 {
		p.table(t)
		fmt.Fprintln(&p.buf)
	}
	p.whatIfWithout(doc)
	p.whatIfCalls(doc)
	p.whatIfPrices(doc)
	notes.write(p)
	newFootnotes(doc.Warnings).write(p)
	return p.flush(w)
}

// whatIfGroup are drivers that a change saves the same.
type whatIfGroup struct {
	key, change, source, of string
	drivers                 []string
	// ns, calls, indirect calls and instructions by setup.
	ns, calls, indirect, instructions []string
	counted                           bool // the last, in a setup at least
	rows                              map[string]*record.WhatIfRow
}

// whatIfGroups puts drivers together of which all figures of a change are alike, in the order of rows, and returns the
// setups that there are.
func whatIfGroups(rows []record.WhatIfRow) (groups []*whatIfGroup, dmas []string) {
	dmas = whatIfSetups(rows)
	type line struct{ driver, change, release string }
	var order []line
	lines := make(map[line]map[string]*record.WhatIfRow)
	releases := make(map[string]bool)
	for i := range rows {
		r := &rows[i]
		l := line{r.Labels["driver"], r.Labels["change"], r.Release}
		if lines[l] == nil {
			lines[l] = make(map[string]*record.WhatIfRow)
			order = append(order, l)
		}
		lines[l][r.Labels["dma"]] = r
		releases[r.Release] = true
	}
	byKey := make(map[string]*whatIfGroup)
	for _, l := range order {
		g := &whatIfGroup{change: l.change, rows: lines[l]}
		for _, dma := range dmas {
			ns, calls, indirect, instructions := "-", "-", "-", "-"
			if r := g.rows[dma]; r != nil {
				ns, calls, indirect, instructions = "?", between(r.Saved.Direct), "?", "?"
				if r.Saving != nil {
					ns = between(record.Range{Low: r.Saving.Low, High: r.Saving.High})
				}
				if r.Saved.Indirect != nil {
					indirect = between(*r.Saved.Indirect)
				}
				if r.Saved.Instructions != nil {
					instructions, g.counted = between(*r.Saved.Instructions), true
				}
				if g.source == "" {
					g.source = r.Source
				} else if g.source != r.Source {
					g.source = "both"
				}
			}
			g.ns, g.calls = append(g.ns, ns), append(g.calls, calls)
			g.indirect, g.instructions = append(g.indirect, indirect), append(g.instructions, instructions)
		}
		if len(releases) > 1 {
			g.of = ", of Linux " + cells.Clean(l.release)
		}
		g.key = strings.Join(slices.Concat([]string{l.change, g.source, g.of}, g.ns, g.calls, g.indirect, g.instructions), " ")
		if byKey[g.key] == nil {
			byKey[g.key] = g
			groups = append(groups, g)
		}
		byKey[g.key].drivers = append(byKey[g.key].drivers, cells.Clean(l.driver))
	}
	return groups, dmas
}

// whatIfSetups are the DMA setups of rows, the cheapest first.
func whatIfSetups(rows []record.WhatIfRow) (dmas []string) {
	for _, dma := range record.DMASetups() {
		if slices.ContainsFunc(rows, func(r record.WhatIfRow) bool { return r.Labels["dma"] == dma }) {
			dmas = append(dmas, dma)
		}
	}
	return dmas
}

// whatIfNotes are why groups have no number.
func whatIfNotes(groups []*whatIfGroup, dmas []string) (notes []record.Warning) {
	for _, g := range groups {
		for _, dma := range dmas {
			if row := g.rows[dma]; row != nil && row.Refused != "" {
				notes = append(notes, record.Warning{Row: g.key, Text: row.Refused})
			}
		}
	}
	return notes
}

// maxFirst is how many sentences say what to do first: more are no answer.
const maxFirst = 4

// whatIfFirst writes what to do first: a sentence for drivers of which it is alike, those first for whom most is sure.
func (p *printer) whatIfFirst(doc *record.WhatIf) {
	type driver struct{ name, release string }
	type sentence struct{ text, of string }
	var drivers []driver
	setups := make(map[driver][]record.WhatIfFirst)
	for _, f := range doc.First {
		d := driver{f.Driver, f.Release}
		if setups[d] == nil {
			drivers = append(drivers, d)
		}
		setups[d] = append(setups[d], f)
	}
	var texts []sentence
	names := make(map[sentence][]string)
	for _, d := range drivers {
		s := sentence{firstText(setups[d]), ofLinux(doc, d.release)}
		if names[s] == nil {
			texts = append(texts, s)
		}
		names[s] = append(names[s], cells.Clean(d.name))
	}
	others := 0
	for i, s := range texts {
		if len(texts) > maxFirst && i >= maxFirst-1 {
			others += len(names[s])
			continue
		}
		p.wrap("", "For "+strings.Join(names[s], ", ")+s.of+": "+s.text)
	}
	if others > 0 {
		p.wrap("", fmt.Sprintf("--driver NAME says it of each of %d others.", others))
	}
	if len(texts) > 0 {
		fmt.Fprintln(&p.buf)
	}
}

// firstText is what to do first with a driver in setups, that which saves most first.
func firstText(setups []record.WhatIfFirst) string {
	setups = slices.Clone(setups)
	slices.SortStableFunc(setups, func(a, b record.WhatIfFirst) int { return cmp.Compare(leastSaved(b), leastSaved(a)) })
	var order []string // of changes, or of why there is none
	with, alike := make(map[string][]string), make(map[string][]string)
	const first = "first "
	unit := " ns of a packet"
	for _, f := range setups {
		what, saving := f.Why, ""
		if f.Saving != nil {
			what = first + f.Change
			saving = between(record.Range{Low: f.Saving.Low, High: f.Saving.High}) + unit
			unit = ""
		}
		if with[what] == nil {
			order = append(order, what)
		}
		with[what] = append(with[what], strings.TrimSpace(saving+" with "+f.DMA))
		for _, change := range f.Alike {
			if !slices.Contains(alike[what], change) {
				alike[what] = append(alike[what], change)
			}
		}
	}
	for i, what := range order {
		order[i] = what + ", " + strings.Join(with[what], ", ")
		if !strings.HasPrefix(what, first) {
			order[i] = strings.Join(with[what], ", ") + ": " + what
		}
		if len(alike[what]) > 0 {
			order[i] += " (" + strings.Join(alike[what], ", ") + " may save as much)"
		}
	}
	return cells.Clean(strings.Join(order, "; ")) + "."
}

// leastSaved is what a change saves for sure, in ns.
func leastSaved(f record.WhatIfFirst) float64 {
	if f.Saving == nil {
		return math.Inf(-1)
	}
	return f.Saving.Low
}

// ofLinux names the kernel of drivers where a record has several.
func ofLinux(doc *record.WhatIf, release string) string {
	if slices.ContainsFunc(doc.First, func(f record.WhatIfFirst) bool { return f.Release != release }) {
		return ", of Linux " + cells.Clean(release)
	}
	return ""
}

// whatIfWithout writes which changes have no row, and why: by change and reason, with the drivers, and with the setups where it is
// not so in all.
func (p *printer) whatIfWithout(doc *record.WhatIf) {
	type reason struct{ change, why, release string }
	type place struct {
		reason
		driver string
	}
	var reasons []reason
	drivers, setups := make(map[reason][]string), make(map[place][]string)
	for _, w := range doc.Without {
		at := place{reason{w.Change, w.Why, w.Release}, w.Driver}
		if drivers[at.reason] == nil {
			reasons = append(reasons, at.reason)
		}
		if setups[at] == nil {
			drivers[at.reason] = append(drivers[at.reason], w.Driver)
		}
		setups[at] = append(setups[at], w.DMA)
	}
	if len(reasons) == 0 {
		return
	}
	inAll, inRelease := make(map[string]bool), make(map[string]map[string]bool)
	for _, f := range doc.First {
		inAll[f.DMA] = true
		if inRelease[f.Release] == nil {
			inRelease[f.Release] = make(map[string]bool)
		}
		inRelease[f.Release][f.Driver] = true
	}
	slices.SortStableFunc(reasons, func(a, b reason) int { return strings.Compare(a.change, b.change) })
	p.wrap("", "Without a row, as there is nothing to save:")
	for _, r := range reasons {
		of := withSetups(drivers[r], len(inRelease[r.release]), len(inAll), func(name string) []string { return setups[place{r, name}] })
		p.wrap("  ", cells.Clean(r.change+": "+r.why+": "+of)+ofLinux(doc, r.release))
	}
	fmt.Fprintln(&p.buf)
}

// withSetups are drivers, each with its setups where these are not all, or all with what is alike of them.
func withSetups(drivers []string, all, allSetups int, setups func(name string) []string) string {
	in := func(name string) string {
		if s := setups(name); len(s) < allSetups {
			return " (" + strings.Join(s, ", ") + ")"
		}
		return ""
	}
	if alike := in(drivers[0]); !slices.ContainsFunc(drivers, func(name string) bool { return in(name) != alike }) {
		if len(drivers) == all && all > 2 {
			return "all drivers" + alike
		}
		return strings.Join(drivers, ", ") + alike
	}
	var out []string
	for _, name := range drivers {
		out = append(out, name+in(name))
	}
	return strings.Join(out, ", ")
}

// whatIfCalls writes what calls of the DMA API do, and where that is from.
func (p *printer) whatIfCalls(doc *record.WhatIf) {
	if len(doc.Calls) == 0 {
		return
	}
	t := newTextTable([]bool{true, true, true, false, false, false, true}, "",
		"a call in", "setup", "is", "indirect", "a page", "instructions", "from")
	for _, c := range doc.Calls {
		instructions, from := "-", record.FromCounts
		if len(c.Rows) == 0 {
			from = record.FromCode
		}
		if c.Instructions != nil {
			instructions = between(*c.Instructions)
		}
		t.add("Linux "+cells.Clean(c.Series), cells.Clean(c.DMA), cells.Clean(c.Call),
			between(c.Indirect), between(c.PerPage), instructions, from)
	}
	p.table(t)
	fmt.Fprintln(&p.buf)
}

// whatIfPrices writes the prices, what the figures mean, and what is not in them.
func (p *printer) whatIfPrices(doc *record.WhatIf) {
	price := func(what string, ns *stat.Quantity) {
		if ns == nil {
			p.wrap("", "The price of "+what+" was not measured.")
			return
		}
		p.wrap("", "The price of "+what+" is "+ns.Text(stat.Number)+", by "+cells.Clean(doc.PriceOf)+".")
	}
	price("an indirect call", doc.Call)
	price("a direct call with its return", doc.DirectCall)
	var besides []string
	for i := range doc.Rows {
		besides = append(besides, doc.Rows[i].Besides...)
	}
	slices.Sort(besides)
	if besides = slices.Compact(besides); len(besides) > 0 {
		p.wrap("", "Not measured, and in no figure: "+cells.Clean(strings.Join(besides, "; "))+".")
	}
	p.wrap("", fmt.Sprintf("Figures go from the least to the most that counts and prices allow; ? was not measured. ns: calls and indirect "+
		"ones at their prices. calls: of the DMA API, or to return a frame, that go; indirect: those that they make, and that go with "+
		"them; insns: instructions of maps and syncs, without unmaps, as a window of the guest has of each call. counted: in a guest; code: "+
		"places in the driver's code, which "+
		"a packet may pass or not. Bulks are full, of %d. "+
		"keep-tx-mapped and gather-tx-maps exclude each other.", doc.Bulk))
}

// between is a range: one number where its ends are written alike.
func between(r record.Range) string {
	low, high := short(r.Low), short(r.High)
	if low == high {
		return low
	}
	return low + ".." + high
}

// short is a number with two or three digits.
func short(x float64) string {
	switch a := math.Abs(x); {
	case a < 0.005:
		return "0"
	case a < 9.95:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", x), "0"), ".")
	}
	return fmt.Sprintf("%.0f", x)
}

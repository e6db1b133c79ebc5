package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ProgWatch writes a record of prog watch for people: packets a second by verdict, ns a packet,
// what was lost, what watching cost, and the functions that took most.
func ProgWatch(w io.Writer, opts Options, doc *record.ProgWatch, top int) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	p.wrap("", cells.Clean(conclusion.WatchHead(doc)))
	fmt.Fprintln(&p.buf)
	var names []string
	for _, row := range doc.Rows {
		names = append(names, row.Name)
	}
	notes := newFootnotes(inOrder(doc.Warnings, names))
	t := newTextTable([]bool{true, false, true, true, true}, "", "", "mean", "", "", "")
	var unknown []string
	for i := range doc.Rows {
		row := &doc.Rows[i]
		if noneCame(doc, row) {
			t.add(cells.Clean(row.Name), "-", "", cells.WatchUnit(doc, row), "")
			continue
		}
		if row.Refused != "" {
			unknown = append(unknown, fmt.Sprintf("%s: %s", cells.Clean(row.Name), cells.Clean(row.Refused)))
			continue
		}
		if strings.HasPrefix(row.Name, "lost/") && row.Value.Median == 0 {
			continue
		}
		mean, around := cells.Quantity(row.Value)
		t.add(cells.Clean(row.Name), mean, around, cells.WatchUnit(doc, row), notes.mark(row.Name))
	}
	p.table(t)
	for _, text := range unknown {
		p.wrap("unknown  ", text)
	}
	notes.write(p)
	fmt.Fprintln(&p.buf)
	p.watchFunctions(doc, top)
	p.wrap("", watchBasis(doc))
	return p.flush(w)
}

// noneCame tells whether a row is of packets, of which none came.
func noneCame(doc *record.ProgWatch, row *record.WatchRow) bool {
	if doc.Sampling.Packets > 0 {
		return false
	}
	if row.Refused != "" {
		return row.Name == "program" || row.Name == "path" && doc.Unfiltered == ""
	}
	return row.Name == "packets" || row.Name == "core" || strings.HasPrefix(row.Name, "verdict/")
}

// watchFunctions are the functions that took most, by the innermost of call chains.
func (p *printer) watchFunctions(doc *record.ProgWatch, top int) {
	type function struct {
		name, stage string
		ns          float64
	}
	index := make(map[string]int)
	var all []function
	for _, s := range doc.Stacks {
		name := s.Frames[len(s.Frames)-1]
		i, ok := index[name]
		if !ok {
			i = len(all)
			index[name] = i
			all = append(all, function{name: name, stage: s.Stage})
		}
		all[i].ns += s.Ns
	}
	slices.SortStableFunc(all, func(a, b function) int { return cmp.Compare(b.ns, a.ns) })
	if all = all[:min(len(all), top)]; len(all) == 0 {
		return
	}
	table := [][]string{{"function", "stage", "ns/packet"}}
	for _, f := range all {
		table = append(table, []string{cells.ShortName(cells.Clean(f.name)), cells.Clean(f.stage), cells.Few(f.ns)})
	}
	for _, line := range columns(table, []bool{true, true, false}, "  ") {
		p.line(line)
	}
	fmt.Fprintln(&p.buf)
}

// watchBasis says what the numbers are.
func watchBasis(doc *record.ProgWatch) string {
	s := doc.Sampling
	text := fmt.Sprintf("%s, %d Hz on %s. Means [95 %% intervals over %s].",
		cells.Plural(s.Samples, "sample"), s.Rate, cells.Plural(len(s.CPUs), "CPU"), stretches(doc))
	if doc.Unfiltered == "" {
		text += " path: the device’s polls, the program in them."
	}
	if c := doc.SampleNs; c != nil {
		text += fmt.Sprintf(" cost: of the sampled CPUs’ time, what interrupts took (%.1f µs each and %.0f ns a frame of its call "+
			"chain, measured here before) and this process.", c.Interrupt/1000, c.Frame)
	}
	return text
}

// stretches says what intervals are over.
func stretches(doc *record.ProgWatch) string {
	if doc.Each <= 1 {
		return "seconds"
	}
	return strings.TrimSpace(fmt.Sprintf("stretches of %d s", doc.Each))
}

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Bench writes a record of bench for people: for each row Mpps, ns per packet
// and the price of the redirect hop with their 95 % intervals, and frames per
// ndo_xdp_xmit call. Rows of one ladder stand under one heading. A row that
// was refused says why. Warnings are footnotes.
func Bench(w io.Writer, opts Options, doc *record.Document[record.BenchRow]) error {
	p := newPage(opts)
	p.bench(doc)
	return p.flush(w)
}

func (p *page) bench(doc *record.Document[record.BenchRow]) {
	if doc.Incomplete {
		p.wrap("", "INCOMPLETE: the run was stopped before its end.")
		fmt.Fprintln(&p.buf)
	}
	notes := newFootnotes(warningsOf(doc.Warnings, func(row string) bool {
		return !slices.ContainsFunc(doc.Prices, func(price record.TaxRow) bool { return price.Name == row })
	}))
	rows := [][]string{{"bulk", "", "Mpps", "", "ns/packet", "", "hop ns", "frames/xmit", ""}}
	refused := make(map[int]string)
	last := ""
	for i := range doc.Rows {
		row := &doc.Rows[i]
		heading, bulk := split(row.Name)
		if heading != last {
			rows = append(rows, []string{heading})
			last = heading
		}
		if bulk == "" {
			bulk = "-"
		}
		if row.Refused != "" {
			refused[len(rows)] = row.Refused
			rows = append(rows, []string{bulk, "-", "", "-", "", "-", "", "-", notes.mark(row.Name)})
			continue
		}
		mpps, mppsAround := quantity(row.Mpps)
		ns, nsAround := quantity(row.Ns)
		hop, hopAround := quantity(row.Hop)
		if row.Hop == nil {
			hop = "-"
		}
		frames := "-"
		if row.FramesPerXmit != nil {
			frames = number(row.FramesPerXmit.Median)
		}
		rows = append(rows, []string{bulk, mpps, mppsAround, ns, nsAround, hop, hopAround, frames, notes.mark(row.Name)})
	}
	for i, line := range columns(rows, []bool{false, false, true, false, true, false, true, false, true}, " ") {
		switch {
		case len(rows[i]) == 1:
			p.wrap("", line)
			continue
		case i == 0:
			p.line(line)
			continue
		}
		p.line(line)
		if why, ok := refused[i]; ok {
			p.wrap("     refused: ", why)
		}
	}
	notes.write(p)
	fmt.Fprintln(&p.buf)
	p.wrap("", measured(doc))
}

// measured says in one sentence what the numbers are.
func measured(doc *record.Document[record.BenchRow]) string {
	rounds, hops := 0, false
	var said []string
	for i := range doc.Rows {
		row := &doc.Rows[i]
		rounds = max(rounds, len(row.Rounds))
		hops = hops || row.Hop != nil
		if row.Observer != nil {
			median, around := quantity(row.Observer)
			said = append(said, fmt.Sprintf("Counting itself: %s ns per packet %s, on %s.", median, around, row.Name))
		}
	}
	s := fmt.Sprintf("%d rounds, each built afresh: medians [95 %% intervals].", rounds)
	if hops {
		s += " Hop: the chain less the same chain without the redirect."
	}
	return strings.Join(append([]string{s}, said...), " ")
}

package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
)

// Tax writes a record of tax for people: for each pair what is called, ns with
// and without the indirect call, its price with a 95 % interval, in ns and in TSC
// cycles, how often it runs for a packet and so ns per packet; then sum, the
// closing line. verbose adds what was found in the code of each pair.
func Tax(w io.Writer, opts Options, doc *record.Document[record.TaxRow], sum string, verbose bool) error {
	p := newPage(opts)
	if doc.Incomplete {
		p.wrap("", "INCOMPLETE: the run was stopped before its end.")
		fmt.Fprintln(&p.buf)
	}
	notes := newFootnotes(append(noted(doc.Rows), doc.Warnings...))
	p.prices(doc.Rows, notes, verbose)
	notes.write(p)
	fmt.Fprintln(&p.buf)
	rounds := 0
	for _, row := range doc.Rows {
		if !strings.HasPrefix(row.Name, "bpf-prog") && !strings.HasPrefix(row.Name, "dispatcher-tree") { // several numbers a round
			rounds = max(rounds, len(row.Rounds))
		}
	}
	clock := ""
	if ran := doc.Settings["core-clock"]; ran != "" {
		clock = "; the core ran at " + ran
	}
	p.wrap("", fmt.Sprintf("Prices of one call: ns with it less ns without it, up to %d rounds, estimates [95 %% intervals]. cycles: of the time stamp counter%s. /pkt: runs for a packet of redirect-map at bulk 64 where it is in use, or calls saved; ns/pkt: what they take.", rounds, clock))
	if sum != "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", sum)
	}
	return p.flush(w)
}

// noted are the rows' own notes, as footnotes.
func noted(rows []record.TaxRow) []record.Warning {
	var out []record.Warning
	for _, row := range rows {
		if row.Note != "" && row.Refused == "" {
			out = append(out, record.Warning{Row: row.Name, Text: row.Note})
		}
	}
	return out
}

// prices is the table. What is called stands above the rows it is called in, what
// was found in their code and why there is no number beneath.
func (p *page) prices(rows []record.TaxRow, notes *footnotes, verbose bool) {
	table := [][]string{{"", "with", "w/o", "price ns", "", "cycles", "/pkt", "ns/pkt", ""}}
	beneath := make(map[int][2]string)
	calls := ""
	for _, row := range rows {
		if row.Calls != calls {
			calls = row.Calls
			table = append(table, []string{calls})
		}
		n := len(table)
		if row.Refused != "" {
			table = append(table, []string{"  " + clean(row.Name), "-", "-", "-", "", "", "", "", notes.mark(row.Name)})
			beneath[n] = [2]string{"    no price: ", row.Refused}
			continue
		}
		with, _ := quantity(row.With)
		without, _ := quantity(row.Without)
		price, around := quantity(row.Price)
		cycles := ""
		if row.Cycles != nil {
			cycles = fmt.Sprintf("%.0f", row.Cycles.Median)
		}
		perPacket, _ := quantity(row.PerPacket)
		nsPerPacket, _ := quantity(row.NsPerPacket)
		table = append(table, []string{"  " + clean(row.Name), with, without, price, around, cycles, perPacket, nsPerPacket, notes.mark(row.Name)})
		if verbose && row.Premise != "" {
			beneath[n] = [2]string{"    found: ", row.Premise}
		}
	}
	for i, line := range columns(table, []bool{true, false, false, false, true, false, false, false, true}, "") {
		if len(table[i]) == 1 {
			p.wrap("", line)
			continue
		}
		marks := table[i][len(table[i])-1]
		if utf8.RuneCountInString(line) > p.width && marks != "" && i > 0 {
			p.line(strings.TrimSuffix(line, marks))
			p.wrap("    notes: ", marks)
		} else {
			p.line(line)
		}
		if b, ok := beneath[i]; ok {
			p.wrap(b[0], b[1])
		}
	}
}

// Prices writes the largest price of each of three families, each with its
// interval, and sum, the closing line of tax. It is for the default verb, and
// writes nothing when doc has no prices.
func Prices(w io.Writer, opts Options, doc *record.Document[record.BenchRow], sum string) error {
	p := newPage(opts)
	rows := slices.DeleteFunc(slices.Clone(doc.Prices), func(row record.TaxRow) bool {
		family := row.Labels["pair"]
		return row.Price == nil || family == "packet" || family == "control"
	})
	slices.SortStableFunc(rows, func(a, b record.TaxRow) int { return cmp.Compare(b.Price.Median, a.Price.Median) })
	table := [][]string{{"largest prices", "ns", "", "of", ""}}
	shown := make(map[string]bool)
	var names []string
	for _, row := range rows {
		if family := row.Labels["pair"]; !shown[family] && len(shown) < 3 {
			shown[family] = true
			names = append(names, row.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	notes := newFootnotes(warningsOf(doc.Warnings, func(row string) bool { return slices.Contains(names, row) }))
	for _, row := range rows {
		if slices.Contains(names, row.Name) {
			price, around := quantity(row.Price)
			what, _, _ := strings.Cut(clean(row.Calls), ": ")
			table = append(table, []string{"  " + clean(row.Name), price, around, what, notes.mark(row.Name)})
		}
	}
	fmt.Fprintln(&p.buf)
	for _, line := range columns(table, []bool{true, false, true, true, true}, " ") {
		p.line(line)
	}
	notes.write(p)
	if sum != "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", sum)
	}
	return p.flush(w)
}

// warningsOf are the warnings whose row is wanted.
func warningsOf(warnings []record.Warning, wanted func(row string) bool) []record.Warning {
	return slices.DeleteFunc(slices.Clone(warnings), func(w record.Warning) bool { return !wanted(w.Row) })
}

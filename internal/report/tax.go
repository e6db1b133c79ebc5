package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Tax writes a record of tax for people: for each pair what is called, ns with
// and without the indirect call, its price with a 95 % interval, in ns and in TSC
// cycles, how often it runs for a packet and so ns per packet; then sum, the
// closing line. verbose adds what was found in the code of each pair.
func Tax(w io.Writer, opts Options, doc *record.Document[record.TaxRow], sum string, verbose bool) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	var names []string
	for _, row := range doc.Rows {
		names = append(names, row.Name)
	}
	notes := newFootnotes(inOrder(append(noted(doc.Rows), doc.Warnings...), names))
	p.priceTable(doc.Rows, notes, verbose)
	notes.write(p)
	fmt.Fprintln(&p.buf)
	rounds := 0
	for _, row := range doc.Rows {
		// Those of the dispatcher have several numbers a round.
		if !strings.HasPrefix(row.Name, "bpf-prog") && !strings.HasPrefix(row.Name, "dispatcher-tree") {
			rounds = max(rounds, len(row.Rounds))
		}
	}
	most := ""
	if rounds > 0 {
		most = fmt.Sprintf("up to %s, ", cells.Plural(rounds, "round"))
	}
	clock := ""
	if ran := doc.Settings["core-clock"]; ran != "" {
		clock = "; the core ran at " + ran
	}
	whose, own := cmp.Or(doc.Settings["prog"], "redirect-map"), ""
	if doc.Settings["prog"] != "" {
		own = " /pkt has no calls that your program makes itself, as a tail call by a variable index: " +
			"prog xray shows these, and prog cost --lines how often each line runs."
	}
	p.wrap("", fmt.Sprintf("Prices of one call: ns with it less ns without it, %sestimates [95 %% intervals]. cycles: of the "+
		"time stamp counter%s. /pkt: runs for a packet of %s at bulk 64 where it is in use, or calls saved; "+
		"ns/pkt: what they take. Both are blank for what is not on that path.%s", most, clock, cells.Clean(whose), own))
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

// priceTable writes the prices: what is called above its rows, and beneath a row why it has no
// number, and what was found in its code.
func (p *printer) priceTable(rows []record.TaxRow, notes *footnotes, verbose bool) {
	t := newTextTable([]bool{true, false, false, false, true, false, false, false, true}, "",
		"", "with", "w/o", "price ns", "", "cycles", "/pkt", "ns/pkt", "")
	last := ""
	for i := range rows {
		row := &rows[i]
		if row.Target != last {
			last = row.Target
			t.heading(last)
		}
		name := "  " + cells.Clean(row.Name)
		if row.Refused != "" {
			t.add(name, "-", "-", "-", "", "", cells.Price(row).PerPacket, "", notes.mark(row.Name))
			t.below("    no price: ", row.Refused)
		} else {
			c := cells.Price(row)
			t.add(name, c.With, c.Without, c.Price, c.PriceInterval, c.Cycles, c.PerPacket, c.NsPerPacket,
				notes.mark(row.Name))
		}
		if verbose && row.Premise != "" {
			t.below("    found: ", row.Premise)
		}
	}
	p.tableBy(t, func(row []string, line string) {
		// Marks go beneath where there is no room for them.
		marks := row[len(row)-1]
		if utf8.RuneCountInString(line) > p.width && marks != "" {
			p.line(strings.TrimSuffix(line, marks))
			p.wrap("    notes: ", marks)
			return
		}
		p.line(line)
	})
}

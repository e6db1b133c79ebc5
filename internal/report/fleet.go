package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// FleetIngest writes what was taken into a store, and what was refused, by its reason.
func FleetIngest(w io.Writer, opts Options, doc *record.FleetIngest) error {
	p := newPrinter(opts)
	p.wrap("", conclusion.FleetIngest(doc))
	if n := doc.Ahead + doc.Behind; n > 0 {
		p.wrap("! ", fmt.Sprintf("%s kept, and left out of answers: the clock was ahead in %d, behind in %d",
			cells.Plural(n, "record"), doc.Ahead, doc.Behind))
	}
	for _, note := range conclusion.FleetShared(&doc.FleetShared) {
		p.wrap("! ", note)
	}
	if len(doc.Rows) > 0 {
		fmt.Fprintln(&p.buf)
	}
	t := newTextTable([]bool{true, false}, "", "refused", "documents")
	for _, row := range doc.Rows {
		t.add("  "+cells.Clean(row.Name), strconv.Itoa(row.Count))
		t.below("    ", row.Example)
		if files := conclusion.FleetFiles(&row); files != "" {
			t.below("    ", "in "+files)
		}
	}
	if len(doc.Rows) > 0 {
		p.table(t)
	}
	return p.flush(w)
}

// fleetHead writes the answer, and what it is about.
func (p *printer) fleetHead(said string, h *record.FleetHead) {
	p.wrap("", cells.Clean(said))
	p.wrap("", fmt.Sprintf("Newest records from %s to %s; %d of %d have numbers.", cells.Day(h.Since), cells.Day(h.Until), h.Measured,
		h.Machines)+only(h.Where))
	for _, note := range conclusion.FleetNotes(h) {
		p.wrap("! ", note)
	}
	fmt.Fprintln(&p.buf)
}

// only names the conditions that machines had to meet.
func only(where string) string {
	if where == "" {
		return ""
	}
	return " Only " + cells.Clean(where) + "."
}

// FleetWho writes who pays what: a group of machines, and beneath it its numbers.
func FleetWho(w io.Writer, opts Options, doc *record.FleetWho) error {
	p := newPrinter(opts)
	p.fleetHead(strings.TrimSpace(conclusion.FleetPays(doc)+" "+conclusion.FleetWho(doc)), &doc.FleetHead)
	head, left := []string{"machines"}, []bool{false}
	var redirects, calls []string
	names, others := cells.FleetRows(doc)
	for _, name := range names {
		bulk, is := strings.CutPrefix(name, "redirect/")
		if !is {
			calls = append(calls, name)
			continue
		}
		redirects = append(redirects, name)
		head, left = append(head, bulk, ""), append(left, false, true)
	}
	t := newTextTable(left, "  ", head...)
	for i := range doc.Rows {
		row := &doc.Rows[i]
		t.heading(cells.Clean(row.Name))
		line := []string{strconv.Itoa(row.Machines)}
		for _, name := range redirects {
			q := row.Number(name)
			line = append(line, cells.OrDash(q), cells.PlusMinus(q))
		}
		t.add(line...)
		var prices []string
		for _, name := range calls {
			if q := row.Number(name); q != nil {
				prices = append(prices, cells.Join(" ", cells.Clean(name), stat.Number(q.Median), cells.PlusMinus(q)))
			}
		}
		if len(prices) > 0 {
			t.below("          ", "a call: "+strings.Join(prices, ", "))
		}
		if q := row.Number(record.FleetIndirect); q != nil {
			more := ""
			if of := row.Number(record.FleetRedirectAnswer); of != nil && q.Median > of.Median {
				more = ", which is more than bulk=" + record.AnswerBulk + " takes"
			}
			t.below("          ", cells.Join(" ", "indirect branches of bulk="+record.AnswerBulk+": some", stat.Number(q.Median),
				cells.PlusMinus(q), "if each packet? one runs, at "+record.FleetBranch+"'s price"+more))
		}
		if row.Measured < row.Machines {
			t.below("          ", "without a number: "+cells.FleetRefused(row))
		}
	}
	p.table(t)
	if others > 0 {
		p.wrap("", fmt.Sprintf("Left out: %s that fewer machines have, which --json lists.", cells.Plural(others, "number")))
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "ns, medians over machines ± half of the 95 % interval: a packet's redirect alone, by bulk; a call: one indirect call of "+
		"that kind, and a direct one.")
	return p.flush(w)
}

// FleetOdd writes machines that are unlike their twins, a paragraph each.
func FleetOdd(w io.Writer, opts Options, doc *record.FleetOdd) error {
	p := newPrinter(opts)
	p.fleetHead(conclusion.FleetOdd(doc), &doc.FleetHead)
	for i := range doc.Rows {
		row := &doc.Rows[i]
		lost := "not measured"
		if row.Lost != nil {
			lost = stat.Signed(*row.Lost) + " ns a packet"
		}
		p.line(p.paint(bold, fmt.Sprintf("%s  %s", cells.Clean(row.Name), lost)))
		p.wrap("  ", fmt.Sprintf("%s of %s", cells.Plural(row.Twins, "twin"), cells.FleetTwins(row, doc.Twins)))
		for _, f := range row.Fields {
			p.wrap("  ", cells.FleetField(f))
		}
		for _, l := range row.Prices {
			p.wrap("  ", cells.FleetLimit(l))
		}
	}
	if doc.LeftOut > 0 {
		p.wrap("", fmt.Sprintf("Left out: %d more; raise --top.", doc.LeftOut))
	}
	if len(doc.Rows) > 0 {
		fmt.Fprintln(&p.buf)
	}
	p.wrap("", "ns a packet: the redirect alone in bulks of 16, less the median of the twins; + is lost.")
	return p.flush(w)
}

// FleetCompare writes what a rollout costs.
func FleetCompare(w io.Writer, opts Options, doc *record.FleetCompare) error {
	p := newPrinter(opts)
	p.fleetHead(conclusion.FleetCompare(doc), &doc.FleetHead)
	warnings, names := slices.Clone(doc.Warnings), []string(nil)
	for i := range doc.Rows {
		names = append(names, doc.Rows[i].Name)
		if doc.Rows[i].Missing != "" {
			warnings = append(warnings, record.Warning{Row: doc.Rows[i].Name, Text: doc.Rows[i].Missing})
		}
	}
	notes := newFootnotes(inOrder(warnings, names))
	const verdict = 5 // its column
	t := newVerdictTable([]bool{true, false, false, false, true, true, true}, []int{verdict},
		"ns", "base", "canary", "", "change in %", "", "")
	for i := range doc.Rows {
		row := &doc.Rows[i]
		name, mark := cells.Clean(row.Name), notes.mark(row.Name)
		if row.Difference == nil {
			t.add(name, cells.OrDash(row.Base), cells.OrDash(row.Canary), "-", "", "", mark)
			continue
		}
		change, around := cells.Difference(row.Difference)
		t.add(name, cells.OrDash(row.Base), cells.OrDash(row.Canary), change, around, row.Verdict, mark)
		t.verdict(row.Verdict, verdictColor(row.Verdict, row.Regression))
		t.below("     ", "canaries to show 1 %: "+cells.Needed(row.Needed))
	}
	p.verdictTable(t, t.fits(p.width))
	notes.write(p)
	if n := doc.Unmatched; n > 0 {
		why := fmt.Sprintf("fewer than %d machines of the base have that CPU and hypervisor", stat.MinRounds)
		if doc.Design == "paired" {
			why = "not measured on the side of the base"
		}
		p.wrap("! ", fmt.Sprintf("%s compared with nothing: %s",
			map[bool]string{true: "1 canary is", false: fmt.Sprintf("%d canaries are", n)}[n == 1], why))
	}
	fmt.Fprintln(&p.buf)
	rows := "all rows together"
	if slices.ContainsFunc(doc.Rows, func(row record.FleetCompareRow) bool { return row.Reference }) {
		rows = "all rows but direct-call, which is there as a check"
	}
	p.wrap("", fmt.Sprintf("Machines are the sample; intervals hold at 95 %% for %s. Threshold: %s %%.", rows,
		stat.FormatPercent(doc.Threshold)))
	return p.flush(w)
}

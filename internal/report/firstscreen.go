package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Machine writes what bears most on the numbers of a run, a line each, and what was
// found of its redirect path: the lines of the first screen that are there
// before anything is measured.
func Machine(w io.Writer, opts Options, f host.Fingerprint, findings []host.Finding) error {
	p := newPrinter(opts)
	for _, line := range []struct{ name, value string }{
		{"cpu", f.CPU},
		{"virtual", f.Virtual},
		{"kernel", f.Kernel},
		{"compiler", f.Compiler},
		{"indirect call", f.IndirectThunk},
		{"return", f.ReturnThunk},
		{"spectre-v2", f.Mitigations["spectre-v2"]},
	} {
		p.wrap(fmt.Sprintf("%-14s ", line.name), cmp.Or(line.value, "not seen"))
	}
	for _, f := range findings {
		if f.Name == "call-sites" {
			p.wrap("inventory      ", f.Found+" (unthunk xray)")
		}
	}
	fmt.Fprintln(&p.buf)
	return p.flush(w)
}

// FirstScreen is the output of `unthunk` without a verb, after the lines of [Machine].
type FirstScreen struct {
	// Doc is the record of the run.
	Doc *record.Document[record.BenchRow]
	// Ladder is the sentence on its ladder, Tax the one that closes its prices, or
	// empty.
	Ladder, Tax string
	// Profiled is what its stages are of.
	Profiled string
}

// parts are the parts of the screen in their order. A new line of the screen is a new
// part.
func (s *FirstScreen) parts() []func(p *printer) {
	return []func(p *printer){s.ladder, s.largestPrices, s.stages, s.verdict, s.verbs}
}

// Write writes the screen.
func (s *FirstScreen) Write(w io.Writer, opts Options) error {
	p := newPrinter(opts)
	for _, part := range s.parts() {
		part(p)
	}
	return p.flush(w)
}

// ladder is the bulk ladder.
func (s *FirstScreen) ladder(p *printer) { p.ladder(s.Doc) }

// largestPrices are what calls cost of each of three families, the largest first, each
// with its interval, and the closing line of tax; nothing when there are no prices.
func (s *FirstScreen) largestPrices(p *printer) {
	rows := slices.DeleteFunc(slices.Clone(s.Doc.Prices), func(row record.TaxRow) bool {
		family := row.Labels["pair"]
		part, _ := row.CallPart()
		return part == nil || family == "packet" || family == "control"
	})
	slices.SortStableFunc(rows, func(a, b record.TaxRow) int {
		partA, _ := a.CallPart()
		partB, _ := b.CallPart()
		return cmp.Compare(partB.Median, partA.Median)
	})
	shown := make(map[string]bool)
	rows = slices.DeleteFunc(rows, func(row record.TaxRow) bool {
		family := row.Labels["pair"]
		if shown[family] || len(shown) == 3 {
			return true
		}
		shown[family] = true
		return false
	})
	if len(rows) == 0 {
		return
	}
	warns := warningsOf(s.Doc.Warnings, func(name string) bool {
		return slices.ContainsFunc(rows, func(row record.TaxRow) bool { return row.Name == name })
	})
	for i := range rows {
		if _, rest := rows[i].CallPart(); rest > 0 {
			warns = append(warns, record.Warning{Row: rows[i].Name, Text: fmt.Sprintf(
				"the calls alone; bulking saves %s ns more: locks, doorbell, softirq", stat.Number(rest))})
		}
	}
	notes := newFootnotes(warns)
	t := newTextTable([]bool{true, false, true, true, true}, " ", "largest prices", "ns", "", "of", "")
	for i := range rows {
		row := &rows[i]
		part, _ := row.CallPart()
		ns, around := cells.Quantity(part)
		what, _, _ := strings.Cut(cells.Clean(row.Target), ": ")
		t.add("  "+cells.Clean(row.Name), ns, around, what, notes.mark(row.Name))
	}
	fmt.Fprintln(&p.buf)
	p.table(t)
	notes.write(p)
	if s.Tax != "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", s.Tax)
	}
}

// stageTable are where a packet's ns go, and the line on indirect branches; nothing when
// there is no profile.
func (s *FirstScreen) stages(p *printer) {
	parts := s.Doc.Profile
	if parts == nil {
		return
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", fmt.Sprintf("where the %s ns of %s go", stat.Number(parts.Packet.Median), cells.Clean(s.Profiled)))
	p.stageTable(s.Doc.Stages, parts.Packet, newFootnotes(nil))
	p.indirectBranches(parts)
}

// verdict is what the run comes to: the sentence on its ladder, what indirect
// branches take, and what could be won or lost.
func (s *FirstScreen) verdict(p *printer) {
	v := s.Doc.Conclusion
	fmt.Fprintln(&p.buf)
	text := s.Ladder
	if v == nil {
		v = new(record.Conclusion)
	}
	if v.Share != nil {
		share, around := cells.Quantity(v.Share)
		text += fmt.Sprintf(" Indirect branches take %s %% %s of the hop at bulk 16.", share, around)
	}
	if v.Largest != nil {
		ns, around := cells.Quantity(v.Largest.Ns)
		text += fmt.Sprintf(" The largest part of the redirect path there is %s, %s ns %s.",
			cells.Clean(v.Largest.Name), ns, around)
	}
	p.wrap("verdict: ", text)
	p.gains("worth trying, ns a packet:", v.Win)
	p.gains("avoid:", v.Lose)
}

// gains lists gains with their numbers, each with the verb that shows more.
func (p *printer) gains(heading string, gains []record.Gain) {
	if len(gains) == 0 {
		return
	}
	fmt.Fprintln(&p.buf)
	p.line(heading)
	for _, g := range gains {
		ns, around := cells.Quantity(g.Ns)
		if g.AtMost {
			ns, around = "≤ "+ns, ""
		}
		p.wrap(fmt.Sprintf("  %6s %-13s ", ns, around),
			fmt.Sprintf("%s (unthunk %s)", cells.Clean(cells.Join(": ", g.What, g.Why)), cells.Clean(g.Verb)))
	}
}

// verbs are where to read more.
func (s *FirstScreen) verbs(p *printer) {
	fmt.Fprintln(&p.buf)
	p.wrap("", "More of each part: unthunk check, bench, tax, xray, profile.")
}

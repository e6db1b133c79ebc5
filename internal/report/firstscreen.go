package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// FirstScreen is the output of `unthunk` without a verb.
type FirstScreen struct {
	// Doc is the record of the run.
	Doc *record.Document[record.BenchRow]
	// Findings are what was found of its machine.
	Findings []host.Finding
	// Profiled is what its stages are of.
	Profiled string
	// Verbose adds all that the answer is made of.
	Verbose bool
}

// details are the parts below the answer in their order, under a heading each. A new part is
// a line here.
func (s *FirstScreen) details() []detail {
	return []detail{
		{"the machine", s.machine},
		{"all rates", s.ladder},
		{"largest prices of a call", s.largestPrices},
		{"all stages", s.stages},
		{"XDP programs on devices", s.programs},
		{"worth trying, ns a packet", func(p *printer) { p.gains(s.Doc.Conclusion.Win) }},
		{"avoid, ns a packet", func(p *printer) { p.gains(s.Doc.Conclusion.Lose) }},
	}
}

// detail is a part of the screen; one that writes nothing has no heading.
type detail struct {
	heading string
	write   func(p *printer)
}

// programs writes the XDP programs that devices ran, all of them.
func (s *FirstScreen) programs(p *printer) {
	for _, text := range conclusion.AttachedPrograms(s.Doc.Programs, s.Doc.Prices) {
		p.wrap("", text)
	}
}

// Write writes the screen: the answer on at most 24 lines, and with Verbose the details
// below it.
func (s *FirstScreen) Write(w io.Writer, opts Options) error {
	p := newPrinter(opts)
	p.answer(s.Doc, conclusion.NewAnswer(s.Doc))
	if s.Verbose && s.Doc.Conclusion != nil {
		for _, d := range s.details() {
			part := newPrinter(opts)
			d.write(part)
			if text := strings.Trim(part.buf.String(), "\n"); text != "" {
				fmt.Fprintf(&p.buf, "\n%s\n%s\n", p.paint(bold, d.heading), text)
			}
		}
	}
	return p.flush(w)
}

// Rates writes what is known of a run when its rates are there, and returns how many lines
// that are.
func Rates(w io.Writer, opts Options, doc *record.Document[record.BenchRow]) (lines int, err error) {
	p := newPrinter(opts)
	a := conclusion.NewAnswer(doc)
	for _, line := range append(p.filled("", a.Claim[0]), append([]string{""}, rateLines(a.Rates)...)...) {
		p.line(line)
		lines++
	}
	return lines, p.flush(w)
}

// machine is what bears most on the numbers of a run, a line each, and what was found of
// its redirect path.
func (s *FirstScreen) machine(p *printer) {
	f := s.Doc.Host
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
	for _, f := range s.Findings {
		if f.Name == "call-sites" {
			p.wrap("inventory      ", f.Found+" (unthunk xray)")
		}
	}
}

// ladder is the bulk ladder, and the sentence on it.
func (s *FirstScreen) ladder(p *printer) {
	p.ladder(s.Doc)
	p.wrap("", conclusion.Ladder(s.Doc.Rows))
}

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
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
	}
	notes := newFootnotes(inOrder(warns, names))
	t := newTextTable([]bool{true, false, true, true, true}, " ", "", "ns", "", "of", "")
	for i := range rows {
		row := &rows[i]
		part, _ := row.CallPart()
		ns, around := cells.Quantity(part)
		what, _, _ := strings.Cut(cells.Clean(row.Target), ": ")
		t.add("  "+cells.Clean(row.Name), ns, around, what, notes.mark(row.Name))
	}
	p.table(t)
	notes.write(p)
	if said := conclusion.Calls(s.Doc.Prices, s.Doc.Rows); said != "" {
		fmt.Fprintln(&p.buf)
		p.wrap("", said)
	}
}

// stageTable are where a packet's ns go, and the line on indirect branches; nothing when
// there is no profile.
func (s *FirstScreen) stages(p *printer) {
	parts := s.Doc.Profile
	if parts == nil {
		return
	}
	p.wrap("", fmt.Sprintf("where the %s ns of %s go", stat.Number(parts.Packet.Median), cells.Clean(s.Profiled)))
	p.stageTable(s.Doc.Stages, parts.Packet, newFootnotes(nil))
	p.indirectBranches(parts)
}

// gains lists gains with their numbers, each with the verb that shows more.
func (p *printer) gains(gains []record.Gain) {
	for _, g := range gains {
		ns, around := cells.Quantity(g.Ns)
		switch {
		case ns == "":
			ns = "?"
		case g.AtMost:
			ns, around = "≤ "+ns, ""
		}
		now := ""
		if g.Now != "" {
			now = "now: " + g.Now
		}
		p.wrap(fmt.Sprintf("  %6s %-13s ", ns, around),
			fmt.Sprintf("%s (unthunk %s)", cells.Clean(cells.Join("; ", cells.Join(": ", g.What, g.Why), now)), cells.Clean(g.Verb)))
	}
}

package report

import (
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// Machine writes what bears most on the numbers of a run, a line each, and what was
// found of its redirect path.
func Machine(w io.Writer, opts Options, f host.Fingerprint, findings []host.Finding) error {
	p := newPage(opts)
	for _, line := range []struct{ name, value string }{
		{"cpu", f.CPU},
		{"virtual", f.Virtual},
		{"kernel", f.Kernel},
		{"compiler", f.Compiler},
		{"indirect call", f.IndirectThunk},
		{"return", f.ReturnThunk},
		{"spectre-v2", f.Mitigations["spectre-v2"]},
	} {
		if line.value == "" {
			line.value = "not seen"
		}
		p.wrap(fmt.Sprintf("%-14s ", line.name), line.value)
	}
	for _, f := range findings {
		if f.Name == "call-sites" {
			p.wrap("inventory      ", f.Found+" (unthunk xray)")
		}
	}
	fmt.Fprintln(&p.buf)
	return p.flush(w)
}

// Ladder writes a record of bench.
func Ladder(w io.Writer, opts Options, doc *record.Document[record.BenchRow]) error {
	p := newPage(opts)
	p.bench(doc)
	return p.flush(w)
}

// Verdict writes what a run comes to: the sentence on its ladder, what indirect branches
// take, and what could be won or lost.
func Verdict(w io.Writer, opts Options, v *record.Conclusion, ladder string) error {
	p := newPage(opts)
	fmt.Fprintln(&p.buf)
	text := ladder
	if v.Share != nil {
		share, around := quantity(v.Share)
		text += fmt.Sprintf(" Indirect branches take %s %% %s of the hop at bulk 16.", share, around)
	}
	if v.Largest != nil {
		ns, around := quantity(v.Largest.Ns)
		text += fmt.Sprintf(" The largest part of the redirect path there is %s, %s ns %s.", clean(v.Largest.Name), ns, around)
	}
	p.wrap("verdict: ", text)
	p.gains("to win, ns a packet:", v.Win)
	p.gains("not to lose:", v.Lose)
	fmt.Fprintln(&p.buf)
	p.wrap("", "More of each part: unthunk check, bench, tax, xray, profile.")
	return p.flush(w)
}

// gains lists gains with their numbers, each with the verb that shows more.
func (p *page) gains(heading string, gains []record.Gain) {
	if len(gains) == 0 {
		return
	}
	fmt.Fprintln(&p.buf)
	p.line(heading)
	for _, g := range gains {
		ns, around := quantity(g.Ns)
		if g.AtMost {
			ns, around = "≤ "+ns, ""
		}
		p.wrap(fmt.Sprintf("  %6s %-13s ", ns, around), fmt.Sprintf("%s (unthunk %s)", clean(g.What), clean(g.Verb)))
	}
}

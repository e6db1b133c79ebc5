package report

import (
	"fmt"
	"io"

	"unthunk/host"
	"unthunk/result"
)

// Machine writes what bears most on the numbers of a run, a line each.
func Machine(w io.Writer, opts Options, f host.Fingerprint) error {
	p := newPage(opts)
	for _, line := range []struct{ name, value string }{
		{"cpu", f.CPU},
		{"virtual", f.Virtual},
		{"kernel", f.Kernel},
		{"compiler", f.Compiler},
		{"indirect call", f.IndirectThunk},
		{"call sites", f.CallSites},
		{"return", f.ReturnThunk},
		{"spectre-v2", f.Mitigations["spectre-v2"]},
	} {
		if line.value == "" {
			line.value = "not seen"
		}
		p.wrap(fmt.Sprintf("%-14s ", line.name), line.value)
	}
	fmt.Fprintln(&p.buf)
	return p.flush(w)
}

// Ladder writes a record of bench and the verdict on it.
func Ladder(w io.Writer, opts Options, doc *result.Document[result.BenchRow], verdict string) error {
	p := newPage(opts)
	p.bench(doc)
	fmt.Fprintln(&p.buf)
	p.wrap("verdict: ", verdict)
	return p.flush(w)
}

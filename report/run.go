package report

import (
	"fmt"
	"io"

	"unthunk/host"
	"unthunk/result"
)

// Run writes what `unthunk run` found: the machine in a few lines, the bulk
// ladder, the verdict.
func Run(w io.Writer, opts Options, doc *result.Document[result.BenchRow], verdict string) error {
	p := newPage(opts)
	p.machine(doc.Host)
	fmt.Fprintln(&p.buf)
	p.bench(doc)
	fmt.Fprintln(&p.buf)
	p.wrap("verdict: ", verdict)
	if _, err := w.Write(p.buf.Bytes()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// machine writes what bears most on the numbers that follow.
func (p *page) machine(f host.Fingerprint) {
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
}

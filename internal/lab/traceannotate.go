package lab

import (
	"fmt"
	"path"
	"slices"
	"sort"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
	"github.com/unthunk/unthunk/ktext"
)

// maxAnnotated is how many instructions of a function are kept: the longest have some 2000.
const maxAnnotated = record.MaxRows

// annotated are the executed instructions of the functions of a name in the source, or of a
// program's own name, by address.
func annotated(w *trace.Window, text ktext.Source, name trace.Namer, source func(addr uint64) string, wanted string,
) (out []record.LabTraceInstruction) {
	counts := w.Counts()
	places := make([]int, len(counts))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return int(min(max(int64(w.Addrs[a])-int64(w.Addrs[b]), -1), 1)) })
	resolve := func(addr uint64) (string, bool) {
		function, start, ok := name(addr)
		if ok && addr != start {
			function = fmt.Sprintf("%s+%#x", function, addr-start)
		}
		return function, ok
	}
	last := ""
	for _, i := range places {
		addr := w.Addrs[i]
		function, start, ok := name(addr)
		if !ok || !named(function, wanted) || len(out) == maxAnnotated {
			continue
		}
		inst := record.LabTraceInstruction{Function: function, Offset: addr - start, Times: counts[i], Text: "(not decoded)"}
		for step := range branch.Decode(trace.CodeAt(text, addr), addr) {
			inst.Text = legible(step.Text(resolve))
			break
		}
		if at := source(addr); at != last {
			inst.Source, last = at, at
		}
		out = append(out, inst)
	}
	return out
}

// named tells whether a symbol is that of a function by its name in the source, or of a BPF
// program by its own.
func named(symbol, wanted string) bool {
	return symbol == wanted || functions.Source(symbol) == wanted || functions.Program(symbol) == wanted
}

// line is the source line of an address in a BPF program, nil where there is none. What is
// before the first line is what begins the function.
func (code *GuestCode) line(addr uint64) *GuestLine {
	p := slices.IndexFunc(code.Programs, func(p GuestProgram) bool { return p.Start <= addr && addr < p.End })
	if p < 0 || len(code.Programs[p].Lines) == 0 {
		return nil
	}
	lines := code.Programs[p].Lines
	return &lines[max(sort.Search(len(lines), func(i int) bool { return lines[i].Addr > addr })-1, 0)]
}

// source tells the source line of an address: of a BPF program with its text; of the kernel
// where its vmlinux has debugging information.
func (t *tracer) source(code *GuestCode) func(addr uint64) string {
	return func(addr uint64) string {
		if l := code.line(addr); l != nil {
			return fmt.Sprintf("%s:%d %s", path.Base(l.File), l.Line, l.Text)
		}
		if t.lines != nil {
			if file, line, ok := t.lines.At(addr); ok {
				return legible(fmt.Sprintf("%s:%d", path.Base(file), line))
			}
		}
		return ""
	}
}

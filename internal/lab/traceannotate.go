package lab

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
)

// maxAnnotated is how many instructions of a function are kept: the longest have some 2000.
const maxAnnotated = record.MaxRows

// listing are the executed instructions of a function in a row, and where they are.
type listing struct {
	row          *BulkCount
	code         *GuestCode
	instructions []record.LabTraceInstruction
	addrs        []uint64
}

// annotated are the executed instructions of the functions of a name in the source, or of a
// program's own name, by address.
func annotated(ctx context.Context, w *trace.Window, text trace.Source, name trace.Namer, wanted string,
) (out []record.LabTraceInstruction, addrs []uint64, err error) {
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
	for _, i := range places {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		addr := w.Addrs[i]
		function, start, ok := name(addr)
		if !ok || !named(function, wanted) || len(out) == maxAnnotated {
			continue
		}
		inst := record.LabTraceInstruction{Function: function, Offset: addr - start, Times: counts[i], Text: "(not decoded)"}
		for step := range branch.Decode(text.CodeAt(addr), addr) {
			inst.Text = legible(step.Text(resolve))
			break
		}
		out, addrs = append(out, inst), append(addrs, addr)
	}
	return out, addrs, nil
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

// addSources says where in the source each line of the listings begins: of a BPF program with its text; of the kernel where its
// vmlinux has debugging information.
func (t *tracer) addSources(ctx context.Context) error {
	var addrs []uint64
	for _, l := range t.listings {
		for _, addr := range l.addrs {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if l.code.line(addr) == nil {
				addrs = append(addrs, addr)
			}
		}
	}
	var places map[uint64]trace.Place
	var err error
	if t.vmlinux != "" && len(addrs) > 0 {
		if places, err = t.images.sources(ctx, t.vmlinux, addrs); errors.Is(err, trace.ErrNoLines) {
			err = nil
		}
	}
	for _, l := range t.listings {
		last := ""
		for i, addr := range l.addrs {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			at := ""
			if line := l.code.line(addr); line != nil {
				at = fmt.Sprintf("%s:%d %s", path.Base(line.File), line.Line, line.Text)
			} else if p := places[addr]; p.Line > 0 {
				at = legible(fmt.Sprintf("%s:%d", path.Base(p.File), p.Line))
			}
			if at != last {
				if err := t.images.traces.Take(len(at)); err != nil {
					return err
				}
				l.instructions[i].Source, last = at, at
			}
		}
	}
	return err
}

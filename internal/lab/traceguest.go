package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/ksym"
)

// The marks around a traced slot are system calls that nothing else in a guest makes.
const (
	beginMark = "__x64_sys_sethostname"
	endMark   = "__x64_sys_setdomainname"
	// stampMark is what the chain's programs call for a time stamp, once a window.
	stampMark = "bpf_ktime_get_ns"
)

// Traced says which of the slots that a guest marked is that of a bulk.
type Traced struct {
	Slot int `json:"slot"`
	// Code is the number of what was loaded then in [Measurement.Codes], from 1.
	Code int `json:"code"`
	// Usual is, on wires, how many of the slot's windows in the middle of polls take as many instructions as most do, of Middle.
	Usual  int `json:"usual,omitempty"`
	Middle int `json:"middle,omitempty"`
}

// GuestCode is what only a guest knows of its code: what lies in no kernel image.
type GuestCode struct {
	// Symbols are the functions of modules, BPF programs and the dispatcher, by address.
	Symbols []GuestSymbol `json:"symbols"`
	// Programs are the BPF functions with their source lines.
	Programs []GuestProgram `json:"programs"`
}

// GuestSymbol is a function.
type GuestSymbol struct {
	Addr uint64 `json:"addr"`
	Size uint64 `json:"size"` // in bytes; 0 when not known
	Name string `json:"name"`
}

// GuestProgram is the machine code of a function of a BPF program.
type GuestProgram struct {
	Start uint64      `json:"start"`
	End   uint64      `json:"end"`
	Lines []GuestLine `json:"lines"` // by address
}

// GuestLine is where the machine code of a source line begins.
type GuestLine struct {
	Addr uint64 `json:"addr"`
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// marker has slots traced from outside the guest. It is nil where nobody traces.
type marker struct{ slots int }

// tracedSlots are how many slots a bulk has traced at most until one has the shortest window:
// a tick of the timer may fall into the only such one.
const tracedSlots = 8

// trace has slots of a measurement traced until the shortest window of one is as short as the
// shortest of all. It counts them in b like others.
func (m *marker) trace(ctx context.Context, arm *redirect.Measurement, b *BulkCount) error {
	if m == nil {
		return nil
	}
	for i := range tracedSlots {
		// QEMU logs all of a slot, whose first window often takes some instructions more. Of a socket's packets each second window
		// does, too: slots of one length would begin with the same one each time, as each begins at a timer.
		arm.Shorten(2 + i%2)
		span, ok, err := m.slot(ctx, arm)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		b.add(span)
		if float64(slices.Min(span.Windows))/float64(span.Window) == *b.Instructions {
			b.Traced = &Traced{Slot: m.slots - 1}
			return nil
		}
	}
	b.Untraced = fmt.Sprintf("none of %d slots has a window as short as the shortest", tracedSlots)
	return nil
}

// wireTraced is how many frames a traced slot of wires has: 16 windows in the middle of polls.
const wireTraced = 512

// traceWires has slots of a chain over wires traced until of one that has windows as long as most have. It counts them in b
// like others.
func (m *marker) traceWires(ctx context.Context, chain *redirect.WireChain, b *BulkCount) error {
	if b.Instructions == nil {
		b.Untraced = fmt.Sprintf("bursts of %d are not whole polls of %d, and have no windows", b.Bulk, poll)
		return nil
	}
	for range tracedSlots {
		var span redirect.Span
		slot, err := m.run(func() (err error) {
			span, err = chain.Send(ctx, b.Bulk, wholeBursts(wireTraced, b.Bulk))
			return err
		})
		if errors.Is(err, rounds.ErrDisagree) {
			continue
		}
		if err != nil {
			return err
		}
		b.Sent, b.Redirected, b.Received = b.Sent+span.Sent, b.Redirected+span.Redirected, b.Received+span.Received
		t := &Traced{Slot: slot}
		for i, n := range span.Windows {
			if !inMiddle(i) {
				continue
			}
			t.Middle++
			if float64(n)/float64(span.Window) == *b.Instructions {
				t.Usual++
			}
		}
		if t.Usual >= leastUsual {
			b.Traced = t
			return nil
		}
	}
	b.Untraced = fmt.Sprintf("none of %d slots has %d windows of as many instructions as most have", tracedSlots, leastUsual)
	return nil
}

// leastUsual is how many windows of a slot of wires have to take as many instructions as most do.
const leastUsual = 4

// slot measures a slot between two marks.
func (m *marker) slot(ctx context.Context, arm *redirect.Measurement) (span redirect.Span, ok bool, err error) {
	_, err = m.run(func() error {
		span, ok, err = arm.Span(ctx)
		return err
	})
	if errors.Is(err, rounds.ErrDisagree) {
		return span, false, nil
	}
	return span, ok, err
}

// describe tells of the code that is loaded, for the bulks that were traced since. table, which may be nil, has the symbols
// of modules and of the dispatcher: to read all of them again takes 600 million instructions.
func (m *marker) describe(got *Measurement, table *ksym.Table) error {
	if m == nil {
		return nil
	}
	c, named, err := programs()
	if err != nil {
		return fmt.Errorf("describe the guest's code: %w", err)
	}
	if table == nil || !named {
		c.Symbols = nil
		symbols, err := ksym.Select(func(_, module []byte) bool { return len(module) > 0 })
		if err != nil {
			return fmt.Errorf("describe the guest's code: %w", err)
		}
		c.add(symbols)
	} else {
		for _, module := range table.Modules() {
			c.add(slices.DeleteFunc(table.Module(module), func(s ksym.Symbol) bool { return functions.Program(s.Name) != "" }))
		}
	}
	slices.SortFunc(c.Symbols, func(a, b GuestSymbol) int { return cmp.Compare(a.Addr, b.Addr) })
	got.Codes = append(got.Codes, c)
	for i := range got.Bulks {
		if t := got.Bulks[i].Traced; t != nil && t.Code == 0 {
			t.Code = len(got.Codes)
		}
	}
	return nil
}

// add adds those of symbols that are functions.
func (c *GuestCode) add(symbols []ksym.Symbol) {
	for _, s := range symbols {
		if s.Text() {
			c.Symbols = append(c.Symbols, GuestSymbol{s.Addr, s.Size, s.Name})
		}
	}
}

// programs are the functions of all BPF programs that are loaded, as far as they have lines. named tells that each
// program has one function, whose name is known then.
func programs() (c GuestCode, named bool, err error) {
	named = true
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			if errors.Is(err, unix.ENOENT) {
				return c, named, nil
			}
			return c, false, err
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // it is gone
		}
		info, err := kernel.ProgramInfo(p)
		if err == nil {
			c.Programs = append(c.Programs, linesOf(info)...)
			symbol, ok := programSymbol(info)
			c.Symbols, named = append(c.Symbols, symbol), named && ok
		}
		if err := errors.Join(err, p.Close()); err != nil {
			return c, false, err
		}
	}
}

// programSymbol is the symbol of a program of one function, as bpf_get_prog_name in kernel/bpf/core.c makes it. Those of
// several functions have tags that only the kernel tells.
func programSymbol(info *ebpf.ProgramInfo) (s GuestSymbol, ok bool) {
	starts, _ := info.JitedKsymAddrs()
	lengths, _ := info.JitedFuncLens()
	if len(starts) != 1 || len(lengths) != 1 {
		return s, false
	}
	name := info.Name
	if of, err := kernel.FuncInfos(info); err == nil && len(of) == 1 {
		name = of[0].Func.Name
	}
	return GuestSymbol{uint64(starts[0]), uint64(lengths[0]), fmt.Sprintf("bpf_prog_%s_%s", info.Tag, name)}, true
}

func linesOf(info *ebpf.ProgramInfo) (all []GuestProgram) {
	starts, ok := info.JitedKsymAddrs()
	lengths, okLengths := info.JitedFuncLens()
	places, okPlaces := info.JitedLineInfos()
	source, err := kernel.Lines(info)
	if err != nil || !ok || !okLengths || !okPlaces || len(places) != len(source) || len(starts) != len(lengths) {
		return nil
	}
	for i, start := range starts {
		p := GuestProgram{Start: uint64(start), End: uint64(start) + uint64(lengths[i])}
		for j, at := range places {
			if at >= p.Start && at < p.End {
				l := source[j]
				p.Lines = append(p.Lines, GuestLine{at, legible(l.File), l.Number, legible(l.Text)})
			}
		}
		slices.SortStableFunc(p.Lines, func(a, b GuestLine) int { return cmp.Compare(a.Addr, b.Addr) })
		all = append(all, p)
	}
	return all
}

// legible is a text of an object file as a record can have it.
func legible(text string) string { return record.Text(text, maxWords, ' ') }

// checkCodes refuses what no guest can say of its code.
func checkCodes(codes []GuestCode) error {
	for i := range codes {
		for _, s := range codes[i].Symbols {
			if s.Name == "" || printable(s.Name, maxWords) != s.Name {
				return fmt.Errorf("impossible name %.60q", s.Name)
			}
		}
		for _, p := range codes[i].Programs {
			if p.End < p.Start || !slices.IsSortedFunc(p.Lines, func(a, b GuestLine) int { return cmp.Compare(a.Addr, b.Addr) }) {
				return fmt.Errorf("impossible program at %#x", p.Start)
			}
			for _, l := range p.Lines {
				if l.Line < 0 || printable(l.File, maxWords) != l.File || legible(l.Text) != l.Text {
					return fmt.Errorf("impossible line %d of %.60q", l.Line, l.File)
				}
			}
		}
	}
	return nil
}

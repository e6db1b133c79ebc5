package profile

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/stat"
)

// sourceLine is a line of the source of a BPF program.
type sourceLine struct {
	file   string
	number int
}

// lineTime is the time of a source line.
type lineTime struct {
	text string
	// self are the ns of its own machine code, all those with what it calls, by round.
	self, all []float64
	samples   int
}

// lineTable says which source line machine code is of.
type lineTable struct {
	functions []span
	places    []linePlace // in the order of their addresses
}

// span is the machine code of a function.
type span struct{ start, end uint64 }

// linePlace is where the machine code of a source line begins.
type linePlace struct {
	addr uint64
	sourceLine
	text string
}

// readLines reads the lines of programs, as far as the kernel shows them, until ctx ends: an object may have a million.
func readLines(ctx context.Context, programs []*ebpf.Program) (*lineTable, error) {
	t := &lineTable{}
	for _, p := range programs {
		info, err := kernel.ProgramInfo(p)
		if err != nil {
			continue
		}
		lines, err := kernel.Lines(info)
		addrs, ok := info.JitedLineInfos()
		starts, okStarts := info.JitedKsymAddrs()
		lengths, okLengths := info.JitedFuncLens()
		if err != nil || !ok || !okStarts || !okLengths || len(addrs) != len(lines) || len(starts) != len(lengths) {
			continue
		}
		for i := range starts {
			t.functions = append(t.functions, span{uint64(starts[i]), uint64(starts[i]) + uint64(lengths[i])})
		}
		for i, l := range lines {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if l.Number == 0 { // the compiler's own
				continue
			}
			t.places = append(t.places, linePlace{
				addrs[i], sourceLine{shown(l.File), l.Number}, shown(l.Text),
			})
		}
	}
	slices.SortStableFunc(t.places, func(a, b linePlace) int { return cmp.Compare(a.addr, b.addr) })
	return t, nil
}

// shown is a text of an object file as a record can have it.
func shown(text string) string { return record.Text(text, 200, ' ') }

// at is the line that an address is of, nil when that is not known.
func (t *lineTable) at(addr uint64) *linePlace {
	f := slices.IndexFunc(t.functions, func(f span) bool { return f.start <= addr && addr < f.end })
	if f < 0 {
		return nil
	}
	i, found := slices.BinarySearchFunc(t.places, addr, func(p linePlace, addr uint64) int { return cmp.Compare(p.addr, addr) })
	if !found {
		i--
	}
	if i < 0 || t.places[i].addr < t.functions[f].start {
		return nil
	}
	return &t.places[i]
}

// addLine adds a call chain of the packet's work to the line that it comes from: the innermost one of the programs.
func (s *stacks) addLine(chain []uint64, samples int, ns float64) {
	if s.lines == nil {
		return
	}
	for i, addr := range chain {
		if i > 0 {
			addr-- // the call before a return address may be the last of its line
		}
		place := s.lines.at(addr)
		if place == nil {
			continue
		}
		line := s.byLine[place.sourceLine]
		if line == nil {
			line = &lineTime{text: place.text}
			s.byLine[place.sourceLine] = line
		}
		for len(line.all) <= s.round {
			line.self, line.all = append(line.self, 0), append(line.all, 0)
		}
		line.all[s.round] += ns
		line.samples += samples
		if i == 0 {
			line.self[s.round] += ns
		}
		return
	}
}

// readLinesOf makes the samples of a round known by source lines of the chain's program.
func (c *collector) readLinesOf(ctx context.Context, chain *redirect.Chain) (err error) {
	programs, err := chain.Programs()
	if err == nil {
		c.stacks.lines, err = readLines(ctx, programs)
	}
	for _, p := range programs {
		err = errors.Join(err, p.Close())
	}
	return err
}

// maxLines is how many source lines a record holds.
const maxLines = record.MaxSourceLines

// lines are those that took time or ran, in the order of the source.
func (v view) lines() []record.ProfileLine {
	var out []record.ProfileLine
	each := func(perRound []float64) *stat.Quantity {
		ns := make([]float64, len(v.Rounds))
		for i := range min(len(ns), len(perRound)) {
			ns[i] = perRound[i] / float64(v.Rounds[i].Packets) * v.work
		}
		return v.mean(ns)
	}
	index := map[sourceLine]int{}
	for at, line := range v.Lines {
		index[at] = len(out)
		out = append(out, record.ProfileLine{
			File: at.file, Line: at.number, Text: line.text, Samples: line.samples, Ns: each(line.all), Self: each(line.self),
		})
	}
	for _, r := range v.LineRuns {
		if r.Runs == 0 {
			continue
		}
		runs := r.Runs
		at := sourceLine{shown(r.File), r.Line}
		i, known := index[at]
		if !known {
			i, index[at] = len(out), len(out)
			out = append(out, record.ProfileLine{File: at.file, Line: at.number, Text: shown(r.Text), Ns: each(nil), Self: each(nil)})
		}
		out[i].Runs = &runs
	}
	slices.SortFunc(out, func(a, b record.ProfileLine) int { return cmp.Compare(b.Ns.Median, a.Ns.Median) })
	out = out[:min(len(out), maxLines)]
	slices.SortFunc(out, func(a, b record.ProfileLine) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out
}

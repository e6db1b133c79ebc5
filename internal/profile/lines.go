package profile

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"unicode"

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

// readLines reads the lines of programs, as far as the kernel shows them.
func readLines(programs []*ebpf.Program) *lineTable {
	t := &lineTable{}
	for _, p := range programs {
		info, err := p.Info()
		if err != nil {
			continue
		}
		lines, err := kernel.LineInfos(info)
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
			if l.Line.LineNumber() == 0 { // the compiler's own
				continue
			}
			t.places = append(t.places, linePlace{
				addrs[i], sourceLine{shown(l.Line.FileName()), int(l.Line.LineNumber())}, shown(l.Line.Line()),
			})
		}
	}
	slices.SortStableFunc(t.places, func(a, b linePlace) int { return cmp.Compare(a.addr, b.addr) })
	return t
}

// shown is a text of an object file as a record can have it.
func shown(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	const most = 200
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most])
	}
	return strings.TrimSpace(text)
}

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
func (c *collector) readLinesOf(chain *redirect.Chain) (err error) {
	programs, err := chain.Programs()
	c.stacks.lines = readLines(programs)
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
	for at, line := range v.Lines {
		out = append(out, record.ProfileLine{
			File: at.file, Line: at.number, Text: line.text, Samples: line.samples, Ns: each(line.all), Self: each(line.self),
		})
	}
	for _, r := range v.LineRuns {
		if r.Runs == 0 {
			continue
		}
		runs := r.Runs
		file := shown(r.File)
		i := slices.IndexFunc(out, func(l record.ProfileLine) bool { return l.File == file && l.Line == r.Line })
		if i < 0 {
			out = append(out, record.ProfileLine{File: file, Line: r.Line, Text: shown(r.Text), Ns: each(nil), Self: each(nil)})
			i = len(out) - 1
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

package progcost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/lines"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/prog"
)

// Lines is what the lines of a program are measured by.
type Lines struct {
	// Timed is the program as it was timed, Counted a copy with counters, which Counters reads.
	Timed, Counted *program.Opened
	Counters       *lines.Counters
	// CPU is the core under test, Apart as of [Plan]. Length is how long samples are taken.
	CPU    int
	Apart  bool
	Length time.Duration
	// Ns is what all packets cost together, in ns a packet; 0 when there is no such number.
	Ns float64
}

// line is a line of a function of a program.
type line struct {
	program, function, file string
	number                  uint32
}

// Measure says of each source line that ran how often it did a packet, counted in the copy, and what of
// the ns of a packet it took, sampled while the timed program is replayed once more. What lacks
// is a warning.
func (l Lines) Measure(ctx context.Context, packets *prog.Packets, opts prog.Options) ([]record.CostLine, []string, error) {
	var counted map[line]record.CostLine
	err := onCPU(l.CPU, l.Apart, func() (err error) {
		counted, err = l.count(ctx, packets, opts)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("count lines: %w", err)
	}
	var warns []string
	samples, err := l.sample(ctx, packets, opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		warns = append(warns, fmt.Sprintf("lines have no ns: %v", err))
	}
	all := 0
	for _, n := range samples {
		all += n
	}
	if err == nil && all < fewestSamples { // of cold runs nearly all time is in the walk before them
		warns = append(warns, fmt.Sprintf("lines have no ns: %d samples were in the program, %d are needed", all, fewestSamples))
		samples = nil
	}
	for k, n := range samples {
		if counted[k].Line == 0 {
			counted[k] = k.record()
		}
		c := counted[k]
		c.Sampled = n
		if l.Ns > 0 {
			ns := l.Ns * float64(n) / float64(all)
			c.Ns = &ns
		}
		counted[k] = c
	}
	var out []record.CostLine
	for _, c := range counted {
		if c.Runs > 0 || c.Sampled > 0 {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b record.CostLine) int {
		return cmp.Or(strings.Compare(a.Program, b.Program), strings.Compare(a.File, b.File), a.Line-b.Line,
			strings.Compare(a.Function, b.Function))
	})
	if len(out) > record.MaxCostLines {
		warns = append(warns, fmt.Sprintf("of %d lines the first %d are kept", len(out), record.MaxCostLines))
		out = out[:record.MaxCostLines]
	}
	return out, warns, nil
}

// record is a line that nothing was counted of yet. Its names are those of an object file's.
func (k line) record() record.CostLine {
	return record.CostLine{
		Program: record.Sentence(k.program), Function: record.Sentence(k.function), File: record.Text(k.file, maxLineText, '?'),
		Line: int(k.number),
	}
}

// count runs each packet through the copy, after a pass that fills its maps as packets do.
func (l Lines) count(ctx context.Context, packets *prog.Packets, opts prog.Options) (map[line]record.CostLine, error) {
	m := l.Counted.Maps[lines.MapName]
	pass := func() (all []lines.Count, runs uint64, err error) {
		replay, err := prog.New(ctx, packets, opts, prog.Program{Name: l.Counted.Name, Loaded: l.Counted.Program})
		if err != nil {
			return nil, 0, err
		}
		if err := replay.Close(); err != nil {
			return nil, 0, err
		}
		if runs, err = l.Counters.Runs(m, l.Counted.Name); err != nil {
			return nil, 0, err
		}
		all, err = l.Counters.Read(m)
		return all, runs, err
	}
	before, began, err := pass()
	if err != nil {
		return nil, err
	}
	after, ended, err := pass()
	if err != nil {
		return nil, err
	}
	if ended == began {
		return nil, errors.New("the copy with counters did not run")
	}
	counted := map[line]record.CostLine{}
	for i, c := range after {
		k := line{c.Program, c.Function, filepath.Base(c.File), c.Line}
		row := k.record()
		row.Text, row.Runs = record.Text(c.Text, maxLineText, '?'), float64(c.Runs-before[i].Runs)/float64(ended-began)
		counted[k] = row
	}
	return counted, nil
}

// maxLineText is how much of a source line is kept, in characters.
const maxLineText = 160

// fewestSamples is how many make ns of lines: a share of a half is then right within 0.1, in 95 of 100 runs.
const fewestSamples = 100

// sampleRate is in Hz.
const sampleRate = 10_000

// sample says how many samples hit each line of the timed program, or what the line called. It must not be called
// while a program is timed.
func (l Lines) sample(ctx context.Context, packets *prog.Packets, opts prog.Options) (map[line]int, error) {
	code, err := readCode(l.Timed)
	if err != nil {
		return nil, err
	}
	hits := map[line]int{}
	err = onCPU(l.CPU, l.Apart, func() (err error) {
		replay, err := prog.New(ctx, packets, opts, prog.Program{Name: l.Timed.Name, Loaded: l.Timed.Program})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, replay.Close()) }()
		all := make([]int, len(packets.Frames))
		for i := range all {
			all[i] = i
		}
		if err := replay.SetRows([]prog.Row{{Name: "all", Packets: all}}); err != nil {
			return err
		}
		event, err := perf.Best(l.CPU)
		if err != nil {
			return err
		}
		sampler, err := perf.NewSampler(event, l.CPU, sampleRate)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sampler.Close()) }()
		if err := sampler.Start(); err != nil {
			return err
		}
		for end := time.Now().Add(l.Length); time.Now().Before(end); {
			// The ring is emptied before it is full.
			if _, err := replay.Round(ctx, 200*time.Millisecond); err != nil {
				return err
			}
			sampler.Read(func(s *perf.Sample) {
				if k, ok := code.line(s.Chain); ok {
					hits[k]++
				}
			})
		}
		return sampler.Stop()
	})
	if err == nil && len(hits) == 0 {
		err = errors.New("no sample was in the program")
	}
	return hits, err
}

// code says which line machine code is of: places in memory, in order.
type code []span

// span is the machine code of a line, from an address up to that of the next.
type span struct {
	at uint64
	line
	none bool // between functions
}

// readCode reads which machine code a program has, and the programs that it calls by tail calls.
func readCode(o *program.Opened) (code, error) {
	var c code
	for _, p := range append([]*ebpf.Program{o.Program}, o.TailCalls()...) {
		info, err := kernel.ProgramInfo(p)
		if err != nil {
			return nil, fmt.Errorf("read about the program: %w", err)
		}
		if err := c.add(info); err != nil {
			return nil, err
		}
	}
	// Where one function ends another may begin: what begins counts.
	slices.SortStableFunc(c, func(a, b span) int {
		if a.at == b.at && a.none != b.none {
			if a.none {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	return c, nil
}

// add adds the machine code of a program.
func (c *code) add(info *ebpf.ProgramInfo) error {
	starts, ok := info.JitedKsymAddrs()
	lengths, okLengths := info.JitedFuncLens()
	places, okPlaces := info.JitedLineInfos()
	source, err := kernel.Lines(info)
	if err != nil || !ok || !okLengths || !okPlaces || len(places) != len(source) || len(starts) != len(lengths) {
		return errors.New("the kernel does not show which machine code is of which line")
	}
	functions, err := kernel.FuncInfos(info)
	if err != nil || len(functions) == 0 || functions[0].Func == nil {
		return errors.New("the kernel does not show which functions the program has")
	}
	next := 0
	var in *btf.Func
	for i, at := range places {
		for next < len(functions) && functions[next].Offset <= source[i].Offset {
			in = functions[next].Func
			next++
		}
		if source[i].Number == 0 {
			continue // the compiler's own
		}
		k := line{functions[0].Func.Name, "", filepath.Base(source[i].File), uint32(source[i].Number)}
		if in != nil {
			k.function = in.Name
		}
		*c = append(*c, span{at: at, line: k})
	}
	for i, start := range starts {
		*c = append(*c, span{at: uint64(start) + uint64(lengths[i]), none: true})
	}
	return nil
}

// line finds the line of a chain of addresses, the innermost first: where the CPU was, or from where
// what runs was called.
func (c code) line(chain []uint64) (line, bool) {
	for i, at := range chain {
		if i > 0 {
			at-- // a return address is behind the call
		}
		n, found := slices.BinarySearchFunc(c, at, func(s span, at uint64) int { return cmp.Compare(s.at, at) })
		if !found {
			n--
		}
		for n >= 0 && n+1 < len(c) && c[n+1].at == c[n].at {
			n++
		}
		if n >= 0 && !c[n].none {
			return c[n].line, true
		}
	}
	return line{}, false
}

// OpenCounted opens an object's program once more, with counters in it.
func OpenCounted(ctx context.Context, t program.Target, o program.Options) (*program.Opened, *lines.Counters, error) {
	var counters *lines.Counters
	o.Change = func(spec *ebpf.CollectionSpec) (changed *ebpf.CollectionSpec, err error) {
		changed, counters, err = lines.Instrument(spec)
		return changed, err
	}
	opened, err := t.Open(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("load a copy with counters of lines: %w", err)
	}
	return opened, counters, nil
}

// LinesLength is how long the lines of a run are sampled: a fifth of the run, and half a second at least.
func LinesLength(s rounds.Schedule) time.Duration { return max(s.Duration/5, 500*time.Millisecond) }

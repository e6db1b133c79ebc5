package lab

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/trace"
)

// run has what f does traced from outside, between two marks. It returns the number of the slot.
func (m *marker) run(f func() error) (slot int, err error) {
	m.slots++
	if err := unix.Sethostname([]byte("unthunk")); err != nil {
		return 0, fmt.Errorf("mark the beginning of a trace: %w", err)
	}
	err = f()
	if mark := unix.Setdomainname([]byte("unthunk")); mark != nil && err == nil {
		err = fmt.Errorf("mark the end of a trace: %w", mark)
	}
	return m.slots - 1, err
}

// programRun is what a run of a packet executed between its time stamps, by function, branch and line.
type programRun struct {
	own, with map[string]int64
	branches  map[record.LabTraceBranch]int64 // without Times
	lines     map[record.LabTraceLine]int64   // without Executed
}

// programTrees cuts the runs that a guest says were traced, the null program's first.
func (t *tracer) programTrees(ctx context.Context, m *Measurement) (runs []programRun, err error) {
	t.images.work.Lock()
	defer t.images.work.Unlock()
	t.named = make(map[int]bool)
	if len(m.Program.Traced) > 0 && len(m.Codes) != 1 {
		return nil, fmt.Errorf("trace: the guest describes its code %d times", len(m.Codes))
	}
	for _, traced := range m.Program.Traced {
		slot, err := t.slotOf(traced.Slot)
		if err == nil {
			err = slot.err
		}
		if err != nil {
			return nil, fmt.Errorf("trace packet %d: %w", traced.Packet+1, err)
		}
		if n := slot.Lengths()[0]; uint64(n) != traced.Ns {
			return nil, fmt.Errorf("trace packet %d: %d instructions up to the next time stamp, but %d by the guest's clock: a program "+
				"that takes time stamps itself is not traced", traced.Packet+1, n, traced.Ns)
		}
		w, err := slot.Unpack(ctx, int(traced.Ns))
		if err != nil {
			return nil, fmt.Errorf("trace packet %d: %w", traced.Packet+1, err)
		}
		name, err := t.namer(&m.Codes[0])
		if err != nil {
			return nil, err
		}
		tree, err := trace.Cut(ctx, w, trace.Options{Code: slot.code, Name: name})
		if err != nil {
			return nil, err
		}
		run := programRun{own: map[string]int64{}, with: map[string]int64{}, branches: map[record.LabTraceBranch]int64{},
			lines: map[record.LabTraceLine]int64{}}
		functions, _, err := tree.Functions(ctx, func([]string, bool) string { return programStage })
		if err != nil {
			return nil, err
		}
		for _, f := range functions {
			run.own[f.Name], run.with[f.Name] = int64(f.Own), int64(f.With)
		}
		for _, br := range tree.Branches {
			run.branches[record.LabTraceBranch{Function: br.Function, Offset: br.Offset, Jump: br.Jump, Target: br.Entered}] += int64(br.Executed)
		}
		lines, err := m.Codes[0].lines(ctx, w, name)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			executed := int64(l.Executed)
			l.Executed = 0
			run.lines[l] += executed
		}
		if err := t.images.traces.Take(64*len(run.own) + 128*len(run.branches) + 160*len(run.lines)); err != nil {
			return nil, fmt.Errorf("trace packet %d: %w", traced.Packet+1, err)
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// programStage is the stage of what a program of the user's executes.
const programStage = "program"

// addTrace adds to a row of a program in which functions and lines its instructions are executed, less those of the null
// program. What a program begins and ends with, as the null program does, is taken off the program's own function. A row
// with a packet that is like none of those traced gets none.
func (c *CellResult) addTrace(row *record.LabRow, m progcount.Row) {
	if len(c.traces) == 0 {
		return
	}
	own, with := map[string]int64{}, map[string]int64{}
	branches, lines := map[record.LabTraceBranch]int64{}, map[record.LabTraceLine]int64{}
	var sum int64
	times := make([]int64, len(c.traces)) // that a run stands for a packet
	for _, i := range m.Of {
		stands := c.Program.Stands[i]
		if stands == 0 || stands >= len(c.traces) {
			return
		}
		times[0]--
		times[stands]++
		sum += c.Program.Instructions[i]
	}
	for i, run := range c.traces {
		addTimes(own, run.own, times[i])
		addTimes(with, run.with, times[i])
		addTimes(branches, run.branches, times[i])
		addTimes(lines, run.lines, times[i])
	}
	t := &record.LabTrace{Packets: len(m.Of), Executed: uint64(max(sum, 0))}
	settle(own, with, "bpf_prog_"+c.Program.Tag)
	for name, n := range own {
		t.Functions = append(t.Functions, record.LabTraceFunction{Function: name, Stage: programStage, Executed: uint64(n),
			Inclusive: uint64(min(max(with[name], n), sum))})
	}
	calls := 0.0
	for b, n := range branches {
		b.Times = uint64(max(n, 0))
		t.Branches = append(t.Branches, b)
		per := float64(n) / float64(len(m.Of))
		calls += per
		row.Sites = append(row.Sites, record.LabSite{Function: b.Function, Offset: b.Offset, Jump: b.Jump, Stage: programStage,
			Target: b.Target, PerPacket: per})
	}
	for l, n := range lines {
		l.Executed = uint64(max(n, 0))
		t.Lines = append(t.Lines, l)
	}
	slices.SortFunc(t.Functions, func(a, b record.LabTraceFunction) int {
		return cmp.Or(cmp.Compare(b.Executed, a.Executed), cmp.Compare(a.Function, b.Function))
	})
	slices.SortFunc(t.Branches, func(a, b record.LabTraceBranch) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Target, b.Target))
	})
	slices.SortFunc(row.Sites, func(a, b record.LabSite) int {
		return cmp.Or(cmp.Compare(b.PerPacket, a.PerPacket), cmp.Compare(a.Function, b.Function), cmp.Compare(a.Offset, b.Offset))
	})
	slices.SortFunc(t.Lines, func(a, b record.LabTraceLine) int {
		return cmp.Or(cmp.Compare(a.Program, b.Program), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	row.Trace, row.CallsPerPacket = t, &calls
}

// addTimes adds to a sum what one run has, so many times.
func addTimes[K comparable](sum, run map[K]int64, times int64) {
	for k, n := range run {
		if sum[k] += n * times; sum[k] == 0 {
			delete(sum, k)
		}
	}
}

// settle takes what is below 0, which the null program has, off the program's own function: each program is entered and
// returned from.
func settle(own, with map[string]int64, program string) {
	var below int64
	at := ""
	for _, name := range slices.Sorted(maps.Keys(own)) {
		switch n := own[name]; {
		case n < 0:
			below += n
			delete(own, name)
			delete(with, name)
		case strings.HasPrefix(name, program) || at == "":
			at = name
		}
	}
	if below == 0 || at == "" {
		return
	}
	if own[at] += below; own[at] <= 0 {
		delete(own, at)
	}
}

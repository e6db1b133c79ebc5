package compare

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
)

// LabTrace is what two rows of lab differ in, by function and by stage: where the instructions
// are that one has more than the other. The differences add up to that of the rows. It is nil
// unless both rows have a trace.
//
// Functions are the same when the table of package functions says that one name is another's
// old one. Where only one of the two kernels has a function that compilers put into its
// caller, the two are taken together.
func LabTrace(old, new *record.LabRow) *record.LabTraceChange {
	if old.Trace == nil || new.Trace == nil {
		return nil
	}
	c := &record.LabTraceChange{Old: old.Name, New: new.Name, Functions: []record.LabTraceDifference{},
		Stages: []record.LabTraceDifference{}}
	c.Was, c.Is = old.Trace.PerPacket(old.Trace.Executed), new.Trace.PerPacket(new.Trace.Executed)
	c.Difference = c.Is - c.Was

	groups := make(map[string]*traceGroup)
	gather(groups, old.Trace, 0)
	gather(groups, new.Trace, 1)
	gatherCallers(groups, old.Trace, 0)
	gatherCallers(groups, new.Trace, 1)
	join(groups)
	for _, g := range groups {
		if d := g.difference(); d.Difference != 0 || d.Was != "" {
			c.Functions = append(c.Functions, d)
		} else {
			c.Same++
		}
	}
	sortDifferences(c.Functions)

	stages := make(map[string]*traceGroup)
	for side, t := range []*record.LabTrace{old.Trace, new.Trace} {
		for _, f := range t.Functions {
			g := groupOf(stages, f.Stage)
			g.sums[side] += t.PerPacket(f.Executed)
			g.names[side][f.Stage] = true
		}
	}
	for name, g := range stages {
		d := g.difference()
		d.Name, d.Was, d.Caller = name, "", ""
		c.Stages = append(c.Stages, d)
	}
	slices.SortFunc(c.Stages, func(a, b record.LabTraceDifference) int {
		return cmp.Or(cmp.Compare(functions.Stage(a.Name).Order(), functions.Stage(b.Name).Order()), strings.Compare(a.Name, b.Name))
	})
	return c
}

// maxChanges bounds what the differences of traces have in all in a saved record, in bytes, of which a function or a stage has about
// eachDifference and its texts.
const (
	maxChanges     = 16 << 20
	eachDifference = 160
)

// LabTraces adds to a record the differences of rows that have a trace: of each kernel against the one before it, and of each command
// line against the first, all else alike. Those of two rows that it has already stay as they are. It ends with ctx, and with a warning
// where they would be more than 16 MiB or 10 000.
func LabTraces(ctx context.Context, l *record.Lab) {
	known, size, left := make(map[[2]string]record.LabTraceChange), 0, 0
	for _, c := range l.TraceChanges {
		known[[2]string{c.Old, c.New}] = c
		size += sizeOfChange(&c)
	}
	room := record.MaxRows - len(known)
	l.TraceChanges = nil
	for _, pair := range tracedPairs(l.Rows) {
		c, ok := known[[2]string{pair[0].Name, pair[1].Name}]
		switch {
		case ok:
		case ctx.Err() != nil:
			continue
		case left > 0 || room == 0:
			left++
			continue
		default:
			c = *LabTrace(pair[0], pair[1])
			if size += sizeOfChange(&c); size > maxChanges {
				left++
				continue
			}
			room--
		}
		l.TraceChanges = append(l.TraceChanges, c)
	}
	if left > 0 {
		l.Warn("", fmt.Sprintf("traces of %d pairs of rows are not compared: a record has at most %d differences, of %d MiB in all", left,
			record.MaxRows, maxChanges>>20))
	}
}

// sizeOfChange is about what a difference takes in a saved record, in bytes.
func sizeOfChange(c *record.LabTraceChange) (size int) {
	for _, ds := range [][]record.LabTraceDifference{c.Functions, c.Stages} {
		for i := range ds {
			size += eachDifference + len(ds[i].Name) + len(ds[i].Was) + len(ds[i].Caller)
		}
	}
	return size
}

// alike are rows that differ in one label only, as far as later ones are compared with them: one, and the nearest to it with
// another value of the label.
type alike struct{ row, other *record.LabRow }

// against is the row to compare with: one with another value of the label, or nil.
func (a alike) against(row *record.LabRow, label string) *record.LabRow {
	if a.row == nil || a.row.Labels[label] != row.Labels[label] {
		return a.row
	}
	return a.other
}

// tracedPairs are the rows that [LabTraces] compares, the old one first.
func tracedPairs(rows []record.LabRow) (pairs [][2]*record.LabRow) {
	// The last row of each kernel, and the first of each command line.
	last, first := make(map[string]alike), make(map[string]alike)
	add := func(before, row *record.LabRow) {
		if before != nil && before.Trace != nil && row.Trace != nil {
			pairs = append(pairs, [2]*record.LabRow{before, row})
		}
	}
	for i := range rows {
		row := &rows[i]
		kernels, lines := alikeBut(row, "kernel"), alikeBut(row, "append")
		before := last[kernels].against(row, "kernel")
		add(before, row)
		last[kernels] = alike{row, before}
		was := first[lines]
		add(was.against(row, "append"), row)
		switch {
		case was.row == nil:
			first[lines] = alike{row: row}
		case was.other == nil && was.row.Labels["append"] != row.Labels["append"]:
			first[lines] = alike{was.row, row}
		}
	}
	return pairs
}

// alikeBut is the same text for rows that differ in one label only.
func alikeBut(row *record.LabRow, label string) string {
	labels := maps.Clone(row.Labels)
	delete(labels, label)
	return fmt.Sprintf("%q", labels) // sorted by name
}

// traceGroup is what functions that are the same execute for a packet, before and after.
type traceGroup struct {
	sums  [2]float64
	names [2]map[string]bool
	// callers are the instructions by what called the functions.
	callers map[string][2]float64
}

func groupOf(groups map[string]*traceGroup, key string) *traceGroup {
	g := groups[key]
	if g == nil {
		g = &traceGroup{names: [2]map[string]bool{{}, {}}, callers: make(map[string][2]float64)}
		groups[key] = g
	}
	return g
}

// gather sums up a trace by the newest names of its functions.
func gather(groups map[string]*traceGroup, t *record.LabTrace, side int) {
	for _, f := range t.Functions {
		if f.Executed == 0 {
			continue
		}
		name := shortest(f.Function)
		g := groupOf(groups, groupKey(name))
		g.sums[side] += t.PerPacket(f.Executed)
		g.names[side][name] = true
	}
}

// gatherCallers sums up the chains of calls of a trace by the functions that called the innermost ones.
func gatherCallers(groups map[string]*traceGroup, t *record.LabTrace, side int) {
	for _, s := range t.Stacks {
		if len(s.Frames) < 2 {
			continue
		}
		g, caller := groups[groupKey(shortest(s.Frames[len(s.Frames)-1]))], shortest(s.Frames[len(s.Frames)-2])
		if g == nil {
			continue
		}
		sums := g.callers[caller]
		sums[side] += t.PerPacket(s.Executed)
		g.callers[caller] = sums
	}
}

// groupKey is the newest name of a function.
func groupKey(name string) string {
	if known, ok := functions.Find(name); ok {
		return known.Name
	}
	return name
}

// shortest is a function's name without what differs from build to build: what the compiler
// appended, and the tag of a BPF program.
func shortest(symbol string) string {
	if own := functions.Program(symbol); own != "" {
		return own + " [bpf]"
	}
	return functions.Source(symbol)
}

// join takes a function and its caller together where one side only has the function.
func join(groups map[string]*traceGroup) {
	for again := true; again; {
		again = false
		for _, f := range functions.Table() {
			g := groups[f.Name]
			if f.Into == "" || g == nil || (len(g.names[0]) == 0) == (len(g.names[1]) == 0) {
				continue
			}
			caller := callerOf(groups, f)
			if caller == nil || caller == g {
				continue
			}
			for side := range g.sums {
				caller.sums[side] += g.sums[side]
				maps.Copy(caller.names[side], g.names[side])
			}
			for name, sums := range g.callers {
				was := caller.callers[name]
				caller.callers[name] = [2]float64{was[0] + sums[0], was[1] + sums[1]}
			}
			delete(groups, f.Name)
			again = true
		}
	}
}

// callerOf is the group of the caller that a function is put into, or of that one's.
func callerOf(groups map[string]*traceGroup, f functions.Function) *traceGroup {
	for range 8 { // a table that goes round would not end
		into, ok := functions.Find(f.Into)
		if !ok {
			return groups[f.Into]
		}
		if g := groups[into.Name]; g != nil || into.Into == "" {
			return g
		}
		f = into
	}
	return nil
}

func (g *traceGroup) difference() record.LabTraceDifference {
	names := func(side int) string { return strings.Join(slices.Sorted(maps.Keys(g.names[side])), " + ") }
	d := record.LabTraceDifference{Name: cmp.Or(names(1), names(0)), Old: g.sums[0], New: g.sums[1], Difference: g.sums[1] - g.sums[0]}
	if was := names(0); was != d.Name {
		d.Was = was
	}
	d.Caller = g.caller()
	return d
}

// caller is the function that most of the difference comes from, none of the group's own.
func (g *traceGroup) caller() (most string) {
	largest := 0.0
	for _, name := range slices.Sorted(maps.Keys(g.callers)) {
		sums := g.callers[name]
		if d := math.Abs(sums[1] - sums[0]); d > largest && !g.names[0][name] && !g.names[1][name] {
			most, largest = name, d
		}
	}
	return most
}

// sortDifferences puts the largest first.
func sortDifferences(ds []record.LabTraceDifference) {
	slices.SortFunc(ds, func(a, b record.LabTraceDifference) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Difference), math.Abs(a.Difference)), strings.Compare(a.Name, b.Name))
	})
}

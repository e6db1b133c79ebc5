package page

import (
	"context"
	"fmt"
	"io"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// tracedRows are the rows of a record of lab that were traced; l may be nil.
func tracedRows(l *record.Lab) (rows []*record.LabRow) {
	if l == nil {
		return nil
	}
	for i := range l.Rows {
		if l.Rows[i].Trace != nil {
			rows = append(rows, &l.Rows[i])
		}
	}
	return rows
}

// LabFlame writes the flame graph of what a packet executes in the one traced row, as wide as
// the instructions, or the differential one of the two: red functions execute more
// instructions a packet in the second one, blue ones less.
func LabFlame(ctx context.Context, w io.Writer, rows []*record.LabRow) error {
	switch len(rows) {
	case 1:
		g, err := labFlame(ctx, rows[0])
		if err != nil {
			return fmt.Errorf("make flame graph: %w", err)
		}
		t := rows[0].Trace
		return g.file(ctx, w, fmt.Sprintf("%s: %s instructions a packet", cells.Clean(rows[0].Name), stat.Exact(t.PerPacket(t.Executed))))
	case 2:
		g, err := labFlameDifference(ctx, rows[0], rows[1])
		if err != nil {
			return fmt.Errorf("make flame graph: %w", err)
		}
		return g.file(ctx, w, fmt.Sprintf("From %s to %s: instructions a packet", cells.Clean(rows[0].Name), cells.Clean(rows[1].Name)))
	}
	return fmt.Errorf("make flame graph: %s with a trace: it is of one, or of the difference of two", cells.Plural(len(rows), "row"))
}

// labStacks are the chains of calls of a trace as those of a profile, with instructions in
// place of ns.
func labStacks(t *record.LabTrace) *record.Profile {
	p := &record.Profile{}
	for _, s := range t.Stacks {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: s.Frames, Stage: s.Stage, Ns: t.PerPacket(s.Executed)})
	}
	return p
}

func (c indirectCalls) addTrace(t *record.LabTrace) {
	for _, b := range t.Branches {
		c.add(b.Function, []string{b.Target})
	}
}

func labFlame(ctx context.Context, row *record.LabRow) (*flameGraph, error) {
	calls := make(indirectCalls)
	calls.addTrace(row.Trace)
	tree, err := newFlameTree(ctx, labStacks(row.Trace), calls)
	if err != nil {
		return nil, err
	}
	g := newFlameGraph(tree, counted(row.Trace))
	g.unit = "instructions"
	return g, nil
}

func counted(t *record.LabTrace) string {
	return fmt.Sprintf("%d instructions of %d packets, each counted", t.Executed, t.Packets)
}

// labFlameDifference is the differential graph of two traces.
func labFlameDifference(ctx context.Context, old, new *record.LabRow) (*flameGraph, error) {
	calls := make(indirectCalls)
	calls.addTrace(old.Trace)
	calls.addTrace(new.Trace)
	tree, err := newFlameDifference(ctx, labStacks(old.Trace), labStacks(new.Trace), calls)
	if err != nil {
		return nil, err
	}
	g := newFlameGraph(tree, counted(old.Trace)+"; "+counted(new.Trace))
	g.unit, g.differs, g.most = "instructions", true, tree.root.mostChange()
	return g, nil
}

// labFlameBlocks are the flame graphs of traced rows: of the differences of the record, then
// of rows, as many as there is room for.
func (v *viewer) labFlameBlocks(l *record.Lab) (out []block) {
	rows := tracedRows(l)
	if !v.draw || len(rows) == 0 {
		return nil
	}
	const few = 4
	byName := make(map[string]*record.LabRow)
	for _, r := range rows {
		byName[r.Name] = r
	}
	changes := l.TraceChanges[:min(len(l.TraceChanges), few)]
	rows = rows[:min(len(rows), few)]
	most := maxFlames / (2 * (len(rows) + len(changes)))
	for _, c := range changes {
		old, new := byName[c.Old], byName[c.New]
		if old == nil || new == nil {
			continue
		}
		g, err := labFlameDifference(v.ctx, old, new)
		if err != nil {
			v.fail(err)
			return out
		}
		b := block{Heading: fmt.Sprintf("From %s to %s: instructions a packet", cells.Clean(c.Old), cells.Clean(c.New))}
		b.Figure = v.flameFigure(g, b.Heading, most, "Red functions execute more instructions a packet themselves in the second, "+
			"blue ones less; the numbers say how many. Width is the mean of both.")
		out = v.addFlames(out, b)
	}
	for _, r := range rows {
		g, err := labFlame(v.ctx, r)
		if err != nil {
			v.fail(err)
			return out
		}
		b := block{Heading: cells.Clean(r.Name) + ": where its instructions are executed"}
		b.Figure = v.flameFigure(g, b.Heading, most, "Width is instructions a packet, height is calls, a color is the stage of "+
			"the function, ◆ marks what an indirect branch entered.")
		out = v.addFlames(out, b)
	}
	return out
}

// labTraceBlocks are where the instructions of traced rows are executed, and which functions
// make the differences between rows.
func (v *viewer) labTraceBlocks(l *record.Lab) []block {
	out := v.labFlameBlocks(l)
	if changes := l.TraceChanges; len(changes) > 0 {
		t := &table{Caption: "What differs between traces, in instructions a packet", Folded: v.draw, Columns: []column{
			{"from", ""}, {"to", ""}, {"function", ""}, {"old", "n"}, {"new", "n"}, {"difference", "n"}}}
		for i := range changes {
			c := &changes[i]
			for _, d := range c.Functions {
				t.add(c.Old, c.New, d.Name, stat.Exact(d.Old), stat.Exact(d.New), cells.Signed(d.Difference))
			}
			t.add(c.Old, c.New, "all", stat.Exact(c.Was), stat.Exact(c.Is), cells.Signed(c.Difference))
		}
		out = append(out, block{Heading: "Which functions make the differences", Tables: []*table{t}})
	}
	return out
}

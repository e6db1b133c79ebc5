package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// leastCalled is the difference from which on a function's caller is said, in instructions a packet.
const leastCalled = 1

// tracedRows are how many functions of a trace are shown, linesShown how many source lines,
// and differencesShown how many functions of a difference; what the others have is a row.
const (
	tracedRows       = 24
	linesShown       = 40
	differencesShown = 40
)

// labTraces writes where the instructions of the rows are executed that were traced, then
// what differs between rows.
//
// Of several rows the differences are what was asked for: each has its stages only.
func (p *printer) labTraces(l *record.Lab) {
	var rows []*record.LabRow
	for i := range l.Rows {
		// Of a program's classes that of all packets is written; a record has the others.
		if row := &l.Rows[i]; row.Trace != nil && (!cells.OfProgram(row) || row.Labels["class"] == "all") {
			rows = append(rows, &l.Rows[i])
		}
	}
	for _, row := range rows {
		t := row.Trace
		fmt.Fprintln(&p.buf)
		p.wrap("", fmt.Sprintf("%s: where %s instructions a packet are executed%s.", cells.Clean(row.Name),
			stat.Exact(t.PerPacket(t.Executed)), tracedWindows(t)))
		p.labTraceStages(t)
		if len(rows) == 1 {
			p.labTrace(t)
		}
		p.labTraceAnnotated(t)
	}
	for i := range l.TraceChanges {
		fmt.Fprintln(&p.buf)
		p.labTraceChange(&l.TraceChanges[i])
	}
}

// tracedWindows says of which windows a trace is, "" for one of a single window.
func tracedWindows(t *record.LabTrace) string {
	if t.Windows == 0 {
		return ""
	}
	most := 0.0
	for _, f := range t.Functions {
		most = max(most, f.Spread)
	}
	alike := "each function is alike in all of them"
	if most > 0 {
		alike = fmt.Sprintf("a function is within ±%s in each of them", stat.Exact(most))
	}
	return fmt.Sprintf(", in %d of %s within a poll: %s", t.Windows, cells.Plural(t.Among, "window"), alike)
}

// labTraceStages writes a trace by stage.
func (p *printer) labTraceStages(t *record.LabTrace) {
	stages := make(map[string]uint64)
	for _, f := range t.Functions {
		stages[f.Stage] += f.Executed
	}
	var parts []string
	for _, s := range functions.Stages() {
		if n := stages[string(s)]; n > 0 {
			parts = append(parts, string(s)+" "+stat.Exact(t.PerPacket(n)))
		}
	}
	p.wrap("  ", "by stage: "+strings.Join(parts, ", "))
}

// labTrace writes a trace by function and by source line.
func (p *printer) labTrace(t *record.LabTrace) {
	table := newTextTable([]bool{false, false, true, true}, "  ", "  itself", "inclusive", "stage", "function")
	rest, more := uint64(0), 0
	for i, f := range t.Functions {
		if f.Executed == 0 {
			continue
		}
		if i >= tracedRows {
			rest, more = rest+f.Executed, more+1
			continue
		}
		own := "  " + stat.Exact(t.PerPacket(f.Executed))
		if f.Spread > 0 {
			own += " ±" + cells.Few(f.Spread)
		}
		table.add(own, stat.Exact(t.PerPacket(f.Inclusive)), cells.Clean(f.Stage),
			cells.ShortName(cells.Clean(f.Function)))
	}
	if more > 0 {
		table.add("  "+stat.Exact(t.PerPacket(rest)), "", "", cells.Plural(more, "other"))
	}
	p.table(table)
	p.labTraceBranches(t)
	p.labTraceLines(t)
}

// labTraceAnnotated writes the instructions of functions, each with how often a packet
// executes it.
func (p *printer) labTraceAnnotated(t *record.LabTrace) {
	var table [][]string
	function := ""
	for _, a := range t.Annotated {
		if a.Function != function {
			function = a.Function
			table = append(table, []string{"  " + cells.ShortName(cells.Clean(function)) + ":"})
		}
		if a.Source != "" {
			table = append(table, []string{"    " + cells.Clean(a.Source)})
		}
		table = append(table, []string{"  " + stat.Exact(t.PerPacket(a.Times)), fmt.Sprintf("+%#x", a.Offset), cells.Clean(a.Text)})
	}
	for _, line := range columns(table, []bool{false, false, true}, "  ") {
		p.line(line)
	}
}

// labTraceBranches writes the indirect branches of a trace with what they entered.
func (p *printer) labTraceBranches(t *record.LabTrace) {
	if len(t.Branches) == 0 {
		return
	}
	p.wrap("  ", "indirect branches, and what each entered:")
	var table [][]string
	for _, b := range t.Branches {
		table = append(table, []string{"  " + stat.Exact(t.PerPacket(b.Times)),
			fmt.Sprintf("%s+%#x", cells.ShortName(cells.Clean(b.Function)), b.Offset), cells.ShortName(cells.Clean(b.Target))})
	}
	for _, line := range columns(table, []bool{false, true, true}, "") {
		p.line(line)
	}
}

// labTraceLines writes the source lines of programs, those with the most instructions.
func (p *printer) labTraceLines(t *record.LabTrace) {
	if len(t.Lines) == 0 {
		return
	}
	lines := slices.Clone(t.Lines)
	slices.SortStableFunc(lines, func(a, b record.LabTraceLine) int { return cmp.Compare(b.Executed, a.Executed) })
	rest := uint64(0)
	for _, l := range lines[min(len(lines), linesShown):] {
		rest += l.Executed
	}
	p.wrap("  ", "source lines of programs:")
	var table [][]string
	for _, l := range lines[:min(len(lines), linesShown)] {
		at := fmt.Sprintf("%s:%d", cells.Clean(l.File[strings.LastIndexByte(l.File, '/')+1:]), l.Line)
		table = append(table, []string{"  " + stat.Exact(t.PerPacket(l.Executed)), at, cells.ShortName(cells.Clean(l.Program)),
			cells.Clean(l.Text)})
	}
	if n := len(lines) - linesShown; n > 0 {
		table = append(table, []string{"  " + stat.Exact(t.PerPacket(rest)), cells.Plural(n, "other"), "", ""})
	}
	for _, line := range columns(table, []bool{false, true, true, true}, "") {
		p.line(line)
	}
}

// labTraceChange writes which functions make the difference of two traces.
func (p *printer) labTraceChange(c *record.LabTraceChange) {
	p.wrap("", fmt.Sprintf("From %s to %s: %s instructions a packet.", cells.Clean(c.Old), cells.Clean(c.New), cells.Signed(c.Difference)))
	var parts []string
	for _, s := range c.Stages {
		if s.Difference != 0 {
			parts = append(parts, cells.Clean(s.Name)+" "+cells.Signed(s.Difference))
		}
	}
	if len(parts) > 0 {
		p.wrap("  ", "by stage: "+strings.Join(parts, ", "))
	}
	table := newTextTable([]bool{false, false, false, true}, "  ", "  differs", "old", "new", "function")
	rest := record.LabTraceDifference{}
	for i, d := range c.Functions {
		if i >= differencesShown {
			rest.Old, rest.New, rest.Difference = rest.Old+d.Old, rest.New+d.New, rest.Difference+d.Difference
			continue
		}
		name, others, _ := strings.Cut(cells.Clean(d.Name), " + ")
		table.add("  "+cells.Signed(d.Difference), stat.Exact(d.Old), stat.Exact(d.New), name)
		if others != "" {
			table.below("    ", "with "+others)
		}
		if d.Was != "" {
			table.below("    ", "was "+cells.Clean(d.Was))
		}
		// Whoever knows the path knows who calls its functions.
		if _, ofPath := functions.Find(name); d.Caller != "" && !ofPath && math.Abs(d.Difference) >= leastCalled {
			table.below("    ", "called by "+cells.Clean(d.Caller))
		}
	}
	if n := len(c.Functions) - differencesShown; n > 0 {
		table.add("  "+cells.Signed(rest.Difference), stat.Exact(rest.Old), stat.Exact(rest.New), cells.Plural(n, "other"))
	}
	table.add("  "+cells.Signed(c.Difference), stat.Exact(c.Was), stat.Exact(c.Is),
		fmt.Sprintf("all; without a difference: %d", c.Same))
	p.table(table)
}

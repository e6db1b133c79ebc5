package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// movedFunctions is how many functions a step from one kernel to the next lists; the others are one row.
const movedFunctions = 8

// kernelBlocks are what a packet takes from one kernel to the next: counts of all, and of the first of each architecture and way of
// a packet where they are executed and what moved. Those of the others are folded.
func (v *viewer) kernelBlocks() []block {
	all := v.src.Kernels
	if len(all) == 0 {
		return nil
	}
	counts := block{Tables: []*table{kernelCounts(all)}}
	counts.Text = []string{"Counts of emulated guests, exact to the digit where no ± stands, of all that a packet goes through from the " +
		"generator's call to its end. Instructions are no time: QEMU predicts no branches."}
	var out []block
	seen := make(map[string]bool)
	for i := range all {
		h := &all[i]
		way := h.Arch + " " + h.Scenario()
		first := !seen[way]
		seen[way] = true
		b := block{Heading: kernelTitle(h) + ": by stage, and by place", Folded: v.draw && !first}
		if first && v.draw {
			out = append(out, block{Figure: kernelsFigure(v.id(), h, false)})
		}
		if i == 0 {
			out = append(out, counts)
		}
		for _, bulk := range h.Bulks {
			b.addTables(!first, stageTable(h, bulk))
		}
		b.addTables(!first, placeTable(h))
		if len(b.Tables) > 0 {
			out = append(out, b)
		}
		if moved := movedBlock(h); first && len(moved.Tables) > 0 {
			out = append(out, moved)
		}
	}
	return out
}

// addTables adds tables that are not nil.
func (b *block) addTables(folded bool, tables ...*table) {
	for _, t := range tables {
		if t != nil {
			t.Folded = folded
			b.Tables = append(b.Tables, t)
		}
	}
}

// kernelTitle is what rows share but for the kernel.
func kernelTitle(h *record.LabHistory) string {
	return cells.Clean(cells.Join(", ", h.Arch, strings.ReplaceAll(h.Of, "/", ", ")))
}

// maxBulks is how many bulks the table of all kernels has, and maxRefusals how many reasons stand beneath it.
const maxBulks, maxRefusals = 16, 16

// kernelCounts has a row for each kernel: instructions and indirect branches by bulk.
func kernelCounts(all []record.LabHistory) *table {
	t := &table{Caption: "Instructions and indirect branches a packet, by kernel and bulk",
		Columns: []column{{"kernel", ""}, {"compiler", "w"}}}
	var bulks, remarks []string
	seen := make(map[string]bool)
	older, repeated := 0, 0
	for i := range all {
		for _, bulk := range all[i].Bulks {
			if seen[bulk] {
				continue
			}
			if seen[bulk] = true; len(bulks) < maxBulks {
				bulks = append(bulks, bulk)
				t.Columns = append(t.Columns, column{"bulk " + cells.Clean(bulk), "n"}, column{"branches", "n"})
			}
		}
		older, repeated = older+all[i].Older, repeated+all[i].Repeated
	}
	if n := len(seen) - len(bulks); n > 0 {
		remarks = append(remarks, fmt.Sprintf("%s without a column.", cells.Plural(n, "bulk")))
	}
	if older > 0 {
		remarks = append(remarks, fmt.Sprintf("%s left out.", cells.Plural(older, "older kernel")))
	}
	if repeated > 0 {
		remarks = append(remarks, fmt.Sprintf("%s left out: another has the same kernel and bulk.", cells.Plural(repeated, "count")))
	}
	refusals := make(map[string]bool)
	for i := range all {
		h := &all[i]
		t.group(kernelTitle(h))
		for j := range h.Kernels {
			k := &h.Kernels[j]
			row := k.Any(h.Bulks)
			line := []string{cmp.Or(k.Release, k.Name), row.Compiler()}
			if why := fmt.Sprintf("%s: no number: %s.", line[0], row.Refused); row.Refused != "" && !refusals[why] {
				if refusals[why] = true; len(refusals) <= maxRefusals {
					remarks = append(remarks, cells.Clean(why))
				}
			}
			for _, bulk := range bulks {
				if of := k.Rows[bulk]; of != nil && of.Refused == "" {
					line = append(line, instructionsOf(of), exactOrDash(branchesOf(of)))
				} else {
					line = append(line, "–", "–")
				}
			}
			t.add(line...)
		}
	}
	if n := len(refusals) - maxRefusals; n > 0 {
		remarks = append(remarks, fmt.Sprintf("And %s more without a number.", cells.Plural(n, "kernel")))
	}
	t.Remark = strings.Join(remarks, " ")
	return t
}

// branchesOf is how many indirect branches a packet goes through, nil where they were not counted.
func branchesOf(row *record.LabRow) *float64 {
	all := row.Branches()
	if all == nil {
		return nil
	}
	sum := 0.0
	for _, b := range slices.SortedFunc(maps.Keys(all), compareBranches) { // the same bytes of a sum each time
		sum += all[b]
	}
	return &sum
}

func compareBranches(a, b record.LabBranch) int {
	return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Target, b.Target))
}

// instructionsOf are those of a row; where another boot's may differ, whole ones, and by how many.
func instructionsOf(row *record.LabRow) string {
	if row.Instructions == nil || row.Spread == nil {
		return exactOrDash(row.Instructions)
	}
	return fmt.Sprintf("%.0f ±%s", *row.Instructions, cells.Few(*row.Spread))
}

func exactOrDash(x *float64) string {
	if x == nil {
		return "–"
	}
	return stat.Exact(*x)
}

// kernelColumns are one for each kernel of rows.
func kernelColumns(rows []*record.LabRow) (columns []column) {
	for _, row := range rows {
		columns = append(columns, column{cells.Clean(row.Version()), "n"})
	}
	return columns
}

// stageTable has the instructions of each stage by kernel, nil where nothing was traced.
func stageTable(h *record.LabHistory, bulk string) *table {
	var rows []*record.LabRow
	for i := range h.Kernels {
		if row := h.Kernels[i].Rows[bulk]; row != nil && row.Trace != nil {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	t := &table{Caption: "Instructions a packet by stage, bulk " + cells.Clean(bulk),
		Columns: append([]column{{"stage", ""}}, kernelColumns(rows)...)}
	sums := make(map[string][]float64)
	for i, row := range rows {
		for _, f := range row.Trace.Functions {
			if sums[f.Stage] == nil {
				sums[f.Stage] = make([]float64, len(rows))
			}
			sums[f.Stage][i] += row.Trace.PerPacket(f.Executed)
		}
	}
	var stages []string
	for stage := range sums {
		stages = append(stages, stage)
	}
	slices.SortFunc(stages, func(a, b string) int {
		return cmp.Or(cmp.Compare(functions.Stage(a).Order(), functions.Stage(b).Order()), strings.Compare(a, b))
	})
	for _, stage := range stages {
		line := []string{stage}
		for _, n := range sums[stage] {
			line = append(line, stat.Exact(n))
		}
		t.add(line...)
	}
	line := []string{"all"}
	for _, row := range rows {
		line = append(line, stat.Exact(row.Trace.PerPacket(row.Trace.Executed)))
	}
	t.add(line...)
	return t
}

// placeTable has the indirect branches of each place by kernel, nil where none was counted. A stage is that of the place on the
// first of the kernels that says one: of what it enters, else of its function.
func placeTable(h *record.LabHistory) *table {
	var kernels []*record.LabKernel
	var of []*record.LabRow // one of each kernel
	stages := make(map[record.LabBranch]string)
	for i := range h.Kernels {
		k := &h.Kernels[i]
		for _, bulk := range h.Bulks {
			if row := k.Rows[bulk]; row != nil {
				for _, s := range row.Sites {
					for _, b := range []record.LabBranch{{Function: s.Function, Target: s.Target}, {Function: s.Function}} {
						stages[b] = cmp.Or(stages[b], s.Stage)
					}
				}
			}
		}
		if row := k.Counted(h.Bulks); row != nil {
			kernels, of = append(kernels, k), append(of, row)
		}
	}
	t := &table{Caption: "Indirect branches a packet by stage and place",
		Columns: append([]column{{"bulk", "n"}, {"stage", ""}, {"place", "m"}}, kernelColumns(of)...)}
	for _, bulk := range h.Bulks {
		counts := make([]map[record.LabBranch]float64, len(kernels)) // nil where none were counted
		most := make(map[record.LabBranch]float64)
		for i, k := range kernels {
			if row := k.Rows[bulk]; row != nil {
				counts[i] = row.Branches()
				for b, n := range counts[i] {
					most[b] = max(most[b], n)
				}
			}
		}
		for _, b := range slices.SortedFunc(maps.Keys(most), func(a, b record.LabBranch) int {
			return cmp.Or(cmp.Compare(most[b], most[a]), compareBranches(a, b))
		}) {
			stage := cmp.Or(stages[b], stages[record.LabBranch{Function: b.Function}], string(functions.StageOf(b.Function)))
			line := []string{bulk, stage, cells.Join(" → ", b.Function, b.Target)}
			for _, of := range counts {
				if of == nil {
					line = append(line, "–")
				} else {
					line = append(line, stat.Exact(of[b]))
				}
			}
			t.add(line...)
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

// movedBlock are the functions that make the steps from one kernel to the next, a table for each bulk.
func movedBlock(h *record.LabHistory) block {
	b := block{Heading: kernelTitle(h) + ": which functions moved"}
	for _, bulk := range h.Bulks {
		t := &table{Caption: "Instructions a packet from one kernel to the next, bulk " + cells.Clean(bulk), Columns: []column{
			{"function", "m"}, {"old", "n"}, {"new", "n"}, {"difference", "n"}}}
		for _, step := range h.Steps[bulk] {
			change := step.Change
			change.Shorten(movedFunctions)
			t.group(fmt.Sprintf("%s to %s", step.Old.Version(), step.New.Version()))
			for _, d := range change.Functions {
				name := d.Name
				if d.Was != "" {
					name += ", was " + d.Was
				}
				t.add(name, stat.Exact(d.Old), stat.Exact(d.New), cells.Signed(d.Difference))
			}
			t.add("all", stat.Exact(change.Was), stat.Exact(change.Is), cells.Signed(change.Difference)).Differs = true
		}
		if len(t.Rows) > 0 {
			b.Tables = append(b.Tables, t)
		}
	}
	return b
}

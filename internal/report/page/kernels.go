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

// kernelBlocks are what a packet takes from one kernel to the next: counts of all, and of the first of each architecture where
// they are executed and what moved. Those of the others are folded.
func (v *viewer) kernelBlocks() []block {
	all := v.src.Kernels
	if len(all) == 0 {
		return nil
	}
	counts := block{Tables: []*table{kernelCounts(all)}}
	counts.Text = []string{"Counts of emulated guests, exact to the digit, of all that a packet goes through from the generator's call to " +
		"its end. Instructions are no time: QEMU predicts no branches."}
	var out []block
	seen := make(map[string]bool)
	for i := range all {
		h := &all[i]
		first := !seen[h.Arch]
		seen[h.Arch] = true
		b := block{Heading: kernelTitle(h) + ": by stage, and by place", Folded: v.draw && !first}
		if first && v.draw {
			out = append(out, block{Figure: kernelsFigure(v.id(), h)})
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

// shortRelease is the version of a kernel's release.
func shortRelease(release string) string {
	version, _, _ := strings.Cut(strings.ReplaceAll(release, "+", "-"), "-")
	return version
}

// kernelCounts has a row for each kernel: instructions and indirect branches by bulk.
func kernelCounts(all []record.LabHistory) *table {
	t := &table{Caption: "Instructions and indirect branches a packet, by kernel and bulk",
		Columns: []column{{"kernel", ""}, {"compiler", "w"}}}
	var bulks []string
	for i := range all {
		for _, bulk := range all[i].Bulks {
			if !slices.Contains(bulks, bulk) {
				bulks = append(bulks, bulk)
				t.Columns = append(t.Columns, column{"bulk " + cells.Clean(bulk), "n"}, column{"branches", "n"})
			}
		}
	}
	for i := range all {
		h := &all[i]
		t.group(kernelTitle(h))
		for j := range h.Kernels {
			k := &h.Kernels[j]
			row := k.Any(h.Bulks)
			line := []string{cmp.Or(row.Release, k.Name), row.Compiler()}
			if why := fmt.Sprintf("%s: no number: %s.", line[0], row.Refused); row.Refused != "" && !strings.Contains(t.Remark, why) {
				t.Remark = cells.Join(" ", t.Remark, cells.Clean(why))
			}
			for _, bulk := range bulks {
				if of := k.Rows[bulk]; of != nil && of.Refused == "" {
					line = append(line, exactOrDash(of.Instructions), exactOrDash(branchesOf(of)))
				} else {
					line = append(line, "–", "–")
				}
			}
			t.add(line...)
		}
	}
	return t
}

// branchesOf is how many indirect branches a packet goes through, nil where they were not counted.
func branchesOf(row *record.LabRow) *float64 {
	all := row.Branches()
	if all == nil {
		return nil
	}
	sum := 0.0 // of multiples of a part of two: in whichever order
	for _, n := range all {
		sum += n
	}
	return &sum
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
		columns = append(columns, column{cells.Clean(shortRelease(row.Release)), "n"})
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

// placeTable has the indirect branches of each place by kernel, nil where none was counted. A stage is that of the place on any of
// the kernels.
func placeTable(h *record.LabHistory) *table {
	var kernels []*record.LabKernel
	var of []*record.LabRow // one of each kernel
	stages := make(map[string]string)
	for i := range h.Kernels {
		k := &h.Kernels[i]
		for _, row := range k.Rows {
			for _, s := range row.Sites {
				stages[s.Function] = s.Stage
			}
		}
		if row := k.Any(h.Bulks); row.Refused == "" {
			kernels, of = append(kernels, k), append(of, row)
		}
	}
	t := &table{Caption: "Indirect branches a packet by stage and place",
		Columns: append([]column{{"bulk", "n"}, {"stage", ""}, {"place", "m"}}, kernelColumns(of)...)}
	for _, bulk := range h.Bulks {
		counts := make(map[record.LabBranch][]float64)
		for i, k := range kernels {
			if row := k.Rows[bulk]; row != nil {
				for b, n := range row.Branches() {
					if counts[b] == nil {
						counts[b] = make([]float64, len(kernels))
					}
					counts[b][i] += n
				}
			}
		}
		for _, b := range slices.SortedFunc(maps.Keys(counts), func(a, b record.LabBranch) int {
			return cmp.Or(cmp.Compare(slices.Max(counts[b]), slices.Max(counts[a])), cmp.Compare(a.Function, b.Function),
				cmp.Compare(a.Target, b.Target))
		}) {
			line := []string{bulk, cmp.Or(stages[b.Function], string(functions.StageOf(b.Function))), cells.Join(" → ", b.Function, b.Target)}
			for _, n := range counts[b] {
				line = append(line, stat.Exact(n))
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
			step.Shorten(movedFunctions)
			t.group(fmt.Sprintf("%s to %s", releaseOf(h, bulk, step.Old), releaseOf(h, bulk, step.New)))
			for _, d := range step.Functions {
				name := d.Name
				if d.Was != "" {
					name += ", was " + d.Was
				}
				t.add(name, stat.Exact(d.Old), stat.Exact(d.New), cells.Signed(d.Difference))
			}
			t.add("all", stat.Exact(step.Was), stat.Exact(step.Is), cells.Signed(step.Difference)).Differs = true
		}
		if len(t.Rows) > 0 {
			b.Tables = append(b.Tables, t)
		}
	}
	return b
}

// releaseOf is the version of the kernel of a row.
func releaseOf(h *record.LabHistory, bulk, name string) string {
	for i := range h.Kernels {
		if row := h.Kernels[i].Rows[bulk]; row != nil && row.Name == name {
			return shortRelease(row.Release)
		}
	}
	return name
}

package conclusion

import (
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// OfKernels says what a packet takes on the first and on the last kernel of a history, and where most came or went from one kernel
// to the next of the same compiler: at bulk 16 where that was counted.
func OfKernels(h *record.LabHistory) Headline {
	bulk := h.Bulks[0]
	if slices.Contains(h.Bulks, "16") {
		bulk = "16"
	}
	var rows []*record.LabRow
	most, step := 0.0, ""
	for i := range h.Kernels {
		row := h.Kernels[i].Rows[bulk]
		if row == nil || row.Instructions == nil {
			continue
		}
		if old := row.Precursor(rows); old != nil && row.SameCompiler(old) {
			if d := *row.Instructions - *old.Instructions; max(d, -d) > most {
				most = max(d, -d)
				step = fmt.Sprintf("The largest step of one compiler's is from %s to %s: %+g.", old.Version(), row.Version(), d)
			}
		}
		rows = append(rows, row)
	}
	if len(rows) < 2 {
		return Headline{Title: "Counts of several kernels"}
	}
	first, last := rows[0], rows[len(rows)-1]
	title := fmt.Sprintf("A packet takes %s instructions on Linux %s and %s on %s, at bulk %s",
		stat.Exact(*first.Instructions), first.Version(), stat.Exact(*last.Instructions), last.Version(), bulk)
	return Headline{Title: title, Text: step}
}

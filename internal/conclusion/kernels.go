package conclusion

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// OfKernels says what a packet takes on the first and on the last kernel of a history, and where most came or went between two that one
// compiler built: at bulk 16 where that was counted.
func OfKernels(h *record.LabHistory) Headline {
	bulk := h.Bulks[0]
	if slices.Contains(h.Bulks, "16") {
		bulk = "16"
	}
	var rows []*record.LabRow
	for i := range h.Kernels {
		if row := h.Kernels[i].Rows[bulk]; row != nil && row.Instructions != nil {
			rows = append(rows, row)
		}
	}
	if len(rows) < 2 {
		return Headline{Title: "Counts of several kernels"}
	}
	version := func(r *record.LabRow) string {
		v, _, _ := strings.Cut(strings.ReplaceAll(r.Release, "+", "-"), "-")
		return v
	}
	first, last := rows[0], rows[len(rows)-1]
	title := fmt.Sprintf("A packet takes %s instructions on Linux %s and %s on %s, at bulk %s",
		stat.Exact(*first.Instructions), version(first), stat.Exact(*last.Instructions), version(last), bulk)
	most, step := 0.0, ""
	for i := 1; i < len(rows); i++ {
		if rows[i].Compiler() != rows[i-1].Compiler() {
			continue
		}
		if d := *rows[i].Instructions - *rows[i-1].Instructions; max(d, -d) > most {
			most = max(d, -d)
			step = fmt.Sprintf("The largest step of one compiler's is from %s to %s: %+g.", version(rows[i-1]), version(rows[i]), d)
		}
	}
	return Headline{Title: title, Text: step}
}

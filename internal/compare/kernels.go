package compare

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// maxKernels is how many kernels a history has, the newest: each is a column of a table.
const maxKernels = 64

// Kernels are the rows of records of lab by what they share but for the kernel and the bulk; the kernels by the numbers of their
// releases. What was counted on one kernel alone is left out, and so are programs of the user's. Of rows of one release under one
// name, at one bulk, the first that has a number is taken.
func Kernels(labs []*record.Lab) []record.LabHistory {
	var all []*history
	by := make(map[historyKey]*history)
	for _, l := range labs {
		for i := range l.Rows {
			row := &l.Rows[i]
			if row.Program != nil || row.Labels["prog"] != "" {
				continue
			}
			key := historyOf(row)
			if by[key] == nil {
				by[key] = &history{LabHistory: record.LabHistory{Arch: key.arch, Of: key.of}, at: make(map[kernelKey]int),
					bulks: make(map[string]bool)}
				all = append(all, by[key])
			}
			by[key].add(row)
		}
	}
	var out []record.LabHistory
	for _, h := range all {
		if h.counted() > 1 {
			h.finish()
			out = append(out, h.LabHistory)
		}
	}
	return out
}

// history is one that rows are added to.
type history struct {
	record.LabHistory
	at    map[kernelKey]int // in Kernels
	bulks map[string]bool
}

// historyKey is what the rows of a history share.
type historyKey struct{ arch, of string }

// kernelKey is a kernel as it was asked for, and what that was then: an archive has another of one series later.
type kernelKey struct{ name, release string }

// historyOf is where a row belongs. A guest that did not count says no architecture: its release or its name ends with it.
func historyOf(row *record.LabRow) historyKey {
	key := historyKey{arch: "amd64"}
	switch {
	case row.Build != nil:
		key.arch = cmp.Or(row.Build.Arch, key.arch)
	case strings.HasSuffix(cmp.Or(row.Release, row.Labels["kernel"]), "-arm64"):
		key.arch = "arm64"
	}
	key.of = strings.TrimPrefix(strings.TrimPrefix(row.Guest(), row.Labels["kernel"]), "/")
	if !row.IsDefault() {
		key.of = strings.Trim(key.of+"/"+row.Scenario(), "/")
	}
	return key
}

// add adds a row to those of its kernel.
func (h *history) add(row *record.LabRow) {
	key := kernelKey{row.Labels["kernel"], row.Release}
	at, ok := h.at[key]
	if !ok {
		at = len(h.Kernels)
		h.at[key] = at
		h.Kernels = append(h.Kernels, record.LabKernel{Name: key.name, Release: key.release, Rows: make(map[string]*record.LabRow)})
	}
	bulk := row.Labels["bulk"]
	if !h.bulks[bulk] {
		h.bulks[bulk] = true
		h.Bulks = append(h.Bulks, bulk)
	}
	rows := h.Kernels[at].Rows
	was := rows[bulk]
	if was != nil {
		h.Repeated++
	}
	if was == nil || was.Refused != "" && row.Refused == "" {
		rows[bulk] = row
	}
}

// counted is how many kernels have a number.
func (h *history) counted() (n int) {
	for i := range h.Kernels {
		for _, row := range h.Kernels[i].Rows {
			if row.Refused == "" {
				n++
				break
			}
		}
	}
	return n
}

// finish brings kernels and bulks into their order, and finds the steps.
func (h *history) finish() {
	slices.SortFunc(h.Bulks, func(a, b string) int {
		x, _ := strconv.Atoi(a) // what is no number comes first
		y, _ := strconv.Atoi(b)
		return cmp.Or(cmp.Compare(x, y), strings.Compare(a, b))
	})
	numbers := make(map[kernelKey][]int)
	for key := range h.at {
		numbers[key] = releaseNumbers(cmp.Or(key.release, key.name))
	}
	slices.SortStableFunc(h.Kernels, func(a, b record.LabKernel) int {
		return slices.Compare(numbers[kernelKey{a.Name, a.Release}], numbers[kernelKey{b.Name, b.Release}])
	})
	h.Older = max(0, len(h.Kernels)-maxKernels)
	h.Kernels = h.Kernels[h.Older:]
	h.Bulks = slices.DeleteFunc(h.Bulks, func(bulk string) bool {
		return !slices.ContainsFunc(h.Kernels, func(k record.LabKernel) bool { return k.Rows[bulk] != nil })
	})
	h.Steps = kernelSteps(&h.LabHistory)
}

var releaseDigits = regexp.MustCompile(`[0-9]+`)

// releaseNumbers are those of a kernel's release, or of its name.
func releaseNumbers(release string) (numbers []int) {
	for _, digits := range releaseDigits.FindAllString(release, -1) {
		n, _ := strconv.Atoi(digits) // what is too large is the largest
		numbers = append(numbers, n)
	}
	return numbers
}

// kernelSteps are the differences of traces of each kernel and one before it.
func kernelSteps(h *record.LabHistory) map[string][]record.LabStep {
	steps := make(map[string][]record.LabStep)
	for _, bulk := range h.Bulks {
		var before []*record.LabRow
		for _, k := range h.Kernels {
			row := k.Rows[bulk]
			if row == nil || row.Trace == nil {
				continue
			}
			if old := row.Precursor(before); old != nil {
				steps[bulk] = append(steps[bulk], record.LabStep{Old: old, New: row, Change: *LabTrace(old, row)})
			}
			before = append(before, row)
		}
	}
	return steps
}

package compare

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Kernels are the rows of records of lab by what they share but for the kernel and the bulk; the kernels by the numbers of their
// releases. What was counted on one kernel alone is left out, and so are programs of the user's.
func Kernels(labs []*record.Lab) []record.LabHistory {
	var all []record.LabHistory
	for _, l := range labs {
		for i := range l.Rows {
			if row := &l.Rows[i]; row.Program == nil && row.Labels["prog"] == "" {
				all = addToHistory(all, row)
			}
		}
	}
	all = slices.DeleteFunc(all, func(h record.LabHistory) bool {
		counted := 0
		for i := range h.Kernels {
			if row := h.Kernels[i].Any(h.Bulks); row != nil && row.Refused == "" {
				counted++
			}
		}
		return counted < 2
	})
	for i := range all {
		slices.SortStableFunc(all[i].Kernels, func(a, b record.LabKernel) int {
			return slices.Compare(releaseNumbers(&a, all[i].Bulks), releaseNumbers(&b, all[i].Bulks))
		})
		all[i].Steps = kernelSteps(&all[i])
	}
	return all
}

var releaseDigits = regexp.MustCompile(`[0-9]+`)

// releaseNumbers are those of a kernel's release, or of the name that it was asked for by.
func releaseNumbers(k *record.LabKernel, bulks []string) (numbers []int) {
	for _, digits := range releaseDigits.FindAllString(cmp.Or(k.Any(bulks).Release, k.Name), -1) {
		n, _ := strconv.Atoi(digits) // what is too large is the largest
		numbers = append(numbers, n)
	}
	return numbers
}

// addToHistory adds a row to those of its like.
func addToHistory(all []record.LabHistory, row *record.LabRow) []record.LabHistory {
	arch := "amd64"
	if row.Build != nil {
		arch = cmp.Or(row.Build.Arch, arch)
	}
	kernel, bulk := row.Labels["kernel"], row.Labels["bulk"]
	of := strings.TrimPrefix(strings.TrimPrefix(row.Guest(), kernel), "/")
	if !row.IsDefault() {
		of = strings.Trim(of+"/"+row.Scenario(), "/")
	}
	i := slices.IndexFunc(all, func(h record.LabHistory) bool { return h.Arch == arch && h.Of == of })
	if i < 0 {
		i, all = len(all), append(all, record.LabHistory{Arch: arch, Of: of})
	}
	h := &all[i]
	if !slices.Contains(h.Bulks, bulk) {
		h.Bulks = append(h.Bulks, bulk)
		slices.SortFunc(h.Bulks, func(a, b string) int {
			x, _ := strconv.Atoi(a) // what is no number comes first
			y, _ := strconv.Atoi(b)
			return cmp.Or(cmp.Compare(x, y), strings.Compare(a, b))
		})
	}
	k := slices.IndexFunc(h.Kernels, func(k record.LabKernel) bool { return k.Name == kernel })
	if k < 0 {
		k, h.Kernels = len(h.Kernels), append(h.Kernels, record.LabKernel{Name: kernel, Rows: make(map[string]*record.LabRow)})
	}
	h.Kernels[k].Rows[bulk] = row
	return all
}

// kernelSteps are the differences of traces of each kernel and one before it.
func kernelSteps(h *record.LabHistory) map[string][]record.LabTraceChange {
	steps := make(map[string][]record.LabTraceChange)
	for _, bulk := range h.Bulks {
		var before []*record.LabRow
		for _, k := range h.Kernels {
			row := k.Rows[bulk]
			if row == nil || row.Trace == nil {
				continue
			}
			if n := len(before); n > 0 {
				old := before[n-1]
				for _, r := range before {
					if r.Compiler() == row.Compiler() {
						old = r
					}
				}
				steps[bulk] = append(steps[bulk], *LabTrace(old, row))
			}
			before = append(before, row)
		}
	}
	return steps
}

package record

import "strings"

// LabHistory are rows of lab that differ in their kernel and bulk alone: what a packet takes from one kernel to the next.
type LabHistory struct {
	// Arch is that of the guests, Of is what the rows share besides, as their names say it:
	// "cpu=EPYC-Milan/spectre_v2=retpoline"; empty for what lab counts by itself.
	Arch, Of string
	// Bulks are in their order, as rows are labeled.
	Bulks []string
	// Kernels are in the order of their releases.
	Kernels []LabKernel
	// Steps are, by bulk, what traces of each kernel and one before it differ in: the last that the same compiler built, else the
	// last.
	Steps map[string][]LabTraceChange
}

// LabKernel are the rows of one kernel, by bulk.
type LabKernel struct {
	Name string // as it was asked for
	Rows map[string]*LabRow
}

// Compiler is the one that built the kernel of a row, by its name and version; empty where it is not known.
func (r *LabRow) Compiler() string {
	if r.Build == nil {
		return ""
	}
	name, _, _ := strings.Cut(r.Build.Compiler, " (")
	return name
}

// Any is one of the rows of a kernel, the first of bulks that has one; nil for none.
func (k *LabKernel) Any(bulks []string) *LabRow {
	for _, bulk := range bulks {
		if row := k.Rows[bulk]; row != nil {
			return row
		}
	}
	return nil
}

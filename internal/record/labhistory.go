package record

import "strings"

// LabHistory are rows of lab that differ in their kernel and bulk alone: what a packet takes from one kernel to the next.
type LabHistory struct {
	// Arch is that of the guests, Of is what the rows share besides, as their names say it:
	// "cpu=EPYC-Milan/spectre_v2=retpoline"; empty for what lab counts by itself.
	Arch, Of string
	// Bulks are in their order, as rows are labeled.
	Bulks []string
	// Kernels are in the order of their releases. Older is how many others there are, which are older than the first.
	Kernels []LabKernel
	Older   int
	// Repeated is how many rows are left out as another has the same kernel and bulk.
	Repeated int
	// Steps are, by bulk, what traces of each kernel and its precursor differ in.
	Steps map[string][]LabStep
}

// Scenario is the way of a packet that the rows count.
func (h *LabHistory) Scenario() string {
	for i := range h.Kernels {
		if row := h.Kernels[i].Any(h.Bulks); row != nil {
			return row.Scenario()
		}
	}
	return DefaultLabScenario
}

// LabStep is what the traces of two kernels differ in.
type LabStep struct {
	Old, New *LabRow
	Change   LabTraceChange
}

// LabKernel are the rows of one kernel, by bulk.
type LabKernel struct {
	Name    string // as it was asked for
	Release string // empty where it is not known
	Rows    map[string]*LabRow
}

// Compiler is the one that built the kernel of a row, by its name and version; empty where it is not known.
func (r *LabRow) Compiler() string {
	if r.Build == nil {
		return ""
	}
	name, _, _ := strings.Cut(r.Build.Compiler, " (")
	return name
}

// SameCompiler tells whether one compiler, which is known, built the kernels of two rows.
func (r *LabRow) SameCompiler(other *LabRow) bool {
	return r.Compiler() != "" && r.Compiler() == other.Compiler()
}

// Precursor is the row of older kernels that a row is compared with: the last that the same compiler built, else the last; nil for
// none. before are in the order of their releases.
func (r *LabRow) Precursor(before []*LabRow) (old *LabRow) {
	for _, b := range before {
		if old == nil || r.SameCompiler(b) || !r.SameCompiler(old) {
			old = b
		}
	}
	return old
}

// Version is the version of a row's kernel: "6.12.117" of 6.12.117+deb12-cloud-amd64.
func (r *LabRow) Version() string {
	version, _, _ := strings.Cut(strings.ReplaceAll(r.Release, "+", "-"), "-")
	return version
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

// Counted is the row of a kernel with a number, at the first of bulks that has one; nil for none.
func (k *LabKernel) Counted(bulks []string) *LabRow {
	for _, bulk := range bulks {
		if row := k.Rows[bulk]; row != nil && row.Refused == "" {
			return row
		}
	}
	return nil
}

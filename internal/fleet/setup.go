package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// column is a field by which machines are told apart, and where the store has it.
type column struct{ field, name string }

// columns are the fields of a setup, in the order of the table.
var columns = []column{
	{"kernel", "kernel"}, {"kernel-build", "kernel_build"}, {"cpu", "cpu"}, {"microcode", "microcode"},
	{"virtual", "hypervisor"}, {"indirect", "indirect_thunk"}, {"return", "return_thunk"}, {"call-sites", "call_sites"},
	{"compiler", "compiler"}, {"boot-params", "boot_params"}, {"mitigations", "mitigations"}, {"iommu", "iommu"},
	{"driver", "driver"}, {"xdp-program", "xdp_program"}, {"jit", "jit"}, {"smt", "smt"}, {"governor", "governor"},
	{"call-rows", "call_rows"},
}

// callRows has the names of the prices of indirect calls: how numbers were made, not what the machine is.
const callRows = "call-rows"

// labelPrefix comes before the name of a label where a field is asked for: "label:rack".
const labelPrefix = "label:"

// Fields are those that a question may name, beside label:NAME.
func Fields() []string {
	var names []string
	for _, c := range columns {
		if c.field != callRows {
			names = append(names, c.field)
		}
	}
	return names
}

// Setup is what a machine is at a time. What could not be seen is empty.
type Setup struct {
	values [18]string // in the order of columns
	labels map[string]string
	// calls are the names in call-rows, where they are known already.
	calls []string
}

// Value is that of a field; empty for one that could not be seen and for a label that the machine has not.
func (s *Setup) Value(field string) string {
	if name, ok := strings.CutPrefix(field, labelPrefix); ok {
		return s.labels[name]
	}
	if i := slices.IndexFunc(columns, func(c column) bool { return c.field == field }); i >= 0 {
		return s.values[i]
	}
	return ""
}

// none stands in answers and conditions for a value that is empty because there is nothing: no program, no driver, no such label.
const none = "none"

// shown is a value as answers have it. Of fields that are not of programs, drivers or labels an empty one could not be seen.
func shown(field, value string) string {
	if value == "" && (field == "xdp-program" || field == "driver" || strings.HasPrefix(field, labelPrefix)) {
		return none
	}
	return value
}

// like tells whether machines of two setups are the same: all but [callRows], which a record without numbers has not.
func (s *Setup) like(o *Setup) bool {
	for i, c := range columns {
		if c.field != callRows && s.values[i] != o.values[i] {
			return false
		}
	}
	return maps.Equal(s.labels, o.labels)
}

// checkField refuses a field that there is not.
func checkField(field string) error {
	if name, ok := strings.CutPrefix(field, labelPrefix); ok && name != "" || slices.Contains(Fields(), field) {
		return nil
	}
	return fmt.Errorf("there is no field %.40q: one of %s, label:NAME", field, strings.Join(Fields(), ", "))
}

// newSetup is what a record says of its machine.
func newSetup(a *record.Agent) *Setup {
	h := a.Host
	var mitigations, programs []string
	for _, name := range slices.Sorted(maps.Keys(h.Mitigations)) {
		mitigations = append(mitigations, name+": "+h.Mitigations[name])
	}
	for _, p := range a.Programs {
		if len(p.Attached) > 0 {
			programs = append(programs, cmp.Or(p.Program, p.Name))
		}
	}
	slices.Sort(programs)
	return &Setup{
		values: [18]string{
			h.Kernel, h.KernelBuild, h.CPU, h.Microcode, h.Virtual, h.IndirectThunk, h.ReturnThunk, h.CallSites, h.Compiler,
			h.BootParams, strings.Join(mitigations, "; "), a.Machine.IOMMU, strings.Join(a.Machine.Drivers, ", "),
			strings.Join(slices.Compact(programs), ", "), h.BPFJIT, h.SMT, h.Governor, strings.Join(callsOf(a), callsBetween),
		},
		labels: a.Machine.Labels, calls: callsOf(a),
	}
}

// callsBetween is between names of calls; maxCalls is how many the store has.
const (
	callsBetween = ", "
	maxCalls     = 3
)

// callsOf are the names of prices of indirect calls, sorted: all rows but the control and the direct call.
func callsOf(a *record.Agent) []string {
	var names []string
	for _, row := range a.Rows {
		if row.Name != record.FleetControl && row.Name != record.FleetDirectCall && !strings.ContainsAny(row.Name, ",") {
			names = append(names, row.Name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxCalls)]
}

// labelsText are the labels as the store has them: one text for one set of labels.
func (s *Setup) labelsText() (string, error) {
	if len(s.labels) == 0 {
		return "{}", nil
	}
	b, err := json.Marshal(s.labels)
	if err != nil {
		return "", fmt.Errorf("encode labels: %w", err)
	}
	return string(b), nil
}

// id is a number that only this setup has: the first 63 bits of the SHA-256 of all that it says.
func (s *Setup) id(labels string) int64 {
	h := sha256.New()
	for _, v := range append(s.values[:], labels) {
		fmt.Fprintf(h, "%d:%s", len(v), v)
	}
	return int64(binary.BigEndian.Uint64(h.Sum(nil)) >> 1)
}

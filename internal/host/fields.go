package host

import (
	"maps"
	"slices"
	"strconv"
)

// Field is one property of a [Fingerprint].
type Field struct {
	// Name is the key of the fingerprint's JSON; entries of its maps are
	// named "mitigations/spectre-v2", "drivers/eth0".
	Name  string
	Value string
}

// Fields flattens the fingerprint, in the order of its declaration with maps
// by key, so that two machines can be compared line by line. A field that
// was not seen has an empty value.
func (f Fingerprint) Fields() []Field {
	out := []Field{
		{"cpu", f.CPU},
		{"microcode", f.Microcode},
		{"virtual", f.Virtual},
		{"cpus", ""},
		{"kernel", f.Kernel},
		{"kernel-build", f.KernelBuild},
		{"compiler", f.Compiler},
		{"boot-params", f.BootParams},
	}
	if f.CPUs > 0 {
		out[3].Value = strconv.Itoa(f.CPUs)
	}
	for _, key := range slices.Sorted(maps.Keys(f.Mitigations)) {
		out = append(out, Field{"mitigations/" + key, f.Mitigations[key]})
	}
	out = append(out,
		Field{"indirect-thunk", f.IndirectThunk},
		Field{"return-thunk", f.ReturnThunk},
		Field{"call-sites", f.CallSites},
		Field{"cfi", f.CFI},
		Field{"bpf-jit", f.BPFJIT},
		Field{"bpf-jit-harden", f.BPFHarden},
		Field{"smt", f.SMT},
		Field{"governor", f.Governor},
	)
	for _, key := range slices.Sorted(maps.Keys(f.Drivers)) {
		out = append(out, Field{"drivers/" + key, f.Drivers[key]})
	}
	return out
}

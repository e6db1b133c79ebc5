package compare

import (
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// plausible orders the fields of a fingerprint by how likely they move
// XDP_REDIRECT, with the reason. What an indirect call became is a nearer
// cause than what made it so, and stands first.
func plausible() []struct{ name, why string } {
	return []struct{ name, why string }{
		{"indirect-thunk", "every indirect call of the redirect path runs through it"},
		{"call-sites", "decides whether an indirect call is a thunk or a plain call *reg"},
		{"return-thunk", "every return of the redirect path may run through it"},
		{"cfi", "every indirect call of the redirect path may test its target first"},
		{"kernel", "the redirect path itself is other code"},
		{"compiler", "decides which calls stay indirect and whether retpolines are built in"},
		{"boot-params", "mitigations=, spectre_v2=, iommu= change calls and DMA"},
		{"mitigations", "mitigations put thunks, fences or flushes on the path"},
		{"microcode", "brings and changes mitigations without a new kernel"},
		{"drivers", "ndo_xdp_xmit, the poll and the DMA calls are the driver's"},
		{"bpf-jit", "without the JIT the program is interpreted"},
		{"bpf-jit-harden", "hardening blinds constants, and programs grow"},
		{"governor", "sets the clock the core runs at"},
		{"smt", "a busy sibling thread halves the core"},
		{"cpu", "another processor"},
		{"virtual", "a hypervisor takes time and may emulate"},
		{"cpus", "moves interrupts and neighbors to other cores"},
		{"kernel-build", "built anew: the layout and the configuration may differ"},
	}
}

func causes(old, new host.Fingerprint) []record.Cause {
	olds, news := old.Fields(), new.Fields()
	values := func(fields []host.Field) map[string]string {
		m := make(map[string]string, len(fields))
		for _, f := range fields {
			m[f.Name] = f.Value
		}
		return m
	}
	oldValue, newValue := values(olds), values(news)
	rank := make(map[string]int)
	why := make(map[string]string)
	for i, p := range plausible() {
		rank[p.name], why[p.name] = i-len(plausible()), p.why // fields it does not know rank 0
	}
	found := []record.Cause{}
	seen := make(map[string]bool)
	for _, f := range append(news, olds...) {
		if seen[f.Name] || oldValue[f.Name] == newValue[f.Name] {
			continue
		}
		seen[f.Name] = true
		family, _, _ := strings.Cut(f.Name, "/")
		cause := record.Cause{Name: f.Name, Why: why[family]}
		if v := oldValue[f.Name]; v != "" {
			cause.Old = &v
		}
		if v := newValue[f.Name]; v != "" {
			cause.New = &v
		}
		found = append(found, cause)
	}
	slices.SortStableFunc(found, func(a, b record.Cause) int {
		// What only one side could see is no difference yet.
		if seenA, seenB := a.Old != nil && a.New != nil, b.Old != nil && b.New != nil; seenA != seenB {
			if seenA {
				return -1
			}
			return 1
		}
		familyA, _, _ := strings.Cut(a.Name, "/")
		familyB, _, _ := strings.Cut(b.Name, "/")
		return rank[familyA] - rank[familyB]
	})
	return found
}

package xdppath

import (
	"slices"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// CoreRoots are the functions of the XDP core that the path goes through and
// that this kernel has: softirq and NAPI, the redirect helpers, enqueueing and
// flushing of devmap, cpumap and xskmap, giving frames back, page_pool, and
// the DMA API.
func CoreRoots(k *kernel.Kernel) (out []Root) {
	for _, f := range functions.With(functions.Root) {
		for _, n := range f.Names() {
			for _, s := range k.Functions(n.Name) {
				if s.Module == "" && !slices.ContainsFunc(out, func(r Root) bool { return r.Addr == s.Addr }) {
					out = append(out, Root{Function: s.Name, Addr: s.Addr, Stage: rootStage(f), Per: f.Per, Why: f.What})
				}
			}
		}
	}
	return out
}

// merge appends the roots of b that a lacks.
func merge(a, b []Root) []Root {
	for _, r := range b {
		if !slices.ContainsFunc(a, func(x Root) bool { return x.Addr == r.Addr }) {
			a = append(a, r)
		}
	}
	return a
}

package redirect

import (
	"fmt"
	"slices"
	"testing"

	"unthunk/internal/bpf/tracepoints"
	"unthunk/internal/testutil"
	"unthunk/netlab"
	"unthunk/stat"
)

// BenchmarkCounting holds the chain as bench runs it, counted and stamped by
// its own programs, against the same chain counted by programs at the global
// tracepoints: one tool's worth, and three, when generator, redirect and drop
// are tools of their own. Both are timed by the kernel's own clock, in
// interleaved slots. The metrics are ns per frame, and how many times faster
// the first is.
func BenchmarkCounting(b *testing.B) {
	for _, tools := range []int{1, 3} {
		b.Run(fmt.Sprintf("tools=%d", tools), func(b *testing.B) { benchmarkCounting(b, tools) })
	}
}

func benchmarkCounting(b *testing.B, tools int) {
	testutil.Root(b)
	cpus, err := pickCores(-1, OneCore)
	if err != nil {
		b.Fatal(err)
	}
	lab, err := netlab.New(cpus.generator)
	if err != nil {
		b.Fatal(err)
	}
	defer lab.Close()
	var arms [2]*arm
	for i, uncounted := range []bool{false, true} {
		r, err := build(lab, i, Plan{}.withDefaults().chains()[0], cpus, uncounted)
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		if arms[i], err = newArm(r, 64, nil); err != nil {
			b.Fatal(err)
		}
		arms[i].windows = 16
	}
	slot := func(a *arm) {
		_, ns, err := a.send(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		a.whole = append(a.whole, ns)
	}
	for b.Loop() {
		for range 4 {
			slot(arms[0])
		}
		var detach []func() error
		for range tools {
			d, err := tracepoints.Attach()
			if err != nil {
				b.Fatal(err)
			}
			detach = append(detach, d)
		}
		for range 4 {
			slot(arms[1])
		}
		for _, d := range slices.Backward(detach) {
			if err := d(); err != nil {
				b.Fatal(err)
			}
		}
	}
	own, global := stat.Median(arms[0].whole), stat.Median(arms[1].whole)
	b.ReportMetric(own, "own-ns/frame")
	b.ReportMetric(global, "tracepoint-ns/frame")
	b.ReportMetric(global/own, "times-faster")
}

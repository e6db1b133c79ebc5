package redirect

import (
	"fmt"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/tracepoints"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

// BenchmarkCounting holds the chain as bench runs it, counted and stamped by
// its own programs, against the same chain counted by programs at the global
// tracepoints: by one tool, and by three, when generator, redirect and drop are
// tools of their own; each counting every redirect, or failed ones and
// ndo_xdp_xmit calls only, beside the counters in the programs. Both are timed
// by the kernel's own clock, in interleaved slots. The metrics are ns per
// frame, and how many times faster the first is.
func BenchmarkCounting(b *testing.B) {
	for _, tools := range []int{1, 3} {
		for _, each := range []bool{true, false} {
			b.Run(fmt.Sprintf("tools=%d/each=%v", tools, each), func(b *testing.B) { benchmarkCounting(b, tools, each) })
		}
	}
}

func benchmarkCounting(b *testing.B, tools int, each bool) {
	testutil.Root(b)
	cpus, err := pickCores(rounds.CPU{}, OneCore)
	if err != nil {
		b.Fatal(err)
	}
	lab, err := netlab.New(cpus.generator)
	if err != nil {
		b.Fatal(err)
	}
	defer lab.Close()
	var measurements [2]*Measurement // own, global
	for i := range measurements {
		// Tools that count each redirect at its tracepoint need no counter in
		// the programs.
		v := counting
		if i == 1 && each {
			v = uncounted
		}
		c, err := build(b.Context(), lab, i, Plan{}.withDefaults().chains()[0], cpus, v)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		if measurements[i], err = newMeasurement(c, 64); err != nil {
			b.Fatal(err)
		}
		measurements[i].windows = 16
	}
	slots := func(m *Measurement) {
		for range 4 {
			_, ns, err := m.send(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			m.whole = append(m.whole, ns)
		}
	}
	watched := func() {
		var detach []func() error
		for range tools {
			d, err := tracepoints.Attach(each)
			if err != nil {
				b.Fatal(err)
			}
			detach = append(detach, d)
		}
		slots(measurements[1])
		for _, d := range slices.Backward(detach) {
			if err := d(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for n := 0; b.Loop(); n++ {
		if n%2 == 0 {
			slots(measurements[0])
			watched()
		} else {
			watched()
			slots(measurements[0])
		}
	}
	own, global := rounds.QuickHalf(measurements[0].whole), rounds.QuickHalf(measurements[1].whole)
	b.ReportMetric(own, "own-ns/frame")
	b.ReportMetric(global, "tracepoint-ns/frame")
	b.ReportMetric(global/own, "times-faster")
}

package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestLabTraceGolden(t *testing.T) {
	t.Parallel()
	two := reporttest.Traced()
	compare.LabTraces(t.Context(), two)
	one := reporttest.Traced()
	one.Rows = one.Rows[:1]
	wires := reporttest.Traced()
	wires.Rows = wires.Rows[:1]
	row := &wires.Rows[0]
	row.Name, row.Labels["nic"], row.Labels["dma"] = "debian:6.1-cloud/nic=igb/dma=direct/bulk=16", "igb", "direct"
	row.Trace.Windows, row.Trace.Among, row.Trace.Functions[0].Spread = 8, 16, 0.0625
	for name, l := range map[string]*record.Lab{"lab-trace.txt": one, "lab-traces.txt": two, "lab-trace-wires.txt": wires} {
		for i := range l.Rows {
			if err := l.Rows[i].Check(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		var b bytes.Buffer
		if err := Lab(&b, Options{Width: 80}, l); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		reporttest.Golden(t, name, b.String())
	}
}

// Many functions and lines are cut, and what is cut off is summed up.
func TestLabTraceLong(t *testing.T) {
	t.Parallel()
	l := reporttest.Traced()
	for i := range l.Rows {
		tr := l.Rows[i].Trace
		for n := range 60 {
			name := strings.Repeat("f", n+1)
			tr.Functions = append(tr.Functions, record.LabTraceFunction{
				Function: name, Stage: "other", Executed: uint64(128 * (i + 1)), Inclusive: 256})
			tr.Lines = append(tr.Lines, record.LabTraceLine{Program: "p", File: "x.c", Line: n, Executed: 1})
			tr.Executed += uint64(128 * (i + 1))
		}
		tr.Stacks = nil
		x := tr.PerPacket(tr.Executed)
		l.Rows[i].Instructions = &x
		if err := l.Rows[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	compare.LabTraces(t.Context(), l)
	var b bytes.Buffer
	p := newPrinter(Options{Width: 80})
	p.labTraceChange(&l.TraceChanges[0])
	p.labTrace(l.Rows[0].Trace)
	if err := p.flush(&b); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{"+22 22 44 22 others", "all; without a difference: 1", " 39 39 others", "0.171875 22 others"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q:\n%s", want, b.String())
		}
	}
}

// Of a function that is not of the path it is said who calls it.
func TestLabTraceCaller(t *testing.T) {
	t.Parallel()
	p := newPrinter(Options{Width: 80})
	p.labTraceChange(&record.LabTraceChange{Functions: []record.LabTraceDifference{
		{Name: "_find_next_bit", Caller: "skb_defer_free_flush", New: 2, Difference: 2},
		{Name: "dev_map_enqueue", Caller: "xdp_do_redirect", Old: 1, New: 2, Difference: 1},
		{Name: "read_tsc", Caller: "ktime_get_mono_fast_ns", Old: 0.25, New: 0.5, Difference: 0.25},
	}})
	var b bytes.Buffer
	if err := p.flush(&b); err != nil {
		t.Fatal(err)
	}
	if out := b.String(); !strings.Contains(out, "called by skb_defer_free_flush") || strings.Count(out, "called by") != 1 {
		t.Error(out)
	}
}

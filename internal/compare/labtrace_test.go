package compare

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// tracedRow is a row of 128 packets whose functions execute so much, in the stage redirect
// unless they are named with another.
func tracedRow(kernel, line string, functions ...record.LabTraceFunction) record.LabRow {
	t := &record.LabTrace{Packets: 128}
	for _, f := range functions {
		if f.Stage == "" {
			f.Stage = "redirect"
		}
		f.Inclusive = f.Executed
		t.Functions, t.Executed = append(t.Functions, f), t.Executed+f.Executed
	}
	n := t.PerPacket(t.Executed)
	return record.LabRow{Name: kernel + "/" + line + "/bulk=16", Labels: map[string]string{"kernel": kernel, "append": line, "bulk": "16"},
		Instructions: &n, Trace: t}
}

// Renamed and split functions are the same ones, and all differences add up.
func TestLabTrace(t *testing.T) {
	t.Parallel()
	old := tracedRow("6.1", "", record.LabTraceFunction{Function: "dev_map_enqueue", Executed: 40 * 128},
		record.LabTraceFunction{Function: "page_pool_put_defragged_page", Stage: "return", Executed: 49*128 + 16},
		record.LabTraceFunction{Function: "bpf_test_run_xdp_live", Stage: "generator", Executed: 66 * 128},
		record.LabTraceFunction{Function: "bpf_prog_0123456789abcdef_sink", Stage: "sink", Executed: 13 * 128},
		record.LabTraceFunction{Function: "veth_xdp_rcv.constprop.0", Stage: "receive", Executed: 91 * 128},
		record.LabTraceFunction{Function: "gone", Executed: 1})
	new := tracedRow("6.12", "", record.LabTraceFunction{Function: "dev_map_enqueue", Executed: 50 * 128},
		record.LabTraceFunction{Function: "dev_map_enqueue", Stage: "other", Executed: 4 * 128},
		record.LabTraceFunction{Function: "page_pool_put_unrefed_netmem", Stage: "return", Executed: 72*128 + 16},
		record.LabTraceFunction{Function: "bpf_test_run_xdp_live", Stage: "generator", Executed: 5 * 128},
		record.LabTraceFunction{Function: "xdp_test_run_batch", Stage: "generator", Executed: 66*128 + 88},
		record.LabTraceFunction{Function: "bpf_prog_fedcba9876543210_sink", Stage: "sink", Executed: 13 * 128},
		record.LabTraceFunction{Function: "veth_xdp_rcv", Stage: "receive", Executed: 91 * 128})
	c := LabTrace(&old, &new)
	want := []record.LabTraceDifference{
		{Name: "page_pool_put_unrefed_netmem", Was: "page_pool_put_defragged_page", Old: 49.125, New: 72.125, Difference: 23},
		{Name: "dev_map_enqueue", Old: 40, New: 54, Difference: 14},
		{Name: "bpf_test_run_xdp_live + xdp_test_run_batch", Was: "bpf_test_run_xdp_live", Old: 66, New: 71.6875, Difference: 5.6875},
		{Name: "gone", Old: 1.0 / 128, Difference: -1.0 / 128},
	}
	if diff := cmp.Diff(want, c.Functions); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
	if c.Same != 2 {
		t.Errorf("%d functions are the same", c.Same)
	}
	sum := 0.0
	for _, d := range c.Functions {
		sum += d.Difference
	}
	if sum != c.Difference || c.Difference != *new.Instructions-*old.Instructions {
		t.Errorf("functions add up to %v of %v", sum, c.Difference)
	}
	sum = 0
	for _, d := range c.Stages {
		sum += d.Difference
	}
	if math.Abs(sum-c.Difference) > 1e-9 || len(c.Stages) != 6 || c.Stages[0].Name != "generator" {
		t.Errorf("stages %+v", c.Stages)
	}
	if LabTrace(&old, &record.LabRow{}) != nil {
		t.Error("a row without a trace is compared")
	}
}

// A difference says which caller most of it comes from, by the newest name, and never one of the functions themselves.
func TestLabTraceCallers(t *testing.T) {
	t.Parallel()
	stacks := func(row record.LabRow, chains map[string]uint64) *record.LabRow {
		for _, frames := range slices.Sorted(maps.Keys(chains)) {
			row.Trace.Stacks = append(row.Trace.Stacks, record.LabTraceStack{Frames: strings.Fields(frames), Executed: chains[frames]})
		}
		return &row
	}
	old := stacks(tracedRow("6.12", "", record.LabTraceFunction{Function: "_find_next_bit", Executed: 128},
		record.LabTraceFunction{Function: "net_rx_action", Executed: 128}),
		map[string]uint64{"net_rx_action": 128, "net_rx_action tick _find_next_bit": 128})
	new := stacks(tracedRow("6.18", "", record.LabTraceFunction{Function: "_find_next_bit", Executed: 512},
		record.LabTraceFunction{Function: "net_rx_action", Executed: 256},
		record.LabTraceFunction{Function: "skb_defer_free_flush", Executed: 64}),
		map[string]uint64{"net_rx_action": 256, "net_rx_action skb_defer_free_flush": 64, "net_rx_action tick _find_next_bit": 96,
			"net_rx_action skb_defer_free_flush _find_next_bit": 416})
	callers := make(map[string]string)
	for _, d := range LabTrace(old, new).Functions {
		callers[d.Name] = d.Caller
	}
	want := map[string]string{"_find_next_bit": "skb_defer_free_flush", "net_rx_action + skb_defer_free_flush": ""}
	if !maps.Equal(callers, want) {
		t.Errorf("%v, want %v", callers, want)
	}
}

// Each kernel is held against the one before it, each command line against the first.
func TestLabTraces(t *testing.T) {
	t.Parallel()
	f := record.LabTraceFunction{Function: "f", Executed: 128}
	l := &record.Lab{}
	l.Rows = []record.LabRow{tracedRow("a", "on", f), tracedRow("a", "off", f), tracedRow("b", "on", f), tracedRow("b", "off", f),
		tracedRow("c", "on", f)}
	l.Rows[4].Labels["bulk"] = "64"
	LabTraces(t.Context(), l)
	var got []string
	for _, c := range l.TraceChanges {
		got = append(got, c.Old+" "+c.New)
	}
	want := []string{"a/on/bulk=16 a/off/bulk=16", "a/on/bulk=16 b/on/bulk=16", "a/off/bulk=16 b/off/bulk=16", "b/on/bulk=16 b/off/bulk=16"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pairs (-want +got):\n%s", diff)
	}
}

// What a record has of two rows stays, also when a signal comes, and the differences of all others have a limit in bytes.
func TestLabTracesLarge(t *testing.T) {
	t.Parallel()
	var many []record.LabTraceFunction
	for i := range record.MaxRows {
		many = append(many, record.LabTraceFunction{Function: fmt.Sprintf("f%05d", i), Executed: 128})
	}
	l := &record.Lab{}
	l.Rows = []record.LabRow{tracedRow("large", "on", many...)}
	for i := range 400 {
		l.Rows = append(l.Rows, tracedRow("large", fmt.Sprint(i), many[0]))
	}
	l.TraceChanges = []record.LabTraceChange{{Old: "large/on/bulk=16", New: "large/399/bulk=16", Same: 7},
		{Old: "gone", New: "large/on/bulk=16"}}
	had := slices.Clone(l.TraceChanges)
	LabTraces(t.Context(), l)
	n := len(l.TraceChanges)
	if n < 2 || l.TraceChanges[n-1].Same != 7 {
		t.Errorf("%d differences, without that of the record", n)
	}
	want := fmt.Sprintf("traces of %d pairs of rows are not compared: a record has at most 10000 differences, of 16 MiB in all", 400-n)
	if len(l.Warnings) != 1 || l.Warnings[0].Text != want {
		t.Errorf("warnings %+v, want %q", l.Warnings, want)
	}
	if b := recordtest.Marshal(t, l.TraceChanges); len(b) > maxChanges {
		t.Errorf("differences of %d MiB", len(b)>>20)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.TraceChanges = had
	if LabTraces(ctx, l); len(l.TraceChanges) != 1 || l.TraceChanges[0].Same != 7 {
		t.Errorf("behind a signal: %d differences", len(l.TraceChanges))
	}
}

// A record has no more differences than it may have, and each row is not held against each other one.
func TestLabTracesMany(t *testing.T) {
	t.Parallel()
	l := &record.Lab{}
	for i := range record.MaxRows / 2 {
		for _, line := range []string{"on", "off"} {
			l.Rows = append(l.Rows, tracedRow(fmt.Sprint(i), line, record.LabTraceFunction{Function: "f", Executed: 128}))
		}
	}
	LabTraces(t.Context(), l)
	if n := len(l.TraceChanges); n != record.MaxRows || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0].Text, "of 4998 pairs") {
		t.Errorf("%d differences, warnings %+v", n, l.Warnings)
	}
}

// Pairs are those of the nearest row before of another kernel, and of the first of another command line.
func TestTracedPairs(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		rows := make([]record.LabRow, 12)
		for i := range rows {
			rows[i].Name = fmt.Sprint(i)
			rows[i].Labels = map[string]string{"bulk": fmt.Sprint(r.IntN(2)), "kernel": fmt.Sprint(r.IntN(3)), "append": fmt.Sprint(r.IntN(3))}
			if r.IntN(4) > 0 {
				rows[i].Trace = new(record.LabTrace)
			}
		}
		var want [][2]string
		for i := range rows {
			for label, order := range map[string]func(rows []record.LabRow) iter.Seq2[int, record.LabRow]{
				"kernel": slices.Backward[[]record.LabRow], "append": slices.All[[]record.LabRow],
			} {
				for _, before := range order(rows[:i]) {
					if before.Labels[label] == rows[i].Labels[label] || alikeBut(&before, label) != alikeBut(&rows[i], label) {
						continue
					}
					if before.Trace != nil && rows[i].Trace != nil {
						want = append(want, [2]string{before.Name, rows[i].Name})
					}
					break
				}
			}
		}
		var got [][2]string
		for _, p := range tracedPairs(rows) {
			got = append(got, [2]string{p[0].Name, p[1].Name})
		}
		less := func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }
		slices.SortFunc(want, less)
		slices.SortFunc(got, less)
		if !slices.Equal(got, want) {
			t.Fatalf("pairs %v, want %v", got, want)
		}
	}
}

package tax

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// openTest opens the running kernel, or skips.
func openTest(t *testing.T) *kernel.Kernel {
	t.Helper()
	testutil.Root(t)
	k, err := kernel.OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// Every pair is measured, or says why not, and what was counted adds up.
func TestRun(t *testing.T) {
	testutil.Root(t)
	var shown []string
	var raw *Raw
	for try := 0; try == 0 || try < 3 && disturbed(raw); try++ {
		shown = nil
		plan := Plan{Schedule: rounds.Schedule{Rounds: 2, Duration: 5 * time.Second}}
		var err error
		raw, err = Run(t.Context(), plan, func(p rounds.Progress) { shown = append(shown, p.What) })
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
	}
	for _, p := range raw.pairs {
		if p.name == "return-frame" {
			if !strings.Contains(p.refused, "xdp_return_frame") {
				t.Errorf("%s: %q", p.name, p.refused)
			}
			continue
		}
		if byOthers(p) {
			t.Logf("%s: %s", p.name, p.refused)
			continue
		}
		if p.refused != "" {
			t.Errorf("%s: %s", p.name, p.refused)
			continue
		}
		if len(p.rounds) < 2 {
			t.Errorf("%s: %d numbers", p.name, len(p.rounds))
		}
		if p.premise == "" {
			t.Errorf("%s: no premise", p.name)
		}
		for i := range p.withNs {
			if p.withNs[i] <= 0 || p.withoutNs[i] <= 0 || p.withNs[i] > 1e6 || p.withoutNs[i] > 1e6 {
				t.Errorf("%s: %v ns against %v", p.name, p.withNs[i], p.withoutNs[i])
			}
		}
	}
	// DEV_MAP_BULK_SIZE is 16.
	for bulk, xmits := range map[int]float64{1: 1, 16: 1. / 16, 64: 1. / 16} {
		calls := raw.calls[bulk]
		if calls.Xmits < 0.9*xmits || calls.Xmits > 1.1*xmits {
			t.Errorf("bulk %d: %v ndo_xdp_xmit calls a packet, want %v", bulk, calls.Xmits, xmits)
		}
		if calls.Redirects < 0.99 || calls.Redirects > 1.01 {
			t.Errorf("bulk %d: %v redirects a packet", bulk, calls.Redirects)
		}
		if calls.Polls <= 0 || calls.Polls > 1.1 || calls.Softirqs > 1.1 {
			t.Errorf("bulk %d: %v polls, %v softirqs a packet", bulk, calls.Polls, calls.Softirqs)
		}
		if n := len(raw.hops[bulk]); n != 2 {
			t.Errorf("bulk %d: %d hops", bulk, n)
		}
	}
	if !slices.Contains(shown, "control") || !slices.Contains(shown, "redirect chains") {
		t.Errorf("shown: %v", shown)
	}
	want := len(pairs()) + 4
	if raw.pair(Thunk) == nil {
		want = len(pairs()) // no estimates
	}
	if rows, _ := raw.Record(); len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
}

// disturbed says whether others attached XDP programs, or had the CPU, while a run measured.
func disturbed(raw *Raw) bool {
	return slices.ContainsFunc(raw.pairs, func(p rawPair) bool {
		return byOthers(p) || slices.ContainsFunc(append(slices.Clone(p.withNs), p.withoutNs...), func(ns float64) bool { return ns <= 0 })
	})
}

// byOthers says whether a pair has no price because of XDP programs of others.
func byOthers(p rawPair) bool {
	return slices.ContainsFunc([]string{
		"another process changed the dispatcher", "others have attached theirs", "an attached program is not in the dispatcher",
	}, func(text string) bool { return strings.Contains(p.refused, text) })
}

// What is picked is what runs: nothing else takes time.
func TestRunPicked(t *testing.T) {
	testutil.Root(t)
	plan := Plan{
		Pairs:    []string{"control", "user/lfence"},
		Schedule: rounds.Schedule{Rounds: 2, Duration: time.Second},
	}
	raw, err := Run(t.Context(), plan, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	rows, _ := raw.Record()
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
		if row.Price == nil {
			t.Errorf("%s has no price: %s", row.Name, row.Refused)
		}
		if row.PerPacket != nil {
			t.Errorf("%s runs %v times for a packet", row.Name, row.PerPacket.Median)
		}
	}
	if diff := cmp.Diff(plan.Pairs, names); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestRunStops(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	begun := time.Now()
	raw, err := Run(ctx, Plan{Schedule: rounds.Schedule{Duration: time.Minute}}, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if !raw.Incomplete || time.Since(begun) > time.Minute {
		t.Errorf("incomplete %v after %v", raw.Incomplete, time.Since(begun))
	}
	rows, _ := raw.Record()
	for _, row := range rows {
		if (row.Price == nil) != (row.Refused != "") {
			t.Errorf("%s: price %v, refused %q", row.Name, row.Price, row.Refused)
		}
	}
}

// split returns what was found and why it was refused, and ends the test on an error.
func split(t *testing.T) func(string, error) (premise, refused string) {
	return func(premise string, err error) (string, string) {
		t.Helper()
		p := rawPair{}
		if err := p.found(premise, err); err != nil {
			t.Fatal(err)
		}
		return p.premise, p.refused
	}
}

// The premise is read from the code: one branch more, none more, or the wrong way
// round.
func TestPremise(t *testing.T) {
	k := openTest(t)
	for _, test := range []struct {
		with, without  string
		differs, alike bool
		premise        string
		refused        string // by differ
	}{
		{"lpm_unknown", "lpm_known", true, false, "bpf_map_lookup_elem+", ""},
		{"lpm_known", "lpm_unknown", false, false, "", "the side without it makes bpf_map_lookup_elem+"},
		{"lpm_known", "lpm_known", false, true, "", "already direct here"},
		{"tail_variable", "tail_constant", true, false, "program+", ""},
		{"loop_called", "loop_inlined", true, false, "bpf_loop+", ""},
		{"for_each", "loop_inlined", true, false, "bpf_for_each_array_elem+", ""},
		{"helper_called", "helper_spared", false, true, "", "already direct here"},
	} {
		t.Run(test.with, func(t *testing.T) {
			pair, err := price.LoadPair([2]string{test.with, test.without})
			if err != nil {
				t.Fatal(err)
			}
			defer pair.Close()
			premise, refused := split(t)(differ(k, pair.Programs[0], pair.Programs[1]))
			if test.differs != (refused == "") ||
				!strings.Contains(premise, test.premise) || !strings.Contains(refused, test.refused) {
				t.Errorf("found %q, refused %q", premise, refused)
			}
			_, refused = split(t)(alike(k, pair.Programs[0], pair.Programs[1]))
			if test.alike != (refused == "") {
				t.Errorf("as a control it is refused with %q", refused)
			}
		})
	}
}

func TestHolds(t *testing.T) {
	k := openTest(t)
	for _, test := range []struct {
		in               []string
		premise, refused string
	}{
		{functions.Holders(functions.CallsXmit), "call", ""},
		{[]string{"no_such_function", "bq_xmit_all", "__dev_flush"}, "call", ""},
		{[]string{"bpf_ktime_get_ns"}, "", "already direct here: bpf_ktime_get_ns"},
		{[]string{"no_such_function"}, "", "has no no_such_function"},
	} {
		premise, refused := split(t)(holds(k, test.in))
		if (test.refused == "") != (refused == "") ||
			!strings.Contains(premise, test.premise) || !strings.Contains(refused, test.refused) {
			t.Errorf("%v: found %q, refused %q", test.in, premise, refused)
		}
	}
}

// The compare tree in memory holds what is attached, no more and no less.
func TestDispatcher(t *testing.T) {
	k := openTest(t)
	before, _, err := dispatcher(k)
	if err != nil {
		if _, refused := err.(refusal); refused {
			testutil.SkipMissing(t, &feature.Missing{Feature: "BPF dispatcher", Help: err.Error()})
		}
		t.Fatal(err)
	}
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	a, b, err := lab.VethPair("a0", "b0")
	if err != nil {
		t.Fatal(err)
	}
	devices := []netlab.Device{a, b}
	for i, device := range devices {
		p, err := price.Load("nothing")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if at, err := dispatched(k, p); err != nil || at.in || at.programs != len(before)+i {
			t.Errorf("before it is attached: %+v, want %d programs: %v", at, len(before)+i, err)
		}
		if err := device.Attach(p, link.XDPGenericMode); err != nil {
			t.Fatal(err)
		}
		at, err := dispatched(k, p)
		if err != nil || !at.in || at.programs != len(before)+i+1 {
			t.Errorf("attached: %+v, want %d programs: %v", at, len(before)+i+1, err)
		}
		if at.fallback == "" {
			t.Error("no way out of the tree")
		}
	}
	for _, device := range devices {
		if err := device.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	if after, _, err := dispatcher(k); err != nil || len(after) != len(before) {
		t.Errorf("%d programs left, %d before: %v", len(after), len(before), err)
	}
}

// Programs that others attach while the dispatcher is full take no price away.
func TestSharedDispatcher(t *testing.T) {
	k := openTest(t)
	if _, _, err := dispatcher(k); err != nil {
		testutil.Missing(t, "BPF dispatcher")
	}
	f := &fill{kernel: k, namespace: veth.Namespace(t), inside: make(map[int][]float64)}
	defer f.Close()
	if err := errors.Join(f.prepare(), f.fillUp(t.Context())); err != nil {
		t.Fatal(err)
	}
	// One takes the room of the program that is measured; later, two leave more.
	others := veth.Namespace(t)
	theirs, _ := veth.Pair(t, others, "in", "out")
	if err := theirs.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, 2), asm.Return()), link.XDPGenericMode); err != nil {
		t.Fatal(err)
	}
	measure := func() {
		t.Helper()
		var err error
		for range 3 { // other tasks may have the CPU
			f.outside, f.inside[full] = nil, nil
			if err = f.measureFull(t.Context()); err != errDisturbed {
				break
			}
		}
		if err != nil || len(f.outside) != fillPrograms || len(f.inside[full]) != fillPrograms {
			t.Fatalf("%d prices outside, %d inside, want %d: %v", len(f.outside), len(f.inside[full]), fillPrograms, err)
		}
		for i, multiple := range f.outside {
			// Filling and emptying the dispatcher takes 30 times as long as the runs.
			if inside := f.inside[full][i]; multiple > 10*inside {
				t.Errorf("outside %.1f times the reference, inside %.1f", multiple, inside)
			}
		}
	}
	measure()
	for _, d := range []netlab.Device{theirs, f.devices[20]} {
		if err := d.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	measure()
}

// Others' programs at the tracepoint take the price of the first away, and cost the
// other rows of chains.
func TestObserved(t *testing.T) {
	testutil.Root(t)
	p, err := price.Load("observer")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	plan := Plan{
		Pairs:    []string{"tracepoint", "ndo-xdp-xmit/bulk=16"},
		Schedule: rounds.Schedule{Rounds: 1, Duration: time.Second},
	}
	raw, err := Run(t.Context(), plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows, warns := raw.Record()
	for _, row := range rows {
		if strings.HasPrefix(row.Name, "tracepoint/") && !strings.Contains(row.Refused, "already") {
			t.Errorf("%s: refused %q", row.Name, row.Refused)
		}
	}
	if !slices.ContainsFunc(warns, func(w record.Warning) bool { return strings.Contains(w.Text, "others' programs") }) {
		t.Errorf("warnings %v", warns)
	}
}

// Run statistics are priced by switching them on, and are off after it; where somebody has
// them on there is no price.
func TestStatistics(t *testing.T) {
	testutil.Root(t)
	plan := Plan{Pairs: []string{Statistics}, Schedule: rounds.Schedule{Rounds: 2, Duration: time.Second}}
	measured := func() rawPair {
		raw, err := Run(t.Context(), plan, nil)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		return raw.pairs[0]
	}
	p := measured()
	if p.refused != "" || len(p.withNs) != 2 || p.premise == "" {
		t.Fatalf("%+v", p)
	}
	for i := range p.withNs { // two clock readings take 20 ns and more
		if p.withoutNs[i] <= 0 || p.withNs[i] < p.withoutNs[i]+5 || p.withNs[i] > 1e5 {
			t.Errorf("%v ns against %v", p.withNs[i], p.withoutNs[i])
		}
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	if p := measured(); p.refused != string(errStatisticsOn) {
		t.Errorf("with statistics on: %+v", p)
	}
}

// A sparing run prices pairs of programs that it loads once, round by round.
func TestSparing(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	raw, err := Run(t.Context(), Plan{
		Pairs: []string{"control", "callback/loop"}, Sparing: true, Schedule: rounds.Schedule{Rounds: 3, Duration: time.Second},
	}, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	rows, _ := raw.Record()
	priced := 0
	for _, row := range rows {
		if row.Refused == "" && len(row.Rounds) == 3 && row.Premise != "" {
			priced++
		}
	}
	if priced != 2 {
		t.Errorf("%d rows have a premise and three rounds: %+v", priced, rows)
	}
	for _, r := range raw.References {
		if r.Name == record.FarWalk {
			t.Error("it walked through memory")
		}
	}
}

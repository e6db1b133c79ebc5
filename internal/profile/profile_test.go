package profile

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/ksym"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func TestPlanRefuses(t *testing.T) {
	for _, p := range []Plan{
		{Rate: -1},
		{Rate: 1_000_000},
		{Chain: redirect.Plan{Bulks: []int{1, 2}}},
		{Chain: redirect.Plan{Bulks: []int{0}}},
		{Chain: redirect.Plan{Layout: redirect.TwoCore}},
		{Chain: redirect.Plan{Scenarios: []redirect.Scenario{"nonsense"}}},
	} {
		if _, err := Run(t.Context(), p, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, d := range []PairPlan{
		{DevicePair: redirect.DevicePair{In: "a"}},
		{DevicePair: redirect.DevicePair{In: "a", Out: "a"}},
		{DevicePair: redirect.DevicePair{In: "a", Out: "b"}, Rate: -1},
		{DevicePair: redirect.DevicePair{In: "none0", Out: "none1"}},
	} {
		if _, err := RunPair(t.Context(), d, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

// plan is a short one with a few thousand samples.
func plan(operation string) Plan {
	op, err := redirect.ParseOperation(operation)
	if err != nil {
		panic(err)
	}
	return Plan{
		Chain: redirect.Plan{Operations: []redirect.Operation{op}, Schedule: rounds.Schedule{Rounds: stat.MinRounds, Duration: 4 * time.Second}},
		Rate:  3000,
	}
}

func ns(q *stat.Quantity) float64 {
	if q == nil {
		return math.NaN()
	}
	return q.Median
}

func row(p *record.Profile, name functions.Stage) float64 {
	for _, r := range p.Rows {
		if r.Name == string(name) {
			return ns(r.Ns)
		}
	}
	return 0
}

// once is one run that tests share: what they assert holds of every run.
var once = sync.OnceValues(func() (*Raw, error) { return Run(context.Background(), plan("none"), nil) })

func oneRun(t *testing.T) *Raw {
	t.Helper()
	testutil.Root(t)
	raw, err := once()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	return raw
}

// The parts add up to the whole, and each program's samples are its stage's.
func TestRun(t *testing.T) {
	raw := oneRun(t)
	p := raw.Record(&stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"})
	sum := 0.0
	for _, r := range p.Rows {
		sum += r.Ns.Median
		if len(r.Samples) != len(raw.Rounds) {
			t.Errorf("%s: %d samples of %d rounds", r.Name, len(r.Samples), len(raw.Rounds))
		}
	}
	if math.Abs(sum-ns(p.Packet)) > 1e-6*sum {
		t.Errorf("stages are %v ns, the packet %v", sum, ns(p.Packet))
	}
	sum = 0
	for _, f := range p.Functions {
		sum += f.Ns.Median
		own := map[string]functions.Stage{"_generate": functions.StageGenerator,
			"_redirect_map": functions.StageProgram, "_sink": functions.StageSink}
		for suffix, want := range own {
			if strings.HasPrefix(f.Name, "bpf_prog_") && strings.HasSuffix(f.Name, suffix) && f.Stage != string(want) {
				t.Errorf("%s is of stage %s, not %s", f.Name, f.Stage, want)
			}
		}
	}
	want := ns(p.Packet) - row(p, functions.StageUnattributed)
	if math.Abs(sum-want) > 0.01*want {
		t.Errorf("functions are %v ns, stages %v", sum, want)
	}
	if p.Undisturbed == nil || p.Sampling.Windows == 0 {
		t.Errorf("undisturbed %v, %d windows", p.Undisturbed, p.Sampling.Windows)
	}
	if p.Tax == nil {
		t.Fatalf("no tax; warnings %v", p.Warnings)
	}
	if (p.Tax.Estimate == nil) != (p.Tax.Agree == "") {
		t.Errorf("estimate %v, agree %q", p.Tax.Estimate, p.Tax.Agree)
	}
	if len(raw.Code) == 0 {
		t.Error("no code of BPF programs")
	}
	if len(p.Counters) == 0 {
		t.Fatal("neither events of a PMU nor cycles")
	}
	noPMU := slices.ContainsFunc(p.Warnings, func(w record.Warning) bool { return strings.HasPrefix(w.Text, "no PMU") })
	if clock := p.Sampling.Event == "cpu-clock"; noPMU != clock || clock != (p.Counters[0].Name == "tsc-cycles") {
		t.Errorf("event %s, counters %+v, warnings %v", p.Sampling.Event, p.Counters, p.Warnings)
	}
}

// TestEntered checks how functions of the path are entered, by what the kernel's
// source says.
func TestEntered(t *testing.T) {
	raw := oneRun(t)
	seen := make(map[string]map[entryKind]int)
	for _, s := range raw.Stacks {
		if seen[s.innermost()] == nil {
			seen[s.innermost()] = make(map[entryKind]int)
		}
		seen[s.innermost()][s.entry.kind] += s.Samples
	}
	for name, want := range map[string]entryKind{
		"xdp_do_redirect": directly, "dev_map_enqueue": directly, "bq_enqueue": directly, "xdp_return_frame": directly,
		"veth_xdp_rcv": directly, "veth_poll": indirectly, "veth_ndo_xdp_xmit": indirectly, "net_rx_action": indirectly,
	} {
		for kind, n := range seen[name] {
			if kind != want && kind != unknown {
				t.Errorf("%s: %d samples entered %d, want %d", name, n, kind, want)
			}
		}
	}
}

// With FineIBT an indirect call enters a function through a preamble, and with cfi=bhi that calls what poisons the
// arguments: samples there are of the function.
func TestPlacePreamble(t *testing.T) {
	table, err := ksym.Parse(strings.NewReader("1000 t __cfi_f\n1010 t f\n1040 t __bhi_args_2\n1060 t end\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		addr    uint64
		returns bool
		want    Frame
	}{
		{0x1004, false, Frame{Function: "f", Addr: 0x1010}},
		{0x1010, true, Frame{Function: "f", Addr: 0x1010}}, // the call of __bhi_args_2 returns there
		{0x1018, false, Frame{Function: "f", Offset: 8, Addr: 0x1018}},
		{0x1018, true, Frame{Function: "f", Offset: 8, Addr: 0x1018}},
		{0x1044, false, Frame{Function: "__bhi_args_2", Offset: 4, Addr: 0x1044}},
	} {
		if got := place(table, tt.addr, tt.returns); got != tt.want {
			t.Errorf("%#x, %v: %+v, want %+v", tt.addr, tt.returns, got, tt.want)
		}
	}
}

// devicePair makes veth pairs that stand for real devices: usera ==veth== in,
// out ==veth== userb. It returns the namespace and usera's index.
func devicePair(t *testing.T) (lab *netlab.Namespace, user int) {
	t.Helper()
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	userA, _, err := lab.VethPair("usera", "in")
	if err != nil {
		t.Fatal(err)
	}
	_, userB, err := lab.VethPair("out", "userb")
	if err != nil {
		t.Fatal(err)
	}
	if err := userB.EnableGRO(); err != nil {
		t.Fatal(err)
	}
	return lab, userA.Index
}

// runDevices profiles the device pair, of one CPU or, with -1, of all.
func runDevices(t *testing.T, lab *netlab.Namespace, cpu rounds.CPU, length time.Duration) (raw *Raw) {
	t.Helper()
	d := PairPlan{DevicePair: redirect.DevicePair{In: "in", Out: "out",
		Schedule: rounds.Schedule{Rounds: stat.MinRounds, Duration: length}}, CPU: cpu, Rate: 1000}
	err := lab.Do(func() (err error) {
		raw, err = RunPair(t.Context(), d, nil)
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	return raw
}

func TestRunPair(t *testing.T) {
	lab, user := devicePair(t)
	const length = 2 * time.Second
	if raw := runDevices(t, lab, rounds.CPU{}, length); len(raw.Rounds) != 0 || len(raw.Record(nil).Rows) != 0 {
		t.Errorf("%d rounds with no packets", len(raw.Rounds))
	}
	stop := flood.Start(t, lab, user)
	defer stop()
	raw := runDevices(t, lab, rounds.CPU{}, length)
	// Rounds in which no packet came are left out, their references are not.
	without := func(r Round) bool { return !slices.Contains(raw.References[0].Rounds, r.Number) }
	if len(raw.References) < 5 || slices.ContainsFunc(raw.Rounds, without) {
		t.Errorf("references %+v of rounds %+v", raw.References, raw.Rounds)
	}
	p := raw.Record(nil)
	sum := 0.0
	for _, r := range p.Rows {
		sum += r.Ns.Median
	}
	if math.Abs(sum-ns(p.Packet)) > 1e-6*sum {
		t.Errorf("stages are %.1f ns of %.1f", sum, ns(p.Packet))
	}
	if p.Tax == nil {
		t.Errorf("no tax; warnings %v", p.Warnings)
	}
	if len(p.Sampling.CPUs) == 0 || p.Sampling.Packets == 0 {
		t.Errorf("CPUs %v, %d packets", p.Sampling.CPUs, p.Sampling.Packets)
	}
	// One CPU alone: frames go through where the sender runs, on either.
	if one := runDevices(t, lab, rounds.OnCPU(0), length); len(one.CPUs) != 1 {
		t.Errorf("CPUs %v", one.CPUs)
	}
}

func TestAgree(t *testing.T) {
	q := func(low, mid, high float64) *stat.Quantity { return &stat.Quantity{Median: mid, Low: low, High: high} }
	for _, test := range []struct {
		seen, estimate *stat.Quantity
		want           string
	}{
		{q(9, 10, 11), q(9.5, 10.5, 11.5), Agree},
		{q(9, 10, 11), q(19, 20, 21), Disagree},
		{q(-5, 2, 9), q(1.8, 2, 2.2), CannotTell},
		{q(math.NaN(), 2, math.NaN()), q(1.8, 2, 2.2), CannotTell},
	} {
		if got := agree(test.seen, test.estimate); got != test.want {
			t.Errorf("%v against %v: %s, want %s", test.seen, test.estimate, got, test.want)
		}
	}
}

func TestNearest(t *testing.T) {
	phases := []chain.Phase{{Time: 10}, {Time: 20}, {Time: 30}}
	at := 0
	for _, test := range []struct {
		t    uint64
		want int
	}{{9, 0}, {14, 0}, {16, 1}, {29, 2}, {31, 2}, {99, 2}} {
		if at = nearest(phases, at, test.t); at != test.want {
			t.Errorf("nearest to %d is %d, want %d", test.t, at, test.want)
		}
	}
}

func TestIncomplete(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	raw, err := Run(ctx, plan("none"), nil)
	if err != nil || !raw.Incomplete {
		t.Fatalf("stopped: %v, incomplete %v", err, raw != nil && raw.Incomplete)
	}
	p := raw.Record(nil)
	if !p.Incomplete || len(raw.Rounds) > 0 && len(p.Rows) == 0 {
		t.Errorf("incomplete %v, %d rounds, %d rows", p.Incomplete, len(raw.Rounds), len(p.Rows))
	}
}

package profile

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func TestPlanRefuses(t *testing.T) {
	for _, p := range []Plan{
		{Rate: -1},
		{Rate: 1_000_000},
		{Chain: redirect.Plan{Bulks: []int{1, 2}}},
		{Chain: redirect.Plan{Bulks: []int{0}}},
		{Chain: redirect.Plan{Place: redirect.TwoCore}},
		{Chain: redirect.Plan{Scenarios: []redirect.Scenario{"nonsense"}}},
	} {
		if _, err := Run(t.Context(), p, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, d := range []Devices{
		{Devices: redirect.Devices{In: "a"}},
		{Devices: redirect.Devices{In: "a", Out: "a"}},
		{Devices: redirect.Devices{In: "a", Out: "b"}, Rate: -1},
		{Devices: redirect.Devices{In: "none0", Out: "none1"}},
	} {
		if _, err := RunDevices(t.Context(), d, nil); err == nil || strings.Contains(err.Error(), "\n") {
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
		Chain: redirect.Plan{CPU: -1, Operations: []redirect.Operation{op}, Rounds: stat.MinRounds, Duration: 4 * time.Second},
		Rate:  3000,
	}
}

func ns(q *stat.Quantity) float64 {
	if q == nil {
		return math.NaN()
	}
	return q.Median
}

func row(p *record.Profile, name Stage) float64 {
	for _, r := range p.Rows {
		if r.Name == string(name) {
			return ns(r.Ns)
		}
	}
	return 0
}

func TestRun(t *testing.T) {
	testutil.Root(t)
	raw, err := Run(t.Context(), plan("none"), nil)
	if err != nil {
		t.Fatal(err)
	}
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
	if un := row(p, StageUnattributed); math.Abs(un) > 0.05*ns(p.Packet) {
		t.Errorf("%v ns of %v are unattributed", un, ns(p.Packet))
	}
	for _, stage := range []Stage{StageGenerator, StageReceive, StageProgram, StageRedirect, StageTransmit, StageReturn, StageSoftirq, StageSink} {
		if row(p, stage) <= 0 {
			t.Errorf("stage %s took nothing", stage)
		}
	}
	functions := make(map[string]string)
	sum = 0
	for _, f := range p.Functions {
		functions[f.Name] = f.Stage
		sum += f.Ns.Median
	}
	if want := ns(p.Packet) - row(p, StageUnattributed) - row(p, StageObserver); math.Abs(sum-want) > 0.01*want {
		t.Errorf("functions are %v ns, stages without observer %v", sum, want)
	}
	for name, stage := range functions {
		own := map[string]Stage{"_generate": StageGenerator, "_redirect_map": StageProgram, "_sink": StageSink}
		for suffix, want := range own {
			if strings.HasPrefix(name, "bpf_prog_") && strings.HasSuffix(name, suffix) && stage != string(want) {
				t.Errorf("%s is of stage %s, not %s", name, stage, want)
			}
		}
	}
	if functions["xdp_do_redirect"] == "" {
		t.Errorf("no sample in xdp_do_redirect: %v", functions)
	}
	if p.Tax == nil || p.Tax.Estimate == nil || p.Tax.Agree == "" || p.Tax.Direct == nil {
		t.Fatalf("no tax: %+v, warnings %v", p.Tax, p.Warnings)
	}
	if len(raw.Code) == 0 {
		t.Error("no code of BPF programs")
	}
	if len(p.Counters) == 0 {
		t.Error("neither events of a PMU nor cycles")
	}
	noPMU := slices.ContainsFunc(p.Warnings, func(w record.Warning) bool { return strings.HasPrefix(w.Text, "no PMU") })
	if clock := p.Sampling.Event == "cpu-clock"; noPMU != clock || clock != (p.Counters[0].Name == "tsc-cycles") {
		t.Errorf("event %s, counters %+v, warnings %v", p.Sampling.Event, p.Counters, p.Warnings)
	}
}

// TestEntered checks how functions of the path are entered, by what the kernel's
// source says.
func TestEntered(t *testing.T) {
	testutil.Root(t)
	raw, err := Run(t.Context(), plan("none"), nil)
	if err != nil {
		t.Fatal(err)
	}
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
	if seen["veth_poll"][indirectly] == 0 || seen["xdp_do_redirect"][directly] == 0 {
		t.Errorf("entries %v", seen)
	}
	// The chain's programs stand in the dispatcher, which jumps to them directly. It
	// is made anew whenever anybody on the machine attaches a program.
	for name, kinds := range seen {
		for _, own := range []string{"_redirect_map", "_generate", "_sink"} {
			if isProgram(name) && strings.HasSuffix(name, own) && 2*kinds[indirectly] > kinds[directly] {
				t.Errorf("%s was entered indirectly: %v", name, kinds)
			}
		}
	}
}

// TestBusyLoop puts a loop into the program under test that takes the packet a known
// time, the difference of two runs, and looks for it there.
func TestBusyLoop(t *testing.T) {
	testutil.Root(t)
	var off []float64
	for range 3 { // the machine's moods
		var packet, program [2]float64
		for i, operation := range []string{"none", "spin:1000"} {
			raw, err := Run(t.Context(), plan(operation), nil)
			if err != nil {
				t.Fatal(err)
			}
			p := raw.Record(nil)
			packet[i], program[i] = ns(p.Packet)-row(p, StageObserver), row(p, StageProgram)
		}
		known, shown := packet[1]-packet[0], program[1]-program[0]
		t.Logf("a loop of %.0f ns shows as %.0f", known, shown)
		if off = append(off, shown/known-1); math.Abs(shown/known-1) < 0.1 {
			return
		}
	}
	t.Errorf("the loop is off by %.2f of what it takes", off)
}

// TestIndirectCall adds an indirect call to the chain: the devmap runs a program for
// each frame, which does not stand in the dispatcher.
func TestIndirectCall(t *testing.T) {
	testutil.Root(t)
	second, err := price.Load("second")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	raw, err := runPrepared(t.Context(), plan("none"), nil, func(c *redirect.Chain) error { return c.SetPortProgram(second) })
	if err != nil {
		t.Fatal(err)
	}
	p := raw.Record(&stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"})
	for _, s := range p.Tax.Sites {
		for _, target := range s.Targets {
			if strings.HasSuffix(target, "_second") {
				if total := ns(s.Thunk) + ns(s.Landing); total < 1 {
					t.Errorf("the call of %s from %s+%#x takes %.2f ns", target, s.Function, s.Offset, total)
				}
				t.Logf("%s+%#x: thunk %.2f, landing %.2f ns", s.Function, s.Offset, ns(s.Thunk), ns(s.Landing))
				return
			}
		}
	}
	t.Errorf("no site calls the program: %+v", p.Tax.Sites)
}

// Real interfaces are veth pairs here: usera ==veth== in, out ==veth== userb.
func TestRunDevices(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	user, _, err := lab.VethPair("usera", "in")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lab.VethPair("out", "userb"); err != nil {
		t.Fatal(err)
	}
	if err := lab.EnableGRO("userb"); err != nil {
		t.Fatal(err)
	}
	run := func(cpu int) (raw *Raw) {
		d := Devices{Devices: redirect.Devices{In: "in", Out: "out", Rounds: stat.MinRounds, Duration: 4 * time.Second}, CPU: cpu, Rate: 1000}
		err := lab.Do(func() (err error) {
			raw, err = RunDevices(t.Context(), d, nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if raw := run(-1); len(raw.Rounds) != 0 || len(raw.Record(nil).Rows) != 0 {
		t.Errorf("%d rounds with no packets", len(raw.Rounds))
	}
	stop := flood.Start(t, lab, user)
	defer stop()
	raw := run(-1)
	p := raw.Record(nil)
	sum := 0.0
	for _, r := range p.Rows {
		sum += r.Ns.Median
	}
	// Idle time comes in hundredths of a second, which is 4 % of a round here.
	if math.Abs(sum-ns(p.Packet)) > 1e-6*sum || math.Abs(row(p, StageUnattributed)) > 0.1*sum {
		t.Errorf("stages are %.1f ns of %.1f, %.1f are unattributed", sum, ns(p.Packet), row(p, StageUnattributed))
	}
	for _, stage := range []Stage{StageReceive, StageRedirect, StageTransmit} {
		if row(p, stage) <= 0 {
			t.Errorf("stage %s took nothing: %+v", stage, p.Rows)
		}
	}
	if p.Tax == nil || len(p.Sampling.CPUs) == 0 || p.Sampling.Packets == 0 {
		t.Errorf("tax %v, sampling %+v, warnings %v", p.Tax, p.Sampling, p.Warnings)
	}
	// One CPU alone: frames go through where the sender runs, on either.
	if one := run(0); len(one.CPUs) != 1 {
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

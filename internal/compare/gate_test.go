package compare

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// gateTexts are rows of a verdict, in short.
func gateTexts(g *record.Gate) (texts []string) {
	for _, r := range g.Rows {
		text := r.Name + " " + r.Verdict
		if r.Missing != "" {
			text += ": " + r.Missing
		}
		texts = append(texts, text)
	}
	return texts
}

func TestGate(t *testing.T) {
	const one, sixteen = "redirect-map/bulk=1", "redirect-map/bulk=16"
	same := func(*record.Lab) {}
	for name, test := range map[string]struct {
		base, now func(*record.Lab)
		opts      GateOptions
		verdict   string
		why       string // a part of it
		rows      []string
	}{
		"the same": {base: same, now: same, verdict: "within", rows: []string{one + " within", sixteen + " within"}},
		"an instruction more": {base: same, now: func(l *record.Lab) { *l.Rows[1].Instructions++ }, verdict: "beyond",
			rows: []string{one + " within", sixteen + " beyond"}},
		"the least more": {base: same, now: func(l *record.Lab) { *l.Rows[1].Instructions += 1.0 / 128 }, verdict: "beyond",
			rows: []string{one + " within", sixteen + " beyond"}},
		"less": {base: same, now: func(l *record.Lab) { *l.Rows[0].Instructions -= 4 }, verdict: "within",
			rows: []string{one + " within", sixteen + " within"}},
		"a branch more": {base: same, now: func(l *record.Lab) { *l.Rows[0].CallsPerPacket += 0.125 }, verdict: "beyond",
			rows: []string{one + " beyond", sixteen + " within"}},
		"as many as allowed": {base: same, now: func(l *record.Lab) { *l.Rows[0].Instructions += 4 },
			opts:    GateOptions{Max: []Allowance{{Count: "instructions", More: 4}}},
			verdict: "within", rows: []string{one + " within", sixteen + " within"}},
		"more than allowed": {base: same, now: func(l *record.Lab) { *l.Rows[0].Instructions += 4.5 },
			opts:    GateOptions{Max: []Allowance{{Count: "instructions", More: 4}}},
			verdict: "beyond", rows: []string{one + " beyond", sixteen + " within"}},
		"percent": {base: same, now: func(l *record.Lab) { *l.Rows[0].Instructions *= 1.01; *l.Rows[1].Instructions *= 1.011 },
			opts:    GateOptions{Max: []Allowance{{Count: "instructions", More: 1.05, Percent: true}}},
			verdict: "beyond", rows: []string{one + " within", sixteen + " beyond"}},
		"for one row": {base: same, now: func(l *record.Lab) { *l.Rows[0].Instructions += 4; *l.Rows[1].Instructions += 4 },
			opts:    GateOptions{Max: []Allowance{{Row: one, Count: "instructions", More: 4}, {Count: "instructions", More: 3}}},
			verdict: "beyond", rows: []string{one + " within", sixteen + " beyond"}},
		"not counted": {base: same, now: func(l *record.Lab) { l.Rows = l.Rows[:1] }, verdict: "cannot tell", why: "bulk=16: it was not counted",
			rows: []string{one + " within", sixteen + " cannot tell: it was not counted"}},
		"refused": {base: same, now: refuse(0, "it did not boot"), verdict: "cannot tell", why: "bulk=1: it did not boot",
			rows: []string{one + " cannot tell: it did not boot", sixteen + " within"}},
		"refused in the base": {base: refuse(0, "it needs Linux 6.15"), now: same, verdict: "within", rows: []string{sixteen + " within"}},
		"lacking on both sides": {base: refuse(0, "it needs Linux 6.15"), now: refuse(0, "it needs Linux 6.15"), verdict: "within",
			rows: []string{sixteen + " within"}},
		"a configuration that nobody knows": {base: func(l *record.Lab) { oneBuild(l).Config = "" },
			now: func(l *record.Lab) { oneBuild(l).Config = "" }, verdict: "cannot tell", why: "unlike in config: --unlike config",
			rows: []string{one + " cannot tell: the builds are unlike", sixteen + " cannot tell: the builds are unlike"}},
		"one more on wires": {base: onWires, now: func(l *record.Lab) { onWires(l); *l.Rows[0].Instructions++ }, verdict: "cannot tell",
			why: "on wires two boots differ", rows: []string{
				"nic=igb/dma=direct/" + one + " cannot tell: on wires two boots differ in some instructions, and nothing says how many",
				"nic=igb/dma=direct/" + sixteen + " within"}},
		"within the spread": {base: spreads(2), now: func(l *record.Lab) { spreads(1.5)(l); *l.Rows[0].Instructions += 2 }, verdict: "within",
			rows: []string{"nic=igb/dma=direct/" + one + " within", "nic=igb/dma=direct/" + sixteen + " within"}},
		"more than the spread": {base: spreads(2), now: func(l *record.Lab) { spreads(2)(l); *l.Rows[0].Instructions += 2.5 }, verdict: "beyond",
			rows: []string{"nic=igb/dma=direct/" + one + " beyond", "nic=igb/dma=direct/" + sixteen + " within"}},
		"a branch more on wires": {base: onWires, now: func(l *record.Lab) { onWires(l); *l.Rows[0].CallsPerPacket++ }, verdict: "beyond",
			rows: []string{"nic=igb/dma=direct/" + one + " beyond", "nic=igb/dma=direct/" + sixteen + " within"}},
		"refused and beyond": {base: same, now: func(l *record.Lab) { refuse(0, "x")(l); *l.Rows[1].Instructions++ }, verdict: "beyond",
			rows: []string{one + " cannot tell: x", sixteen + " beyond"}},
		"more DMA, without instructions": {base: bare, now: func(l *record.Lab) {
			bare(l)
			l.Rows[0].DMA = []record.LabDMA{{Part: "out-xmit", Map: 1, Unmap: 0.125}}
		}, verdict: "cannot tell", why: "takes more maps (0 → 1)", rows: []string{
			"nic=igb/dma=direct/" + one + " cannot tell: it has no instructions, and a packet takes more maps (0 → 1)",
			"nic=igb/dma=direct/" + sixteen + " within"}},
		"more DMA, with instructions": {base: spreads(1), now: func(l *record.Lab) {
			spreads(1)(l)
			l.Rows[0].DMA = []record.LabDMA{{Part: "out-xmit", Map: 1}}
		}, verdict: "within", rows: []string{"nic=igb/dma=direct/" + one + " within", "nic=igb/dma=direct/" + sixteen + " within"}},
		"copies that the base has not counted": {base: bare, now: func(l *record.Lab) {
			bare(l)
			n := 1.0
			l.Rows[0].DMA = []record.LabDMA{{Part: "in-poll", Copy: &n}}
		}, verdict: "within", rows: []string{"nic=igb/dma=direct/" + one + " within", "nic=igb/dma=direct/" + sixteen + " within"}},
		"no instructions": {base: same, now: func(l *record.Lab) { l.Rows[0].Instructions = nil }, verdict: "cannot tell",
			why:  "only one side has instructions",
			rows: []string{one + " cannot tell: only one side has instructions", sixteen + " within"}},
		"no indirect branches": {base: same, now: uncalled, verdict: "cannot tell", why: "only one side has indirect branches",
			rows: []string{one + " cannot tell: only one side has indirect branches", sixteen + " within"}},
		"no indirect branches in the base": {base: uncalled, now: same, verdict: "cannot tell", why: "only one side has indirect branches",
			rows: []string{one + " cannot tell: only one side has indirect branches", sixteen + " within"}},
		"no indirect branches, and beyond": {base: same, now: func(l *record.Lab) { uncalled(l); *l.Rows[0].Instructions++ },
			verdict: "beyond", rows: []string{one + " beyond", sixteen + " within"}},
		"no indirect branches, and beyond on wires": {base: func(l *record.Lab) { onWires(l); uncalled(l) },
			now:     func(l *record.Lab) { onWires(l); uncalled(l); *l.Rows[0].Instructions++ },
			verdict: "cannot tell", why: "on wires two boots differ", rows: []string{
				"nic=igb/dma=direct/" + one + " cannot tell: on wires two boots differ in some instructions, and nothing says how many",
				"nic=igb/dma=direct/" + sixteen + " within"}},
		"no indirect branches on both sides": {base: uncalled, now: uncalled,
			opts:    GateOptions{Max: []Allowance{{Count: "instructions"}, {Row: sixteen, Count: "indirect"}}},
			verdict: "within", rows: []string{one + " within", sixteen + " within"}},
		"allowed indirect branches that no side has": {base: uncalled, now: uncalled,
			opts:    GateOptions{Max: []Allowance{{Count: "indirect", More: 0.1}}},
			verdict: "cannot tell", why: "neither side has indirect branches, which --max is of",
			rows: []string{one + " cannot tell: neither side has indirect branches, which --max is of", sixteen + " within"}},
		"another compiler": {base: same, now: func(l *record.Lab) { oneBuild(l).Compiler = "gcc 13"; *l.Rows[0].Instructions++ },
			verdict: "cannot tell", why: "unlike in compiler: --unlike compiler",
			rows: []string{one + " cannot tell: the builds are unlike", sixteen + " cannot tell: the builds are unlike"}},
		"another compiler, allowed": {base: same, now: func(l *record.Lab) { oneBuild(l).Compiler = "gcc 13"; *l.Rows[0].Instructions++ },
			opts:    GateOptions{Unlike: []string{"compiler"}},
			verdict: "beyond", rows: []string{one + " beyond", sixteen + " within"}},
		"one of two allowed": {base: same, now: func(l *record.Lab) { oneBuild(l).Compiler, oneBuild(l).Config = "gcc 13", "" },
			opts:    GateOptions{Unlike: []string{"compiler"}},
			verdict: "cannot tell", why: "unlike in config: --unlike config",
			rows: []string{one + " cannot tell: the builds are unlike", sixteen + " cannot tell: the builds are unlike"}},
		"a base without builds": {base: func(l *record.Lab) { l.Rows[0].Build, l.Rows[1].Build = nil, nil }, now: same,
			verdict: "cannot tell", why: "unlike in compiler, config, boot, cpu, qemu, unthunk",
			rows: []string{one + " cannot tell: the builds are unlike", sixteen + " cannot tell: the builds are unlike"}},
	} {
		base, now := recordtest.GateLab("debian:6.12"), recordtest.GateLab(".")
		test.base(base)
		test.now(now)
		g, err := Gate(base, now, test.opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g.Verdict != test.verdict || !strings.Contains(g.Why, test.why) || (g.Why == "") != (test.why == "") {
			t.Errorf("%s: %s, %q", name, g.Verdict, g.Why)
		}
		if diff := cmp.Diff(test.rows, gateTexts(g)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if (g.Nothing() != "") != (test.verdict == "cannot tell") || g.Regressed() != (test.verdict == "beyond") {
			t.Errorf("%s: nothing %q, regressed %v", name, g.Nothing(), g.Regressed())
		}
		if _, err := record.Parse([]byte(recordtest.Marshal(t, g))); err != nil {
			t.Errorf("%s: what it writes is not read: %v", name, err)
		}
	}
}

// Two rows of one place, whose names differ, are refused on either side: one of them may be beyond.
func TestGateTwice(t *testing.T) {
	t.Parallel()
	twice := func(l *record.Lab) {
		more := l.Rows[1]
		more.Name += "/again"
		n := *more.Instructions + 100
		more.Instructions = &n
		l.Rows = append([]record.LabRow{more}, l.Rows...)
	}
	for want, change := range map[string]func(base, now *record.Lab){
		"rows ":                           func(base, _ *record.Lab) { twice(base) },
		"what is compared with it: rows ": func(_, now *record.Lab) { twice(now) },
	} {
		base, now := recordtest.GateLab("debian:6.12"), recordtest.GateLab(".")
		change(base, now)
		_, err := Gate(base, now, GateOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "are both of redirect-map/bulk=16") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	base, now := recordtest.GateLab("debian:6.12"), recordtest.GateLab(".")
	boots := now.Rows[0]
	boots.Labels = maps.Clone(boots.Labels)
	boots.Labels["append"] = "mitigations=off"
	now.Rows = append(now.Rows, boots)
	if _, err := Gate(base, now, GateOptions{}); err == nil {
		t.Error("two boots of a place of the base: no error")
	}
}

// Warnings that both sides have come once, those of one with its name. One beside each of the other side's would take 20 s.
func TestGateDoubts(t *testing.T) {
	t.Parallel()
	base, now := recordtest.GateLab("debian:6.12"), recordtest.GateLab(".")
	for i := range record.MaxRows {
		base.Warnings = append(base.Warnings, record.Warning{Text: fmt.Sprintf("%0900d", i)})
		now.Warnings = append(now.Warnings, record.Warning{Text: fmt.Sprintf("%0900d", i+1)})
	}
	g, err := Gate(base, now, GateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, w := range g.Warnings {
		prefix, _, _ := strings.Cut(w.Text, "0")
		count[prefix]++
	}
	if diff := cmp.Diff(map[string]int{"base: ": 1, "now: ": 1, "": record.MaxRows - 1}, count); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// uncalled is of a program that was not traced: its first row has no indirect branches.
func uncalled(l *record.Lab) { l.Rows[0].CallsPerPacket = nil }

// Where one side was not traced its indirect branches are not gone, and not new: none is compared, and the gate says so.
func TestGateNotTraced(t *testing.T) {
	untraced := func(l *record.Lab) { uncalled(l); l.Rows[0].Sites = nil }
	more := func(l *record.Lab) { *l.Rows[0].Instructions++ }
	same := func(*record.Lab) {}
	for name, test := range map[string]struct {
		base, now func(*record.Lab)
		told      string // by a warning, or by the row
	}{
		"now":                {same, untraced, "only one side has indirect branches"},
		"the base":           {untraced, same, "only one side has indirect branches"},
		"now, and beyond":    {same, func(l *record.Lab) { untraced(l); more(l) }, "not compared: now has none counted"},
		"the base, and more": {untraced, more, "not compared: the base has none counted"},
	} {
		base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
		test.base(base)
		test.now(now)
		g, err := Gate(base, now, GateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		told := g.Rows[0].Missing
		for _, w := range g.Warnings {
			told += w.Text
		}
		if len(g.Rows[0].Sites) > 0 || !strings.Contains(told, test.told) {
			t.Errorf("%s: %+v, %q, want %q", name, g.Rows[0].Sites, told, test.told)
		}
		for i := range now.Rows {
			now.Rows[i].Name = base.Rows[i].Name
		}
		for _, row := range Labs(base, now).Rows {
			for _, what := range row.What {
				if strings.Contains(what, "site ") {
					t.Errorf("%s: compare says %q", name, what)
				}
			}
		}
	}
}

func onWires(l *record.Lab) {
	for i := range l.Rows {
		l.Rows[i].Labels["nic"], l.Rows[i].Labels["dma"] = "igb", "direct"
	}
}

// bare makes rows of wires that have no instructions.
func bare(l *record.Lab) {
	onWires(l)
	for i := range l.Rows {
		l.Rows[i].Instructions = nil
	}
}

// A row without instructions says so; one that has them does not.
func TestGateBare(t *testing.T) {
	for want, change := range map[int]func(*record.Lab){0: onWires, 2: bare} {
		base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
		change(base)
		change(now)
		g, err := Gate(base, now, GateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, w := range g.Warnings {
			if strings.Contains(w.Text, "no instructions: indirect branches alone") {
				told++
			}
		}
		if told != want {
			t.Errorf("%d rows are told to have no instructions, want %d: %v", told, want, g.Warnings)
		}
	}
}

// spreads makes rows of wires that say by how many instructions boots differ.
func spreads(n float64) func(*record.Lab) {
	return func(l *record.Lab) {
		onWires(l)
		for i := range l.Rows {
			l.Rows[i].Spread = &n
		}
	}
}

func refuse(row int, why string) func(*record.Lab) {
	return func(l *record.Lab) {
		r := &l.Rows[row]
		r.Refused, r.Instructions, r.CallsPerPacket, r.Sites, r.Functions = why, nil, nil, nil, nil
	}
}

// oneBuild makes the build of all rows one, and returns it.
func oneBuild(l *record.Lab) *record.LabBuild {
	for i := range l.Rows {
		l.Rows[i].Build = l.Rows[0].Build
	}
	return l.Rows[0].Build
}

// An edit gives a program another tag, and no other name: what it calls is neither gone nor new. Two programs of a name keep their tags.
func TestGateTags(t *testing.T) {
	symbol := func(tag, name string) string { return "bpf_prog_" + strings.Repeat(tag, 16) + "_" + name }
	lab := func(balancer, udp, first, second string) *record.Lab {
		l := recordtest.GateLab("a")
		row := &l.Rows[0]
		row.Sites = []record.LabSite{
			{Function: symbol(balancer, "balancer"), Target: symbol(udp, "lb_udp"), PerPacket: 0.5},
			{Function: symbol(balancer, "balancer"), Target: symbol(first, "twin"), PerPacket: 0.25},
			{Function: symbol(balancer, "balancer"), Target: symbol(second, "twin"), PerPacket: 0.25},
		}
		row.Functions = []record.LabFunction{{Function: symbol(udp, "lb_udp"), PerPacket: 0.5}}
		return l
	}
	g, err := Gate(lab("1", "2", "3", "4"), lab("5", "6", "3", "4"), GateOptions{})
	if err != nil || len(g.Rows[0].Sites) != 0 || len(g.Rows[0].Functions) != 0 {
		t.Errorf("another tag: %+v, %+v, %v", g.Rows[0].Sites, g.Rows[0].Functions, err)
	}
	if g, err = Gate(lab("1", "2", "3", "4"), lab("5", "6", "3", "7"), GateOptions{}); err != nil {
		t.Fatal(err)
	}
	want := []record.GateChange{{Function: "balancer [bpf]", Target: symbol("7", "twin"), New: 0.25},
		{Function: "balancer [bpf]", Target: symbol("4", "twin"), Old: 0.25}}
	if diff := cmp.Diff(want, g.Rows[0].Sites); diff != "" {
		t.Errorf("two of a name (-want +got):\n%s", diff)
	}
}

// What two rows differ in is named and priced; of kernels without retpolines a price says nothing.
func TestGateChanges(t *testing.T) {
	base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
	row := &now.Rows[0]
	row.Sites = append(row.Sites, record.LabSite{Function: "f", Target: "new", PerPacket: 0.5}, record.LabSite{Function: "g", Pointer: "ops.x",
		PerPacket: 1})
	row.Sites[0].PerPacket = 0
	row.Functions[0].PerPacket++
	*row.CallsPerPacket += 0.5
	price := &stat.Quantity{Median: 10, Low: 9, High: 12, N: 7, Unit: "ns"}
	g, err := Gate(base, now, GateOptions{Price: price})
	if err != nil {
		t.Fatal(err)
	}
	ns := func(low, median, high float64) *stat.Quantity {
		return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: "ns"}
	}
	old := base.Rows[0].Sites[0]
	want := []record.GateChange{
		{Function: "g", Target: "ops.x", New: 1, Ns: ns(9, 10, 12)},
		{Function: "f", Target: "new", New: 0.5, Ns: ns(4.5, 5, 6)},
		{Function: old.Function, Target: old.Target, Old: old.PerPacket, Ns: ns(-12*old.PerPacket, -10*old.PerPacket, -9*old.PerPacket)},
	}
	if diff := cmp.Diff(want, g.Rows[0].Sites); diff != "" {
		t.Errorf("sites (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ns(4.5, 5, 6), g.Rows[0].Ns); diff != "" {
		t.Errorf("ns (-want +got):\n%s", diff)
	}
	if f := g.Rows[0].Functions; len(f) != 1 || f[0].Difference() != 1 || f[0].Ns != nil {
		t.Errorf("functions %+v", f)
	}
	row.Thunk = "plain jmp"
	if g, err = Gate(base, now, GateOptions{Price: price}); err != nil || g.Rows[0].Ns != nil || g.Rows[0].Sites[0].Ns != nil {
		t.Errorf("without retpolines: %+v, %v", g.Rows[0], err)
	}
}

// A price is of what it was measured for: a retpoline whose target CFI does not test, on hardware.
func TestGatePrices(t *testing.T) {
	price := &stat.Quantity{Median: 10, Low: 9, High: 12, N: 7, Unit: "ns"}
	const tested = "no ns: the price is of a retpoline whose target CFI does not test, and "
	on := func(thunk, virtual string) host.Fingerprint {
		return host.Fingerprint{IndirectThunk: thunk, Virtual: virtual}
	}
	for _, test := range []struct {
		name             string
		base, now, thunk string
		on               host.Fingerprint
		want             string // begins the warning; empty where there are ns
	}{
		{"alike", "", "", "retpoline", on("retpoline", "none"), ""},
		{"the machine's thunk is not known", "", "", "retpoline", on("", ""), ""},
		{"cfi=off", "", "kcfi-off", "retpoline", on("retpoline", "KVM"), ""},
		{"tested now", "", "kcfi", "retpoline", on("retpoline", ""), tested + "here it does (kcfi)"},
		{"tested then", "fineibt", "", "retpoline", on("retpoline", ""), tested + "in the base it does (fineibt)"},
		{"another machine's thunk", "", "", "retpoline", on("ITS thunk", ""), "no ns: the price is of an indirect call by ITS"},
		{"software", "", "", "retpoline", on("retpoline", "QEMU TCG"), "no ns: the price is of an emulated CPU"},
		{"another thunk", "", "", "plain jmp", on("retpoline", ""), "no ns: the price of a retpoline"},
	} {
		base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
		row := &now.Rows[0]
		base.Rows[0].Sites[0].Check, row.Sites[0].Check, row.Thunk = test.base, test.now, test.thunk
		row.Sites = append(row.Sites, record.LabSite{Function: "f", Target: "new", PerPacket: 0.5})
		*row.CallsPerPacket += 0.5
		g, err := Gate(base, now, GateOptions{Price: price, PricedOn: test.on, PriceOf: "a machine"})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		warned := slices.ContainsFunc(g.Warnings, func(w record.Warning) bool {
			return w.Row == "" && test.want != "" && strings.HasPrefix(w.Text, test.want)
		})
		if priced := g.Rows[0].Ns != nil; priced != (test.want == "") || priced == warned || (g.Rows[0].Sites[0].Ns != nil) != priced {
			t.Errorf("%s: %v, sites %+v, warnings %v", test.name, g.Rows[0].Ns, g.Rows[0].Sites, g.Warnings)
		}
		if g.PriceThunk != test.on.IndirectThunk {
			t.Errorf("%s: a price of %q", test.name, g.PriceThunk)
		}
	}
}

func TestGateBase(t *testing.T) {
	base, now := recordtest.GateLab("a"), recordtest.GateLab("b")
	refuse(0, "it needs Linux 6.15")(base)
	base.Warn("", "old doubt")
	base.Warn("a/bulk=1", "doubt of both")
	now.Warn("b/bulk=1", "new doubt")
	now.Warn("b/bulk=1", "doubt of both")
	g, err := Gate(base, now, GateOptions{})
	if err != nil || len(g.Warnings) != 4 || g.Warnings[0].Text != "base: old doubt" || g.Warnings[1].Text != "now: new doubt" ||
		g.Warnings[2].Text != "doubt of both" ||
		g.Warnings[3] != (record.Warning{Row: "redirect-map/bulk=1", Text: "left out, as the base has no number: it needs Linux 6.15"}) {
		t.Errorf("%+v, %v", g, err)
	}
	for want, change := range map[string]func(*record.Lab){
		"stopped before its end": func(l *record.Lab) { l.Incomplete = true },
		"no row":                 func(l *record.Lab) { l.Rows = nil },
		"no row of it has a number: it did not boot": func(l *record.Lab) {
			refuse(0, "it did not boot")(l)
			refuse(1, "it did not boot")(l)
		},
		"rows of 2 kernels": func(l *record.Lab) { l.Rows[1].Labels["kernel"] = "other" },
	} {
		base := recordtest.GateLab("a")
		change(base)
		if _, err := Gate(base, recordtest.GateLab("b"), GateOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err = Gate(recordtest.GateLab("a"), recordtest.GateLab("b"), GateOptions{Max: []Allowance{{Row: "drop/bulk=1", Count: "indirect"}}})
	if err == nil || err.Error() != `the base has no row "drop/bulk=1": its rows are redirect-map/bulk=1, redirect-map/bulk=16` {
		t.Error(err)
	}
}

// A base of one kernel with several command lines tells rows apart by them.
func TestGateBoots(t *testing.T) {
	both := func(kernel string) *record.Lab {
		l := recordtest.GateLab(kernel)
		l.Rows[1].Labels["bulk"], l.Rows[1].Labels["append"] = "1", "spectre_v2=off"
		return l
	}
	now := both("b")
	*now.Rows[1].Instructions++
	g, err := Gate(both("a"), now, GateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"redirect-map/bulk=1 within", "append=spectre_v2=off/redirect-map/bulk=1 beyond"}
	if diff := cmp.Diff(want, gateTexts(g)); diff != "" {
		t.Error(diff)
	}
}

func TestParseAllowance(t *testing.T) {
	for text, want := range map[string]Allowance{
		"instructions=+4":                      {Count: "instructions", More: 4},
		"indirect=+0.5%":                       {Count: "indirect", More: 0.5, Percent: true},
		"redirect-map/bulk=16:instructions=+0": {Row: "redirect-map/bulk=16", Count: "instructions"},
		"prog=a:b.o/bulk=1:indirect=+1e2":      {Row: "prog=a:b.o/bulk=1", Count: "indirect", More: 100},
	} {
		if got, err := ParseAllowance(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "instructions", "instructions=", "instructions=4", "instructions=-4", "instructions=+-4",
		"instructions=+x",
		"instructions=+NaN", "instructions=+Inf",
		"instructions=+1e10", "instructions=+0x10", "ns=+4", ":instructions=+4", "instructions=+4%%",
		"instructions=++4", "instructions=+1_0", "row:", "instructions=+"} {
		if got, err := ParseAllowance(text); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// A program's rows have instructions alone. Packets that come out otherwise are beyond, unless they may; other packets
// cannot be told.
func TestGateProgram(t *testing.T) {
	lab := func(instructions float64, outcome, packets string) *record.Lab {
		l := recordtest.GateLab("k")
		l.Rows = l.Rows[:1]
		l.Rows[0].Labels = map[string]string{"kernel": "k", "prog": "lb", "class": "verdict/tx", "packets": "p.pcap"}
		l.Rows[0].Instructions, l.Rows[0].CallsPerPacket, l.Rows[0].Sites, l.Rows[0].Functions = &instructions, nil, nil, nil
		l.Rows[0].Program = &record.LabProgram{Outcome: outcome, Source: record.PacketSource{Hash: packets}, Verdicts: map[string]int{outcome: 2}}
		return l
	}
	for name, test := range map[string]struct {
		now                    *record.Lab
		opts                   GateOptions
		verdict, why, behavior string
	}{
		"the same":              {lab(40, "a", "x"), GateOptions{}, "within", "", ""},
		"one more":              {lab(41, "a", "x"), GateOptions{}, "beyond", "", ""},
		"one less, otherwise":   {lab(39, "b", "x"), GateOptions{}, "beyond", "", "b 2, which were a 2"},
		"otherwise, and it may": {lab(40, "b", "x"), GateOptions{BehaviorMayChange: true}, "within", "", "b 2, which were a 2"},
		"other packets":         {lab(40, "b", "y"), GateOptions{}, "cannot tell", "unlike in packets", ""},
		"a redirect":            {recordtest.GateLab("k"), GateOptions{}, "cannot tell", "it was not counted", ""},
	} {
		g, err := Gate(lab(40, "a", "x"), test.now, test.opts)
		if err != nil {
			t.Fatal(err)
		}
		r := g.Rows[0]
		if g.Verdict != test.verdict || !strings.Contains(g.Why, test.why) || !strings.Contains(r.Behavior, test.behavior) ||
			(test.behavior == "") != (r.Behavior == "") || r.Name != "prog=lb/verdict/tx" || r.Indirect != nil {
			t.Errorf("%s: %s, %q, %+v", name, g.Verdict, g.Why, r)
		}
	}
}

// A row that is beyond says in which functions, where both sides were traced and the second count is the first.
func TestGateTraces(t *testing.T) {
	traced := func(kernel string, more uint64) *record.Lab {
		l := recordtest.GateLab(kernel)
		for i := range l.Rows {
			row := &l.Rows[i]
			executed := uint64(*row.Instructions*128) + 128*more
			*row.Instructions += float64(more)
			row.Trace = &record.LabTrace{Packets: 128, Executed: executed, Functions: []record.LabTraceFunction{
				{Function: "xdp_do_redirect", Stage: "redirect", Executed: 128 * (50 + more), Inclusive: 128 * (50 + more)},
				{Function: "veth_poll", Stage: "receive", Executed: executed - 128*(50+more), Inclusive: executed - 128*(50+more)},
			}}
		}
		return l
	}
	base, now := traced("a", 0), traced("b", 7)
	g, err := Gate(base, now, GateOptions{})
	if err != nil || g.Verdict != record.GateBeyond || !CanTrace(g, base) || CanTrace(g, recordtest.GateLab("a")) {
		t.Fatalf("%+v, %v", g, err)
	}
	AddTraces(g, base, now)
	tr := g.Rows[0].Trace
	if tr == nil || len(tr.Functions) != 1 || tr.Functions[0].Name != "xdp_do_redirect" || tr.Functions[0].Difference != 7 {
		t.Errorf("%+v, %v", tr, g.Warnings)
	}
	if _, err := record.Parse([]byte(recordtest.Marshal(t, g))); err != nil {
		t.Error(err)
	}
	for want, again := range map[string]*record.Lab{"counted otherwise": traced("b", 8), "not traced: it hung": traced("b", 7)} {
		if strings.Contains(want, "hung") {
			again.Rows[0].Refused = "it hung"
		}
		g, err := Gate(base, now, GateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		AddTraces(g, base, again)
		if g.Rows[0].Trace != nil || len(g.Warnings) == 0 || !strings.Contains(g.Warnings[0].Text, want) {
			t.Errorf("%+v, want %s", g.Warnings, want)
		}
	}
	// On wires the second count may differ by as much as two boots do.
	spread := 1.0
	for i := range now.Rows {
		now.Rows[i].Spread = &spread
	}
	if g, err = Gate(base, now, GateOptions{}); err != nil {
		t.Fatal(err)
	}
	if AddTraces(g, base, traced("b", 8)); g.Rows[0].Trace == nil || g.Rows[0].Trace.Difference != 8 {
		t.Errorf("%+v, %v", g.Rows[0].Trace, g.Warnings)
	}
	if g, err := Gate(base, traced("b", 0), GateOptions{}); err != nil || CanTrace(g, base) {
		t.Errorf("what is within needs no trace: %v", err)
	}
}

// A program that redirects to another place is beyond; where that is not known of both, a line says so.
func TestGateRedirects(t *testing.T) {
	lab := func(to string) *record.Lab {
		l := recordtest.GateLab("a")
		l.Rows[0].Program = &record.LabProgram{Outcome: "same", Redirects: to, Source: record.PacketSource{Hash: "packets"},
			Verdicts: map[string]int{"redirect": 2}}
		return l
	}
	for _, tt := range []struct {
		name, was, is string
		may           bool
		behavior      bool
		verdict       string
		warned        bool
	}{
		{"the same", "a", "a", false, false, record.GateWithin, false},
		{"another place", "a", "b", false, true, record.GateBeyond, false},
		{"another place, as is meant", "a", "b", true, true, record.GateWithin, false},
		{"not known of the base", "", "b", false, false, record.GateWithin, true},
		{"not known of either", "", "", false, false, record.GateWithin, true},
	} {
		g, err := Gate(lab(tt.was), lab(tt.is), GateOptions{BehaviorMayChange: tt.may})
		if err != nil {
			t.Fatal(err)
		}
		warned := slices.ContainsFunc(g.Warnings, func(w record.Warning) bool {
			return w.Text == "where redirects go was not compared: it is not known of both sides"
		})
		row := &g.Rows[0]
		if row.Verdict != tt.verdict || strings.Contains(row.Behavior, "redirected to another place") != tt.behavior || warned != tt.warned {
			t.Errorf("%s: %s, behavior %q, warnings %v", tt.name, row.Verdict, row.Behavior, g.Warnings)
		}
	}
}

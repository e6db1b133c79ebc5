package result

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// meanOf is what a profile states of samples, with an interval of no matter.
func meanOf(samples []float64) *stat.Quantity {
	sum := 0.0
	for _, ns := range samples {
		sum += ns
	}
	m := sum / float64(len(samples))
	return &stat.Quantity{Median: m, Low: m - 1, High: m + 1, N: len(samples), Unit: "ns"}
}

// profileOf is a profile of rounds whose stages take ns per packet, a sample
// being worth 0.5 ns in a round. What is left of 300 ns is unattributed.
func profileOf(run string, seed uint64, rounds int, stages ...stage) *Profile {
	r := rand.New(rand.NewPCG(seed, 3))
	p := &Profile{}
	p.Schema, p.Kind, p.Run, p.Warnings = Schema, "profile", run, []Warning{}
	p.Host, p.Settings = host.Fingerprint{Kernel: "6.12"}, map[string]string{"scenario": "redirect-map", "bulk": "64"}
	p.Sampling = Sampling{Event: "cpu-clock", Rate: 10_000, CPUs: []int{1}, Packets: 1 << 20}
	rest := make([]float64, rounds)
	packets := make([]float64, rounds)
	numbers := make([]int, rounds)
	total := 0.0
	for _, s := range stages {
		total += s.ns
	}
	for i := range rounds {
		packets[i] = total + 5 + 2*r.NormFloat64()
		rest[i], numbers[i] = packets[i], i
	}
	const grain = 0.5
	for _, s := range stages {
		row := ProfileRow{Name: s.name, Rounds: numbers}
		for i := range rounds {
			count := max(math.Round(s.ns/grain+math.Sqrt(s.ns/grain)*r.NormFloat64()), 0)
			row.Samples = append(row.Samples, count*grain)
			rest[i] -= count * grain
			p.Sampling.Samples += int(count)
		}
		row.Ns = meanOf(row.Samples)
		p.Rows = append(p.Rows, row)
	}
	p.Rows = append(p.Rows, ProfileRow{Name: "unattributed", Ns: meanOf(rest), Samples: rest, Rounds: numbers})
	p.Packet = meanOf(packets)
	return p
}

type stage struct {
	name string
	ns   float64
}

var wayOf = []stage{{"receive", 60}, {"program", 40}, {"transmit", 120}, {"locks", 0.2}, {"dma", 0}}

// changedWay is wayOf with transmit made to take ns.
func changedWay(ns float64) []stage {
	return []stage{wayOf[0], wayOf[1], {"transmit", ns}, wayOf[3], wayOf[4]}
}

func changesOf(c *ProfileComparison) map[string]ProfileChange {
	changes := make(map[string]ProfileChange)
	for _, row := range c.Rows {
		changes[row.Name] = row
	}
	return changes
}

func TestCompareProfiles(t *testing.T) {
	old := profileOf("a", 1, 20, wayOf...)
	c := CompareProfiles(old, profileOf("b", 2, 20, changedWay(180)...), CompareOptions{Threshold: 5})
	var names []string
	for _, row := range c.Rows {
		names = append(names, row.Name)
		if d := row.Difference; d == nil || d.Unit != "ns" || d.N != 20 || math.Abs(d.Median-(row.New.Median-row.Old.Median)) > 1e-9 {
			t.Errorf("%s: %+v is not %v less %v", row.Name, d, row.New, row.Old)
		}
	}
	if got := strings.Join(names, " "); got != "packet receive program transmit locks dma unattributed" {
		t.Error(got)
	}
	changes := changesOf(c)
	for name, want := range map[string]string{"packet": stat.Slower, "transmit": stat.Slower, "dma": stat.NoDifference} {
		row := changes[name]
		if !strings.HasPrefix(row.Verdict, want) || row.Regression != (want == stat.Slower) {
			t.Errorf("%s: %s, regression %v, want %s", name, row.Verdict, row.Regression, want)
		}
	}
	if d := changes["transmit"].Difference; d.Low > 60 || d.High < 60 || d.High-d.Low > 100 {
		t.Errorf("transmit: %+v, want 60 ns", d)
	}
	if d := changes["dma"].Difference; d.Median != 0 || d.High <= 0 || !strings.HasSuffix(changes["dma"].Verdict, " ns)") {
		t.Errorf("a stage without samples: %+v, %s", d, changes["dma"].Verdict)
	}
	if changes["receive"].Regression || !c.Regressed() {
		t.Errorf("receive regressed %v, any %v", changes["receive"].Regression, c.Regressed())
	}
	// The threshold is in percent of the packet, not of the stage: 60 of 225 ns
	// are 27 % of it.
	if c := CompareProfiles(old, profileOf("b", 2, 20, changedWay(180)...), CompareOptions{Threshold: 30}); c.Regressed() || changesOf(c)["transmit"].Verdict != stat.Slower {
		t.Errorf("threshold of 30 %%: %+v", changesOf(c)["transmit"])
	}
	if c := CompareProfiles(profileOf("b", 2, 20, changedWay(180)...), old, CompareOptions{Threshold: 2}); c.Regressed() || changesOf(c)["transmit"].Verdict != stat.Faster {
		t.Errorf("the other way: %+v", changesOf(c)["transmit"])
	}
	if c := CompareProfiles(old, old, CompareOptions{Threshold: 30}); c.Regressed() || !strings.HasPrefix(c.Rows[0].Verdict, stat.NoDifference) || len(c.Causes) > 0 {
		t.Errorf("with itself: %+v", c)
	}
	// Too few rounds prove nothing.
	c = CompareProfiles(profileOf("a", 1, 5, wayOf...), profileOf("b", 2, 5, changedWay(500)...), CompareOptions{Threshold: 2})
	for _, row := range c.Rows {
		if row.Verdict != stat.CannotTell || row.Regression {
			t.Errorf("five rounds: %s: %s", row.Name, row.Verdict)
		}
	}
}

func TestCompareProfilesMissing(t *testing.T) {
	old := profileOf("a", 1, 10, stage{"gone", 20}, stage{"receive", 60})
	new := profileOf("b", 2, 10, stage{"added", 30}, stage{"receive", 60})
	c := CompareProfiles(old, new, CompareOptions{Threshold: 2})
	var got []string
	for _, row := range c.Rows {
		got = append(got, row.Name+": "+row.Missing)
		if missing := row.Missing != ""; missing != (row.Difference == nil) || missing != (row.Verdict == "") || missing != (row.Old == nil || row.New == nil) {
			t.Errorf("%+v", row)
		}
	}
	if want := "packet: |added: only in new|receive: |unattributed: |gone: only in old"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCompareProfilesWarnings(t *testing.T) {
	old, new := profileOf("a", 1, 10, wayOf...), profileOf("b", 2, 10, wayOf...)
	old.Warnings = []Warning{{Row: "locks", Text: "few samples"}}
	new.Warnings = []Warning{{Text: "4 samples were lost"}}
	new.Incomplete = true
	new.Settings = map[string]string{"scenario": "redirect-map", "bulk": "16", "in": "eth0"}
	new.Sampling.Event = "cycles:pp"
	new.Host.Kernel = "6.18"
	c := CompareProfiles(old, new, CompareOptions{Threshold: 2})
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w.Row+"|"+w.Text)
	}
	for _, want := range []string{
		"|the runs were asked for different things: bulk (64, 16), in (default, eth0)",
		"|old was sampled by cpu-clock, new by cycles:pp: ",
		"|two runs at different times: ",
		"locks|old: few samples",
		"|new: 4 samples were lost",
		"|new: the run was stopped before its end",
	} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if len(got) != 6 || len(c.Causes) != 1 || c.Causes[0].Name != "kernel" || !c.Incomplete {
		t.Errorf("%q, causes %+v", got, c.Causes)
	}
}

func TestProfileComparisonJSON(t *testing.T) {
	c := CompareProfiles(profileOf("a", 1, 10, wayOf...), profileOf("b", 2, 10, changedWay(180)...), CompareOptions{Threshold: 2})
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Schema, Kind, Run string
		Threshold         float64
		Old               Origin
		Causes            []Cause
		Rows              []struct {
			Name       string
			Old        stat.Quantity
			Difference struct {
				Median, Low, High, P, Smallest *float64
				Unit                           string
			}
			Regression bool
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Schema != Schema || got.Kind != "compare" || got.Run != "b" || got.Old.Run != "a" || got.Threshold != 2 || got.Causes == nil || len(got.Rows) != 7 {
		t.Errorf("%s", b)
	}
	if d := got.Rows[0].Difference; got.Rows[0].Name != "packet" || d.Unit != "ns" || d.Low == nil || d.Smallest == nil || !got.Rows[0].Regression {
		t.Errorf("%s", b)
	}
}

// fullProfile has something of everything a profile may hold.
func fullProfile() *Profile {
	p := profileOf("a", 1, 10, wayOf...)
	ns := func(x float64) *stat.Quantity {
		return &stat.Quantity{Median: x, Low: x - 1, High: x + 1, N: 10, Unit: "ns"}
	}
	calls := "napi_struct.poll"
	p.Sampling.Throughput = &stat.Quantity{Median: 99, Low: 98, High: 100, N: 10, Unit: "percent"}
	p.Functions = []ProfileFunction{{Name: "bq_xmit_all", Stage: "transmit", Samples: 12, Ns: ns(0.5)}}
	p.Tax = &ProfileTax{
		Thunks: ns(3), Landings: ns(-0.5), Total: ns(-0.1), Returns: ns(1), Direct: ns(0.2), Estimate: ns(4), Hop: ns(3), Agree: "cannot tell",
		Sites: []ProfileSite{{Function: "__napi_poll", Stage: "receive", Calls: &calls, Targets: []string{"veth_poll"}, Thunk: ns(2), Landing: ns(-1)}},
	}
	p.Counters = []ProfileCounter{{Name: "cycles", PerPacket: &stat.Quantity{Median: 900, Low: 890, High: 910, N: 10, Unit: "events"}}}
	p.Stacks = []ProfileStack{{Frames: []string{"net_rx_action", "bq_xmit_all"}, Stage: "transmit", Samples: 12, Ns: 0.5}}
	return p
}

func TestLoadProfile(t *testing.T) {
	dir := t.TempDir()
	load := func(name string, doc any) (*Profile, error) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := Save(file, doc); err != nil {
			t.Fatal(err)
		}
		return LoadProfile(file)
	}
	p, err := load("good", fullProfile())
	if err != nil || len(p.Rows) != 6 || p.Tax.Landings.Median != -0.5 || p.Stacks[0].Frames[1] != "bq_xmit_all" || p.Rows[0].Samples[9] != fullProfile().Rows[0].Samples[9] {
		t.Errorf("%+v, %v", p, err)
	}
	for name, tt := range map[string]struct {
		change func(*Profile)
		want   string
	}{
		"run":            {func(p *Profile) { p.Run = "" }, "run identity"},
		"schema":         {func(p *Profile) { p.Schema = "x" }, "schema"},
		"no packet":      {func(p *Profile) { p.Packet = nil }, "no ns per packet"},
		"packet of 0":    {func(p *Profile) { p.Packet.Median = 0 }, "no ns per packet"},
		"packet unit":    {func(p *Profile) { p.Packet.Unit = "Mpps" }, `packet is in "Mpps", not in ns`},
		"no rows":        {func(p *Profile) { p.Rows = nil }, "no stages"},
		"too many rows":  {func(p *Profile) { p.Rows = make([]ProfileRow, MaxRows+1) }, "at most 10000"},
		"twice":          {func(p *Profile) { p.Rows = append(p.Rows, p.Rows[0]) }, "receive: occurs twice"},
		"row of packet":  {func(p *Profile) { p.Rows[0].Name = "packet" }, "packet: occurs twice"},
		"row name":       {func(p *Profile) { p.Rows[0].Name = "\x1b[2J" }, "impossible name"},
		"no ns":          {func(p *Profile) { p.Rows[0].Ns = nil }, "neither a number"},
		"no samples":     {func(p *Profile) { p.Rows[0].Samples, p.Rows[0].Rounds = nil, nil }, "without samples"},
		"fewer rounds":   {func(p *Profile) { p.Rows[1].Samples = p.Rows[1].Samples[1:] }, "9 samples but 10 rounds"},
		"other rounds":   {func(p *Profile) { p.Rows[1].Rounds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10} }, "row program: its rounds are not those of receive"},
		"rounds back":    {func(p *Profile) { p.Rows[0].Rounds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 8} }, "out of order"},
		"negative round": {func(p *Profile) { p.Rows[0].Samples[0] = -1 }, "impossible sample of -1 ns"},
		"negative mean":  {func(p *Profile) { p.Rows[4].Ns.Median = -0.5 }, "row dma: ns is impossible: -0.5 ns"},
		"huge":           {func(p *Profile) { p.Rows[5].Samples[0] = -2e9 }, "impossible sample"},
		"interval":       {func(p *Profile) { p.Rows[0].Ns.Low = 1e3 }, "outside its interval"},
		"event":          {func(p *Profile) { p.Sampling.Event = "\a" }, "sampling: impossible event"},
		"lost":           {func(p *Profile) { p.Sampling.Lost = -1 }, "sampling: a count below 0"},
		"CPU":            {func(p *Profile) { p.Sampling.CPUs = []int{-1} }, "impossible CPUs"},
		"throughput":     {func(p *Profile) { p.Sampling.Throughput.Unit = "ns" }, "throughput is in"},
		"function":       {func(p *Profile) { p.Functions[0].Name = "a\nb" }, "function 0: impossible text"},
		"long function":  {func(p *Profile) { p.Functions[0].Name = strings.Repeat("x", 1001) }, "function 0: impossible text"},
		"stageless":      {func(p *Profile) { p.Functions[0].Stage = "" }, "function 0: it has no name or no stage"},
		"functionless":   {func(p *Profile) { p.Functions[0].Ns = nil }, "function 0: neither"},
		"many functions": {func(p *Profile) { p.Functions = make([]ProfileFunction, MaxFunctions+1) }, "100001 functions"},
		"thunks":         {func(p *Profile) { p.Tax.Thunks.Median = -2 }, "tax: thunks is impossible"},
		"agree":          {func(p *Profile) { p.Tax.Agree = "maybe" }, "tax: impossible agree"},
		"site":           {func(p *Profile) { p.Tax.Sites[0].Targets = []string{"\x07"} }, "tax: site 0: impossible text"},
		"site calls":     {func(p *Profile) { *p.Tax.Sites[0].Calls = "\x07" }, "tax: site 0: impossible text"},
		"counter":        {func(p *Profile) { p.Counters[0].PerPacket.Median = -1 }, "counter cycles: per-packet is impossible"},
		"counter name":   {func(p *Profile) { p.Counters[0].Name = "" }, "counter 0: impossible name"},
		"empty counter":  {func(p *Profile) { p.Counters[0].PerPacket = nil }, "counter cycles: neither"},
		"no frames":      {func(p *Profile) { p.Stacks[0].Frames = nil }, "stack 0: 0 frames"},
		"deep":           {func(p *Profile) { p.Stacks[0].Frames = make([]string, MaxFrames+1) }, "stack 0: 257 frames"},
		"frame":          {func(p *Profile) { p.Stacks[0].Frames[1] = "\x1b" }, "stack 0: impossible text"},
		"empty frame":    {func(p *Profile) { p.Stacks[0].Frames[1] = "" }, "stack 0: it has no name"},
		"stack ns":       {func(p *Profile) { p.Stacks[0].Ns = -1 }, "stack 0: impossible: 12 samples, -1 ns"},
		"many stacks":    {func(p *Profile) { p.Stacks = make([]ProfileStack, MaxStacks+1) }, "200001 stacks"},
	} {
		bad := fullProfile()
		tt.change(bad)
		if _, err := load("bad", bad); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "load "+filepath.Join(dir, "bad")+": ") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	other := fullProfile()
	other.Kind = "tax"
	if _, err := load("other", other); !errors.Is(err, ErrKind) {
		t.Error(err)
	}
	if _, err := LoadSites(filepath.Join(dir, "good")); !errors.Is(err, ErrKind) {
		t.Error(err)
	}
	if _, err := LoadProfile(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzLoadProfile(f *testing.F) {
	for _, p := range []*Profile{fullProfile(), profileOf("a", 1, 7, stage{"receive", 0.3})} {
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"unthunk/1","kind":"profile","run":"x","rows":[{}]}`))
	f.Add([]byte(`{"schema":"unthunk/1","kind":"profile","run":"x","packet":{"median":1,"unit":"ns"},"rows":[{"name":"x","ns":{"median":1e-300,"unit":"ns"},"samples":[0,1e-300,0,0,5e-324,0,0],"rounds":[0,1,2,3,4,5,6]}],"sampling":{"event":"x","samples":1}}`))
	other := profileOf("b", 2, 8, wayOf...)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProfile(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of more than one line: %q", err)
			}
			return
		}
		for _, c := range []*ProfileComparison{CompareProfiles(p, p, CompareOptions{Threshold: 2}), CompareProfiles(p, other, CompareOptions{})} {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
			for _, row := range c.Rows {
				if d := row.Difference; d != nil && !(d.P >= 0 && d.P <= 1) {
					t.Errorf("%s: %+v", row.Name, d)
				}
			}
		}
	})
}

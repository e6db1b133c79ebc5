package conclusion

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// ran is a record of run: three rows of a ladder, prices and stages.
func ran() *record.Document[record.BenchRow] {
	row := func(bulk string, whole, redirect float64) record.BenchRow {
		return record.BenchRow{
			Name: "redirect-map/bulk=" + bulk, Labels: map[string]string{"bulk": bulk, "scenario": "redirect-map"},
			Ns: ns(whole, whole-1, whole+1), Hop: ns(redirect, redirect-1, redirect+1), Rounds: make([]int, 11),
			Mpps: &stat.Quantity{Median: 1e3 / whole, N: 11, Unit: "Mpps"},
		}
	}
	return &record.Document[record.BenchRow]{
		Head: record.Head{
			Host:     host.Fingerprint{IndirectThunk: "retpoline"},
			Settings: map[string]string{"profiled": "redirect-map/bulk=16", "core-clock": "3.60 GHz (3.58 to 3.62)"},
		},
		Rows: []record.BenchRow{row("1", 265, 110), row("4", 101, 40), row("16", 63, 24), row("64", 58, 23)},
		RunParts: record.RunParts{
			Prices: []record.TaxRow{
				{Name: "packet/bulk=16", Price: ns(1.2, 1.1, 1.3), PerPacket: &stat.Quantity{Median: 0.12, Unit: "calls"}},
				{Name: "packet/2018", Price: ns(25, 24, 26), PerPacket: &stat.Quantity{Median: 3, Unit: "calls"}},
			},
			Stages: []record.ProfileRow{
				{Name: "generator", Ns: ns(21, 20, 22)}, {Name: "receive", Ns: ns(11, 10, 12)}, {Name: "redirect", Ns: ns(6, 5, 7)},
				{Name: "dma", Ns: ns(0, 0, 0)}, {Name: "locks", Ns: ns(8, 7, 9)}, {Name: "other", Ns: ns(60, 30, 90)},
			},
			Profile: &record.ProfileParts{Sampling: record.Sampling{Event: "cpu-clock"}},
			Conclusion: &record.Conclusion{
				Win: []record.Gain{{What: "use IBRS"}}, Lose: []record.Gain{{What: "an observer"}},
			},
		},
	}
}

func TestAnswer(t *testing.T) {
	a := NewAnswer(ran())
	want := []string{
		"A redirect costs 24.0 ns a packet on one core, in bulks of 16.",
		"Retpolines take 1.20 ns of it, 5.0 %.",
		"Indirect calls are not where the packets went.",
	}
	if got := strings.Join(a.Claim, "|"); got != strings.Join(want, "|") {
		t.Errorf("claim: %s", got)
	}
	if a.Redirect.Median != 24 || a.Tax.Median != 1.2 || math.Abs(a.Share.Median-5) > 1e-9 || a.Share.Low >= 5 || a.Share.High <= 5 {
		t.Errorf("%v, of it %v, %v", a.Redirect, a.Tax, a.Share)
	}
	if len(a.Rates) != 3 || a.Rates[0].Bulk != "1" || a.Rates[1].Bulk != "16" || a.Rates[2].Bulk != "64" ||
		a.Rates[2].Redirect.Median != 23 {
		t.Errorf("rates: %+v", a.Rates)
	}
	// The redirect alone: neither generator nor what other tasks took, and no stage that takes no time.
	if p := a.Path; p.Bulk != "16" || len(p.Stages) != 2 || p.Total != 17 || len(p.Beside) != 1 || p.Beside[0].Name != "locks" {
		t.Errorf("path: %+v", p)
	}
	if got := strings.Join(a.Calls, "|"); got != "0.12 a packet × 10.0 ns = 1.20 ns|the 3 of 2018: 25.0 ns" {
		t.Errorf("calls: %s", got)
	}
	if len(a.Try) != 1 || len(a.Avoid) != 1 {
		t.Errorf("try %+v, avoid %+v", a.Try, a.Avoid)
	}
	if got := strings.Join(a.Trust, "|"); got !=
		"11 rounds, ±4.2 %|clock 3.60 GHz (3.58 to 3.62)|stages estimated (no PMU)" {
		t.Errorf("trust: %s", got)
	}
}

// The rows of a program of the user's are not of a redirect: the answer names the program.
func TestAnswerOfProgram(t *testing.T) {
	t.Parallel()
	doc := ran()
	for i := range doc.Rows {
		doc.Rows[i].Labels["prog"] = "balancer"
	}
	for want, redirect := range map[string]*stat.Quantity{
		"A packet through program balancer costs 24.0 ns on one core, in bulks of 16.":                      ns(24, 23, 25),
		"A packet through program balancer costs between 10.0 and 50.0 ns on one core, in bulks of 16: the": ns(24, 10, 50),
		"What a packet through program balancer costs cannot be told: 24.0 ns [-1.00, 50.0] a packet":       ns(24, -1, 50),
	} {
		doc.Rows[2].Hop = redirect
		if a := NewAnswer(doc); !strings.HasPrefix(a.Claim[0], want) || a.Of != "a packet through program balancer" {
			t.Errorf("%q, want %q", a.Claim[0], want)
		}
	}
	for i := range doc.Rows {
		doc.Rows[i].Hop, doc.Rows[i].Refused = nil, "no room"
	}
	if got := NewAnswer(doc).Claim[0]; got != "What a packet through program balancer costs here was not measured: no room." {
		t.Errorf("%q", got)
	}
}

// What the machine was like is of the rounds of the rates.
// On an emulated CPU nothing has a price, whatever a record says: not even one that another version saved.
func TestAnswerOfSoftware(t *testing.T) {
	doc := ran()
	doc.Host.Virtual = "QEMU TCG"
	a := NewAnswer(doc)
	const want = "What a redirect costs was not measured: the CPU is emulated, and its times say nothing of hardware."
	if strings.Join(a.Claim, " ") != want || a.Redirect != nil || a.Tax != nil || a.Share != nil || len(a.Calls) > 0 {
		t.Errorf("%+v", a)
	}
	if len(a.Rates) != 3 || a.Rates[0].Ns == nil || a.Rates[0].Redirect != nil {
		t.Errorf("rates: %+v", a.Rates)
	}
	if !strings.Contains(strings.Join(a.Trust, "; "), "times are those of QEMU") {
		t.Errorf("trust: %v", a.Trust)
	}
	v := New(doc, []host.Finding{{Name: "indirect-call", Do: "boot with spectre_v2=off", Level: host.LevelWarn}})
	if v.Tax != nil || v.Share != nil || len(v.Win)+len(v.Lose) > 0 {
		t.Errorf("%+v", v)
	}
}

func TestTrustOfReferences(t *testing.T) {
	doc := ran()
	doc.Warn("", "the hypervisor took 4.1 % of the CPUs' time during the run")
	doc.References = []record.Reference{
		{Name: record.CoreClock, Samples: []float64{3.6, 3.7, 3.65}}, {Name: record.CoreClock, Part: "prices", Samples: []float64{1}},
		{Name: record.FarWalk, Samples: []float64{90}}, {Name: record.Steal, Samples: []float64{0, 9}},
		{Name: record.OtherTasks, Samples: []float64{20, 24}},
	}
	if got := strings.Join(NewAnswer(doc).Trust, "|"); got !=
		"11 rounds, ±4.2 %|clock 3.60 to 3.70 GHz|steal 4.5 %|other tasks 22 % of the CPU|stages estimated (no PMU)" {
		t.Errorf("%s", got)
	}
	doc.References = []record.Reference{{Name: record.CoreClock, Samples: []float64{3.701, 3.702}}}
	doc.Rows[2].Hop = ns(24, math.NaN(), math.NaN())
	doc.Warn(doc.Rows[2].Name, "3 rounds: a 95 % interval needs 6")
	if got := strings.Join(NewAnswer(doc).Trust, "|"); got != "11 rounds, too few for an interval|clock 3.70 GHz|stages estimated (no PMU)" {
		t.Errorf("%s", got)
	}
	doc.Profile.CannotTell = "the rounds differ"
	if a := NewAnswer(doc); !a.Path.Unsure || !strings.HasSuffix(strings.Join(a.Trust, "|"), "|stages are no answer (-v says why)") {
		t.Errorf("unsure %v, %s", a.Path.Unsure, a.Trust)
	}
	doc.Profile.CannotTell = ""
	doc.References = nil
	if got := strings.Join(NewAnswer(doc).Trust, "|"); !strings.Contains(got, "|the hypervisor took 4.1 %") {
		t.Errorf("%s", got)
	}
}

// What a record lacks is said, with the reason that it has.
func TestAnswerOfLess(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*record.Document[record.BenchRow])
		want   []string // of the claim
	}{
		"nothing": {func(d *record.Document[record.BenchRow]) { *d = record.Document[record.BenchRow]{} },
			[]string{"What a redirect costs here was not measured: there are no rows."}},
		"refused": {func(d *record.Document[record.BenchRow]) {
			d.Prices = nil
			for i := range d.Rows {
				d.Rows[i] = record.BenchRow{Name: d.Rows[i].Name, Labels: d.Rows[i].Labels, Refused: "packet counts disagree"}
			}
		}, []string{"What a redirect costs here was not measured: packet counts disagree."}},
		"16 refused": {func(d *record.Document[record.BenchRow]) {
			d.Rows[2] = record.BenchRow{Name: d.Rows[2].Name, Labels: d.Rows[2].Labels, Refused: "packet counts disagree"}
		}, []string{"A redirect costs 23.0 ns a packet on one core, in bulks of 64.",
			"What indirect calls take of it was not measured: there is no estimate at bulk 64."}},
		"no prices": {func(d *record.Document[record.BenchRow]) {
			d.Prices = nil
			d.Warn("", "no prices: BTF is missing")
		}, []string{"What indirect calls take of it was not measured: BTF is missing."}},
		"no price": {func(d *record.Document[record.BenchRow]) {
			d.Prices = []record.TaxRow{{Name: "control", Refused: "x"}, {Name: "bpf-prog", Refused: "there is no BPF dispatcher"}}
		}, []string{"was not measured: there is no BPF dispatcher."}},
		"stopped": {func(d *record.Document[record.BenchRow]) { d.Rows, d.Prices, d.Incomplete = nil, nil, true },
			[]string{"What a redirect costs here was not measured: the run was stopped before its end."}},
		"noise": {func(d *record.Document[record.BenchRow]) { d.Rows[2].Hop = ns(24, -3, 50) },
			[]string{"What a redirect costs cannot be told: 24.0 ns [-3.00, 50.0] a packet, in bulks of 16."}},
		"busy": {func(d *record.Document[record.BenchRow]) { d.Rows[2].Hop = ns(24, 20, 50) },
			[]string{"A redirect costs between 20.0 and 50.0 ns a packet on one core, in bulks of 16: the rounds differ too much",
				"of it, 2.4 % to"}},
		"no thunks": {func(d *record.Document[record.BenchRow]) { d.Host.IndirectThunk = "none" },
			[]string{"Indirect calls take 1.20 ns of it, 5.0 %."}},
		"return thunks": {func(d *record.Document[record.BenchRow]) {
			d.Host.ReturnThunk = "srso_return_thunk"
			d.Profile = &record.ProfileParts{Tax: &record.ProfileTax{ReturnEntries: ns(12, 11, 13)}}
		}, []string{"went. Return thunks (srso_return_thunk) may take up to 12.0 ns of the redirect path."}},
		"few rounds": {func(d *record.Document[record.BenchRow]) { d.Rows[2].Hop = ns(24, math.NaN(), math.NaN()) },
			[]string{"A redirect costs 24.0 ns", "Retpolines take 1.20 ns of it, 5.0 %."}},
	} {
		doc := ran()
		tt.change(doc)
		a := NewAnswer(doc)
		claim := strings.Join(a.Claim, " ")
		for _, want := range tt.want {
			if !strings.Contains(claim, want) {
				t.Errorf("%s: %q lacks %q", name, claim, want)
			}
		}
		if said := claim + strings.Join(a.Calls, " ") + strings.Join(a.Trust, " "); strings.Contains(said, "NaN") {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// A cost that is not told from 0 is a range from there in every sentence, never below 0, and the record is one that can be saved.
func TestUnseen(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, q := range map[string]struct{ tax, call *stat.Quantity }{
		"below 0":     {ns(-0.03, -0.1, 0.05), ns(-0.25, -0.8, 0.4)},
		"above 0":     {ns(0.01, -0.1, 0.05), ns(0.08, -0.8, 0.4)},
		"all below 0": {ns(-0.03, -0.05, -0.01), ns(-0.25, -0.4, -0.08)},
		"no interval": {ns(-0.03, nan, nan), ns(-0.25, nan, nan)},
		"wide":        {ns(-0.03, -0.1, 0.05), ns(-0.25, -0.8, 0.4)},
	} {
		doc := ran()
		if name == "wide" {
			doc.Rows[2].Hop = ns(24, 12, 30)
		}
		doc.Prices = []record.TaxRow{
			{Name: "bpf-prog", Price: q.call},
			{Name: "packet/bulk=16", Price: q.tax, PerPacket: &stat.Quantity{Median: 0.125, Unit: "calls"}, With: ns(24, 23, 25)},
			{Name: "packet/2018", Price: ns(3*q.call.Median, 3*q.call.Low, 3*q.call.High), With: ns(24, 23, 25),
				PerPacket: &stat.Quantity{Median: 3, Unit: "calls"}},
		}
		a, v, h := NewAnswer(doc), New(doc, nil), taxHeadline(doc.Prices)
		said := strings.Join(append(a.Claim, a.Calls...), " ") + Calls(doc.Prices, doc.Rows) + h.Title + h.Text
		if strings.Contains(said, " -") || strings.Contains(said, "NaN") || strings.Contains(said, "Inf") {
			t.Errorf("%s: %s", name, said)
		}
		for _, want := range map[string][]string{
			"below 0": {"Retpolines take 0 to 0.05 ns of it, 0 % to 0.3 %. Indirect calls are not where the packets went.",
				"0.125 a packet × 0 to 0.40 ns = 0 to 0.05 ns", "the 3 of 2018: 0 to 1.20 ns",
				"An indirect call costs 0 to 0.40 ns here; those of a redirect at bulk 16 are 0 % to 0.3 % of its time",
				"3 indirect calls of 0 to 0.40 ns each: 0 to 1.20 ns (none seen) of 24.0 ns, 0 % to 5.0 %"},
			"above 0":     {"Retpolines take 0 to 0.05 ns of it, 0 % to 0."},
			"wide":        {"Retpolines take 0 to 0.05 ns of it, 0 % to 0.5 %.", "of its 24.0 ns, 0 % to 0.5 %."},
			"all below 0": {"Retpolines take 0 ns of it. Indirect calls are not"},
			"no interval": {"Retpolines take about 0 ns of it.", "An indirect call costs about 0 ns here"},
		}[name] {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q lacks %q", name, said, want)
			}
		}
		for _, x := range []float64{v.Share.Low, v.Share.High} {
			if math.IsInf(x, 0) {
				t.Errorf("%s: share %+v", name, v.Share)
			}
		}
		if !(math.IsNaN(v.Share.Low) || v.Share.Low <= v.Share.Median && v.Share.Median <= v.Share.High) {
			t.Errorf("%s: share %+v", name, v.Share)
		}
	}
	noise := ran()
	noise.Rows[2].Hop = ns(24, -3, 50)
	if v := New(noise, nil); !math.IsNaN(v.Share.High) {
		t.Errorf("of a redirect that is not told: %+v", v.Share)
	}
}

// Whether the packets went there is said by the whole interval.
func TestWhereTo(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		median, low, high float64
		want              string
	}{
		{4, 3, 5, "are not where"}, {4, -1, 9, "are not where"}, {4, nan, nan, "are not where"},
		{12, 9, 15, "a small part"}, {30, 20, 40, "a large part"}, {60, 51, 70, "calls are where"},
		{60, 30, 90, "calls are where"}, {20, 5, 35, "cannot be told"}, {4, -60, 60, "cannot be told"},
	} {
		got := whereTo(&stat.Quantity{Median: tt.median, Low: tt.low, High: tt.high, Unit: "%"})
		if !strings.Contains(got, tt.want) {
			t.Errorf("%v [%v, %v]: %s", tt.median, tt.low, tt.high, got)
		}
	}
}

// What cannot be more than all of a redirect is not said.
func TestTakes(t *testing.T) {
	for _, tt := range []struct {
		median, low, high float64
		want              string
	}{
		{4, 3.9, 4.1, "Retpolines take 1.00 ns of it, 4.0 %."},
		{4, 2, 9, "Retpolines take 1.00 ns of it, 2.0 % to 9.0 %."},
		{4, 2, 275, "Retpolines take 2.0 % of it or more: the rounds differ too much to say."},
		{4, 0.01, 275, "What retpolines take of it cannot be told: the rounds differ too much."},
		{4, -200, 275, "What retpolines take of it cannot be told: the rounds differ too much."},
	} {
		share := &stat.Quantity{Median: tt.median, Low: tt.low, High: tt.high, Unit: "%"}
		if got := takes("Retpolines", &stat.Quantity{Median: 1, Low: 1, High: 1, Unit: "ns"}, share); got != tt.want {
			t.Errorf("%v: %q, want %q", tt, got, tt.want)
		}
	}
}

// The end of a range from 0 is rounded up, and what is below 0 is no range.
func TestFromZero(t *testing.T) {
	for end, want := range map[float64]string{
		-0.01: "0 %", 0: "0 %", 1e-7: "0 % to 0.1 %", 0.001: "0 % to 0.1 %", 0.0095: "0 % to 1.0 %", 0.07: "0 % to 7.0 %",
		0.0991: "0 % to 10 %", 0.1011: "0 % to 11 %", 0.07 / 0.25: "0 % to 28 %",
	} {
		if got := fromZero(end); got != want {
			t.Errorf("%v: %q, want %q", end, got, want)
		}
	}
}

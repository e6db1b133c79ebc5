package tax

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// The table makes sense: stable names, two sides that differ, and every pair that
// others are built on.
func TestPairs(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range pairs() {
		if seen[p.name] {
			t.Errorf("%s stands there twice", p.name)
		}
		seen[p.name] = true
		same := false
		switch s := p.sides.(type) {
		case programs:
			same = s.with == s.without && p.name != "control"
		case treeSize:
			same = s.with == s.without
		case hop:
			same = s.with == s.without
		case userCalls:
			same = s.with == s.without
		case onChain:
			same = s.settings()[0] == s.settings()[1]
		}
		if same {
			t.Errorf("%s: both sides are one experiment", p.name)
		}
		if p.target == "" || p.family() == "packet" {
			t.Errorf("%s: family %q, target %q", p.name, p.family(), p.target)
		}
	}
	for _, name := range []string{Thunk, "control"} {
		if !seen[name] {
			t.Errorf("no %s", name)
		}
	}
	for _, family := range CallFamilies() {
		if !slices.Contains(Families(), family) {
			t.Errorf("%s is no family", family)
		}
	}
}

// Chains can be put into all settings, and settings with observers are measured among
// those that are watched.
func TestSettings(t *testing.T) {
	for _, p := range of[onChain](&Raw{pairs: everyPair()}) {
		for _, s := range p.sides.settings() {
			if s.bulk < 1 || s.observers > maxObservers || s.observers > 0 && !s.watched || s.drop && s.second {
				t.Errorf("%s: %+v", p.name, s)
			}
		}
	}
}

func everyPair() []rawPair {
	var out []rawPair
	for _, p := range pairs() {
		out = append(out, rawPair{pair: p})
	}
	return out
}

// What is found of a pair is kept, a refusal leaves the others as they are, and an
// error ends the run.
func TestFound(t *testing.T) {
	failed := errors.New("read memory: failed")
	for _, test := range []struct {
		premise                  string
		err                      error
		wantPremise, wantRefused string
		wantErr                  error
	}{
		{"a branch", nil, "a branch", "", nil},
		{"", nil, "before", "", nil},
		{"", errNoJIT, "before", errNoJIT.Error(), nil},
		{"", fmt.Errorf("look at it: %w", errNotFull), "before", errNotFull.Error(), nil},
		{"", failed, "before", "", failed},
	} {
		p := rawPair{premise: "before"}
		if err := p.found(test.premise, test.err); err != test.wantErr {
			t.Errorf("%v: error %v, want %v", test.err, err, test.wantErr)
		}
		if p.premise != test.wantPremise || p.refused != test.wantRefused {
			t.Errorf("%q, %v: premise %q, refused %q, want %q, %q",
				test.premise, test.err, p.premise, p.refused, test.wantPremise, test.wantRefused)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		plan Plan
		want string // in the error; empty for none
	}{
		{Plan{}, ""},
		{Plan{Pairs: []string{"map-lookup", "user/lfence"}}, ""},
		{Plan{Pairs: []string{"map-lookup/btree"}}, `"map-lookup/btree" is not one of control, bpf-prog`},
		{Plan{Pairs: []string{""}}, `""`},
		{Plan{Schedule: rounds.Schedule{Rounds: -1}}, "-1 rounds"},
		{Plan{Schedule: rounds.Schedule{Rounds: rounds.Max + 1}}, "rounds"},
		{Plan{Schedule: rounds.Schedule{Duration: time.Millisecond}}, "1ms"},
		{Plan{Schedule: rounds.Schedule{Duration: 25 * time.Hour}}, "25h"},
	} {
		err := test.plan.Validate()
		if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.plan, err, test.want)
		}
	}
	if n := len(Plan{Pairs: []string{"map-lookup", "map-lookup/lpm"}}.pairs()); n != 3 {
		t.Errorf("map-lookup has %d pairs", n)
	}
}

// Files of the programs that fill the BPF dispatcher are for pairs that fill it, where there is one.
func TestFillsDispatcher(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		arch, pair string
		want       bool
	}{
		{"amd64", Thunk, true}, {"amd64", "map-lookup", false}, {"arm64", Thunk, false}, {"arm64", "map-lookup", false},
	} {
		if got := (Plan{Pairs: []string{test.pair}}).fillsDispatcher(test.arch); got != test.want {
			t.Errorf("%s on %s: %t", test.pair, test.arch, got)
		}
	}
}

// raw is a run of eight rounds in which everything of pair costs ns more.
func raw(name string, without, ns float64) *Raw {
	r := &Raw{
		Outcome: rounds.Outcome{Begun: 8, Planned: 8}, tscRate: 2e9,
		hops:  map[int][]float64{},
		calls: map[int]redirect.CallsPerPacket{},
		path:  map[string]string{"ndo_xdp_xmit": "bq_xmit_all+0xa3: call thunk", "NAPI poll": "__napi_poll+0x2b: call thunk"},
	}
	for _, pair := range everyPair() {
		if pair.name != name {
			continue
		}
		pair.premise = "found"
		for i := range 8 {
			wobble := 0.01 * float64(i%3)
			pair.add(i, without+ns+wobble, without)
		}
		r.pairs = append(r.pairs, pair)
	}
	return r
}

// onPath adds what a chain would have counted and taken.
func onPath(r *Raw) *Raw {
	for bulk, hop := range map[int]float64{1: 400, 16: 110, 64: 100} {
		r.hops[bulk] = slices.Repeat([]float64{hop}, 8)
		per := 1 / float64(min(bulk, 16))
		// The softirq's action is not in Path: it is direct.
		r.calls[bulk] = redirect.CallsPerPacket{Xmits: per, Softirqs: 0.5, Polls: 1 / float64(bulk), Redirects: 1}
	}
	return r
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.02*math.Max(1, math.Abs(want)) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestRow(t *testing.T) {
	rows, warns := raw("map-lookup/lpm", 15, 12).Record()
	row := rows[0]
	near(t, "with", row.With.Median, 27)
	near(t, "without", row.Without.Median, 15)
	near(t, "price", row.Price.Median, 12)
	near(t, "cycles", row.Cycles.Median, 24)
	near(t, "calls", row.PerPacket.Median, 0)
	if row.Price.Low > row.Price.Median || row.Price.High < row.Price.Median {
		t.Errorf("price %+v", row.Price)
	}
	if len(warns) > 0 {
		t.Errorf("warnings %v", warns)
	}
	want := row
	want.Name, want.Labels = "map-lookup/lpm", map[string]string{"pair": "map-lookup", "variant": "lpm"}
	want.Premise, want.Note, want.Rounds = "found", "", []int{0, 1, 2, 3, 4, 5, 6, 7}
	if diff := cmp.Diff(want, row); diff != "" || len(row.Samples) != 8 {
		t.Errorf("%d samples; (-want +got):\n%s", len(row.Samples), diff)
	}

	r := raw("map-lookup/lpm", 15, 12)
	r.tscRate = 0
	if rows, _ := r.Record(); rows[0].Cycles != nil {
		t.Errorf("cycles without a rate: %+v", rows[0].Cycles)
	}
}

// A clock that moves by 1 % between rounds widens a price by twice that.
func TestAtAnyClock(t *testing.T) {
	price := stat.Quantity{Median: 100, Low: 99, High: 101, N: 10, Unit: "ns"}
	if got := (&Raw{coreClock: []float64{4e9, 4e9, 4e9}}).atAnyClock(price); got != price {
		t.Errorf("a steady clock gives %+v", got)
	}
	if got := (&Raw{}).atAnyClock(price); got != price {
		t.Errorf("no clock gives %+v", got)
	}
	got := (&Raw{coreClock: []float64{3.96e9, 4e9, 4.04e9}}).atAnyClock(price)
	near(t, "low", got.Low, 100-math.Hypot(1, 1.96))
	near(t, "high", got.High, 100+math.Hypot(1, 1.96))
	price.Low, price.High = math.NaN(), math.NaN()
	got = (&Raw{coreClock: []float64{3.96e9, 4.04e9}}).atAnyClock(price)
	if !math.IsNaN(got.Low) || !math.IsNaN(got.High) {
		t.Errorf("no interval gives %+v", got)
	}
}

func TestRowRefuses(t *testing.T) {
	const disagree = "packet counts disagree"
	for _, test := range []struct {
		name    string
		numbers bool
		refused string
		failure string
		want    string
	}{
		{"premise", true, errAlreadyDirect.Error(), "", errAlreadyDirect.Error()},
		{"no round", false, "", "", "not measured: the run ended before it"},
		{"no good round", false, "", disagree, disagree},
		// A round that failed takes nothing from the others.
		{"one bad round", true, "", disagree, ""},
	} {
		r := raw("tail-call", 10, 1)
		p := &r.pairs[0]
		p.refused, p.failure = test.refused, test.failure
		if !test.numbers {
			p.rounds, p.withNs, p.withoutNs = nil, nil, nil
		}
		rows, _ := r.Record()
		row := rows[0]
		if row.Refused != test.want {
			t.Errorf("%s: refused with %q, want %q", test.name, row.Refused, test.want)
		}
		priced := test.want == ""
		for what, got := range map[string]bool{
			"price": row.Price != nil, "time with it": row.With != nil, "calls per packet": row.PerPacket != nil,
			"samples": len(row.Samples) > 0,
		} {
			if got != priced {
				t.Errorf("%s: there is a %s: %v", test.name, what, got)
			}
		}
	}
}

func warned(warns []record.Warning, text string) bool {
	return slices.ContainsFunc(warns, func(w record.Warning) bool { return strings.Contains(w.Text, text) })
}

func TestWarnings(t *testing.T) {
	r := raw("control", 10, 0.5)
	r.Planned = 9
	_, warns := r.Record()
	for _, want := range []string{"the control is not 0", "8 of 9 rounds"} {
		if !warned(warns, want) {
			t.Errorf("no %q in %v", want, warns)
		}
	}
	r = raw("control", 10, 0.5)
	p := &r.pairs[0]
	p.rounds, p.withNs, p.withoutNs = p.rounds[:3], p.withNs[:3], p.withoutNs[:3]
	if _, warns := r.Record(); !warned(warns, "3 rounds") {
		t.Errorf("%v", warns)
	}
}

// Numbers of one fill are alike. They count as one when there are fills enough,
// and the row says so when there are not.
func TestPerRound(t *testing.T) {
	r := raw(Thunk, 10, 12)
	p := &r.pairs[0]
	p.rounds, p.withNs, p.withoutNs = nil, nil, nil
	for fill := range 6 {
		for _, wobble := range []float64{-0.1, 0, 0.3} {
			p.add(fill, 20+float64(fill)+wobble, 10)
		}
	}
	rows, warns := r.Record()
	if diff := cmp.Diff([]float64{10, 11, 12, 13, 14, 15}, rows[0].Samples); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5}, rows[0].Rounds); diff != "" {
		t.Errorf("rounds (-want +got):\n%s", diff)
	}
	if warned(warns, "fills") {
		t.Errorf("%v", warns)
	}
	p.rounds, p.withNs, p.withoutNs = p.rounds[:9], p.withNs[:9], p.withoutNs[:9]
	rows, warns = r.Record()
	if len(rows[0].Samples) != 9 || len(slices.Compact(slices.Sorted(slices.Values(rows[0].Rounds)))) != 9 {
		t.Errorf("samples %v of rounds %v", rows[0].Samples, rows[0].Rounds)
	}
	if !warned(warns, "fills of the dispatcher: 3") {
		t.Errorf("%v", warns)
	}
}

// A packet's estimate is calls times price, and what is left without them.
func TestPackets(t *testing.T) {
	r := onPath(raw(Thunk, 10, 12))
	r.outside = 1
	rows, _ := r.Record()
	got := make(map[string]record.TaxRow)
	for _, row := range rows {
		got[row.Name] = row
	}
	for _, test := range []struct {
		name                 string
		calls, with, without float64
	}{
		// One program outside, ndo_xdp_xmit and NAPI poll.
		{"packet/bulk=1", 3, 400, 400 - 36},
		{"packet/bulk=16", 1.125, 110, 110 - 13.5},
		{"packet/bulk=64", 1.078, 100, 100 - 12.94},
		// Three calls and the poll.
		{"packet/2018", 3.0156, 100 + (3.0156-1.078)*12, 100 - 12.94},
	} {
		row, ok := got[test.name]
		if !ok {
			t.Errorf("no %s", test.name)
			continue
		}
		near(t, test.name+" calls", row.PerPacket.Median, test.calls)
		near(t, test.name+" with", row.With.Median, test.with)
		near(t, test.name+" without", row.Without.Median, test.without)
		near(t, test.name+" price", row.Price.Median, test.calls*12)
		if row.Price.Low > row.Price.Median || row.Price.High < row.Price.Median {
			t.Errorf("%s: %+v", test.name, row.Price)
		}
	}
	if note := got["packet/bulk=16"].Note; strings.Contains(note, "softirq") {
		t.Errorf("a direct call is counted: %s", note)
	}

	// Without the price of a call there is no estimate.
	if rows, _ := onPath(raw("tail-call", 10, 12)).Record(); len(rows) != 1 {
		t.Errorf("%d rows", len(rows))
	}
}

// The rows of a packet of the user's say what becomes of it, and a call that it does not make has no price.
func TestPacketsByVerdict(t *testing.T) {
	for verdict, target := range map[string]string{
		"": "all indirect calls of a redirected packet:", "redirect": "all indirect calls of a redirected packet:",
		"tx":                "all indirect calls of a packet that is sent back (XDP_TX):",
		"drop":              "all indirect calls of a packet that is dropped:",
		"pass":              "all indirect calls of a packet that passes, without those of the network stack:",
		record.MixedVerdict: "all indirect calls of a packet, without those of the network stack:",
	} {
		r := onPath(raw(Thunk, 10, 12))
		r.pairs = append(r.pairs, raw("ndo-xdp-xmit/bulk=16", 100, 300).pairs...)
		r.yours, r.verdict = verdict != "", verdict
		redirects := verdict == "" || verdict == "redirect" || verdict == record.MixedVerdict
		for bulk, calls := range r.calls {
			if !redirects {
				calls.Xmits = 0
			}
			r.calls[bulk] = calls
		}
		rows, _ := r.Record()
		packets := 0
		for _, row := range rows {
			switch {
			case row.Name == "ndo-xdp-xmit/bulk=16":
				if (row.Refused == "") != redirects || (row.Price != nil) != redirects || !redirects && row.Refused != notOnPath {
					t.Errorf("%q: refused %q, price %v", verdict, row.Refused, row.Price)
				}
			case row.Labels["pair"] == "packet":
				packets++
				if !strings.HasPrefix(row.Target, target) || row.Labels["verdict"] != verdict {
					t.Errorf("%q: %q, labels %v", verdict, row.Target, row.Labels)
				}
			}
		}
		if packets < 3 {
			t.Errorf("%q: %d estimates", verdict, packets)
		}
	}
}

// On an emulated CPU each row has what was counted, and no number in ns, whatever the pair.
func TestUncharged(t *testing.T) {
	r := onPath(raw("", 0, 0))
	r.outside = 1
	r.pairs = everyPair()
	for i := range r.pairs {
		r.pairs[i].premise, r.pairs[i].refused, r.pairs[i].uncharged = "found", string(errEmulated), true
	}
	rows, warns := r.Record()
	if len(rows) != len(r.pairs)+4 || len(warns) > 0 {
		t.Errorf("%d rows of %d pairs, warnings %v", len(rows), len(r.pairs), warns)
	}
	doc := record.New[record.TaxRow]("tax", host.Fingerprint{})
	doc.Rows = rows
	if b, err := record.Encode(doc); err != nil {
		t.Error(err)
	} else if _, err := record.Parse(b); err != nil {
		t.Error(err)
	}
	want := map[string]float64{Thunk: 1, "packet/bulk=1": 3, "packet/bulk=16": 1.125, "packet/bulk=64": 1.078, "packet/2018": 3.0156,
		"ndo-xdp-xmit/bulk=16": 1 - 1./16, "devmap-prog": 1, "tracepoint/1": 1, "tail-call": 0}
	for _, row := range rows {
		if row.Refused != errEmulated.Error() || row.Price != nil || row.With != nil || row.Cycles != nil || row.NsPerPacket != nil ||
			len(row.Samples) > 0 {
			t.Errorf("%s: %+v", row.Name, row)
		}
		if calls, ok := want[row.Name]; ok && row.PerPacket == nil {
			t.Errorf("%s was not counted", row.Name)
		} else if ok {
			near(t, row.Name, row.PerPacket.Median, calls)
		}
	}
}

// Where there is no BPF dispatcher a packet's program is called through a register: by the price of a callback, once a packet.
func TestProgramCall(t *testing.T) {
	r := onPath(raw("callback/loop", 10, 12))
	r.outside = 1
	r.pairs[0].pair = programCall()
	rows, warns := r.Record()
	if len(warns) > 0 || len(rows) != 5 || rows[0].Name != Thunk {
		t.Fatalf("%d rows, warnings %v", len(rows), warns)
	}
	near(t, "price", rows[0].Price.Median, 12)
	near(t, "calls", rows[0].PerPacket.Median, 1)
	near(t, "ns a packet at bulk 16", rows[2].Price.Median, 1.125*12)
}

// The price of not bulking is split into what the calls account for and the rest.
func TestSplit(t *testing.T) {
	r := onPath(raw(Thunk, 10, 12))
	r.pairs = append(r.pairs, raw("ndo-xdp-xmit/bulk=16", 110, 290).pairs...)
	rows, _ := r.Record()
	row := rows[1]
	near(t, "calls saved", row.PerPacket.Median, 1-1.0/16)
	near(t, "ns of the calls", row.NsPerPacket.Median, 12*15/16.0)
	if !strings.Contains(row.Note, "0.94 calls a packet fewer account for 11.3 ns of it, 4 %") {
		t.Error(row.Note)
	}

	r = onPath(raw("ndo-xdp-xmit/bulk=16", 110, 290))
	rows, _ = r.Record()
	if rows[0].NsPerPacket != nil || !strings.Contains(rows[0].Note, "not measured") {
		t.Errorf("%v, %s", rows[0].NsPerPacket, rows[0].Note)
	}
}

// What no packet can have taken has no number: a record that has it is not read.
func TestImpossible(t *testing.T) {
	r := onPath(raw(Thunk, 10, 12))
	r.pairs = append(r.pairs, raw("ndo-xdp-xmit/bulk=16", -677, 290).pairs...)
	r.hops = map[int][]float64{16: slices.Repeat([]float64{-677}, 8)}
	rows, warns := r.Record()
	for _, row := range rows {
		if refused := strings.HasPrefix(row.Refused, "disturbed: one of its sides took -"); refused != (row.Name != Thunk) {
			t.Errorf("%s: refused %q", row.Name, row.Refused)
		}
	}
	if len(rows) != 3 {
		t.Errorf("%d rows", len(rows))
	}
	doc := record.New[record.TaxRow]("tax", host.Fingerprint{})
	doc.Rows, doc.Warnings = rows, warns
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := record.Parse(b); err != nil {
		t.Error(err)
	}
}

// Each fact of this kernel's code has its clause.
// A premise says that CFI tests the target: the price then holds the test.
func TestBehindCFI(t *testing.T) {
	const at = 0xffffffff81000000
	// mov $-hash,%r10d; add -4(%r11),%r10d; je 1f; ud2; 1: call *%r11; ret
	code := []byte("\x41\xba\x11\x22\x33\x44\x45\x03\x53\xfc\x74\x02\x0f\x0b\x41\xff\xd3\xc3")
	f := ksym.Symbol{Addr: at, Size: uint64(len(code)), Type: 't', Name: "f"}
	symbols, err := ksym.New([]ksym.Symbol{f})
	if err != nil {
		t.Fatal(err)
	}
	got, err := branches(kernel.New(ktext.Bytes{Addr: at, Code: code}, symbols, nil), f)
	if want := []string{"f+0xe: call register behind kcfi"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func TestFrameReturns(t *testing.T) {
	for _, test := range []struct {
		known frameReturns
		want  string
	}{
		{frameReturns{}, "no function built into this kernel calls xdp_return_frame_bulk"},
		{frameReturns{direct: []string{"f", "g"}, single: []string{"a", "b"}, bulk: []string{"driver"}},
			"already direct here: f, g make no indirect branch; " +
				"a, b (refused by the target, dropped at the sink, cpumap) all return frames one by one; " +
				"only these call xdp_return_frame_bulk, and no virtual device runs them: driver"},
		{frameReturns{direct: []string{"f"}, indirect: []string{"g+0x1: call thunk"}},
			"indirect: g+0x1: call thunk; no function built into this kernel calls xdp_return_frame_bulk"},
	} {
		if got := test.known.String(); got != test.want {
			t.Errorf("%+v: %s, want %s", test.known, got, test.want)
		}
	}
}

package conclusion

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func ns(median, low, high float64) *stat.Quantity {
	return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: "ns"}
}

func TestNew(t *testing.T) {
	doc := &record.Document[record.BenchRow]{
		Rows: []record.BenchRow{
			{Labels: map[string]string{"bulk": "1"}, Hop: ns(370, 360, 380)},
			{Labels: map[string]string{"bulk": "16"}, Hop: ns(100, 98, 102)},
			{Labels: map[string]string{"bulk": "64"}, Hop: ns(95, 90, 100)},
		},
		RunParts: record.RunParts{Prices: []record.TaxRow{
			{Name: "packet/bulk=16", With: ns(90, 85, 95), Price: ns(2, 1, 3)},
			{Name: "bpf-prog", Price: ns(10, 9, 11)},
			{Name: "tracepoint/1", Price: ns(50, 40, 60)},
			{Name: "devmap-prog", Price: ns(1, -1, 3)},
			{Name: "tail-call", Price: ns(20, 19, 21)},
		}, Stages: []record.ProfileRow{{Name: "generator", Ns: ns(100, 90, 110)}, {Name: "receive", Ns: ns(50, 45, 55)},
			{Name: "transmit", Ns: ns(5, 4, 6)}}, Profile: &record.ProfileParts{Tax: &record.ProfileTax{ReturnEntries: ns(150, 140, 160)}}},
	}
	findings := []host.Finding{
		{Name: "indirect-call", Do: "use IBRS: this guest lacks it"}, {Name: "return-thunk", Do: "count calls"}, {Name: "iommu"},
		{Name: "xdp-observers", Found: "none attached"},
	}
	v := New(doc, findings)
	// Of the redirect of the ladder, which the screen shows, not of the one that prices were taken on.
	if v.Share == nil || v.Share.Median != 2 || math.Abs(v.Share.Low-1) > 0.02 || math.Abs(v.Share.High-3) > 0.02 || v.Share.Unit != "%" {
		t.Errorf("share %+v", v.Share)
	}
	if v.Largest == nil || v.Largest.Name != "receive" {
		t.Errorf("largest %+v", v.Largest)
	}
	said := func(gains []record.Gain) string {
		var all []string
		for _, g := range gains {
			all = append(all, g.What)
		}
		return strings.Join(all, "|")
	}
	if got := said(v.Win); got != "count calls|use IBRS" {
		t.Errorf("to try: %s", got)
	}
	if !v.Win[0].AtMost || v.Win[1].Why != "this guest lacks it" {
		t.Errorf("to try: %+v", v.Win)
	}
	// A price that may be 0 is no loss.
	if got := said(v.Lose); got != "a program at tracepoint xdp_redirect|a tail call to an index that is not constant|"+
		"a 49th XDP program" {
		t.Errorf("to avoid: %s", got)
	}
	if v.Lose[0].Now != "none attached" {
		t.Errorf("to avoid: %+v", v.Lose[0])
	}
	if v := New(&record.Document[record.BenchRow]{}, nil); v.Share != nil || v.Largest != nil || len(v.Win)+len(v.Lose) > 0 ||
		v.Win == nil || v.Lose == nil {
		t.Errorf("of nothing: %+v", v)
	}
	findings[2].Do = "boot with iommu=pt"
	if v := New(doc, findings); len(v.Win) != 3 || v.Win[1].Ns.Median != 40 {
		t.Errorf("behind an IOMMU: %+v", v.Win)
	}
	for release, want := range map[string]int{"6.1.0-56-amd64": 4, "5.18.2": 4, "6.12.1": 3, "6.18.44": 3, "7.0": 3, "": 3} {
		doc.Host.Kernel = release
		if v := New(doc, findings); len(v.Win) != want {
			t.Errorf("Linux %q behind an IOMMU: %+v", release, v.Win)
		}
	}
}

// What is no more than two loads of one program differ by is noise, and no advice.
func TestNoise(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		control, tailCall *stat.Quantity
		want              int
	}{
		{ns(0, -0.1, 0.01), ns(0.08, 0.02, 0.2), 0},
		{ns(0, -0.01, 0.1), ns(0.08, 0.02, 0.2), 0},
		{ns(0, -0.02, 0.01), ns(0.08, 0.02, 0.2), 1},
		{ns(0, math.NaN(), math.NaN()), ns(0.08, 0.02, 0.2), 1},
		{ns(0, -0.02, 0.01), ns(0.08, -0.02, 0.2), 0},
		{ns(0, -0.1, 0.1), ns(10, 9, 11), 1},
	} {
		doc := &record.Document[record.BenchRow]{}
		doc.Prices = []record.TaxRow{{Name: "control", Price: test.control}, {Name: "tail-call", Price: test.tailCall}}
		if v := New(doc, nil); len(v.Lose) != test.want {
			t.Errorf("%v beside a control of %v: %+v", test.tailCall, test.control, v.Lose)
		}
	}
}

// To raise the bulk is advice for a machine with a NIC that makes small ones, and for no other.
func TestBulkGain(t *testing.T) {
	rows := []record.BenchRow{
		{Labels: map[string]string{"bulk": "1"}, Hop: ns(370, 360, 380)},
		{Labels: map[string]string{"bulk": "64"}, Hop: ns(95, 90, 100)},
	}
	coalescing := host.Finding{Name: "nic-eth0-coalescing", Found: "rx-usecs 0", Do: "ethtool -C eth0 rx-usecs 16"}
	got := bulkGain(rows, []host.Finding{{Name: "cpu"}, coalescing})
	if len(got) != 1 || got[0].What != coalescing.Do || got[0].Now != "rx-usecs 0" || !got[0].AtMost ||
		got[0].Ns.Median != 275 || got[0].Ns.Low != 260 || got[0].Ns.High != 290 {
		t.Errorf("a NIC without coalescing: %+v", got)
	}
	coalescing.Do = ""
	if got := bulkGain(rows, []host.Finding{coalescing}); got != nil {
		t.Errorf("a NIC with coalescing: %+v", got)
	}
	if got := bulkGain(rows, nil); got != nil {
		t.Errorf("no NIC: %+v", got)
	}
}

// What costs packets on this machine is said though a run does not price it.
func TestUnpriced(t *testing.T) {
	v := New(&record.Document[record.BenchRow]{}, []host.Finding{
		{Name: "bpf-stats", Level: host.LevelWarn, Found: "on", Do: "sysctl kernel.bpf_stats_enabled=0"},
		{Name: "bpf-jit", Level: host.LevelOK, Found: "on"},
		{Name: "xdp-observers", Level: host.LevelWarn, Found: "xdpmon at xdp_redirect", Do: "detach it: bpftool link list"},
	})
	if len(v.Win) != 2 || v.Win[0].Ns != nil || v.Win[0].What != "detach it" || v.Win[0].Now != "xdpmon at xdp_redirect" ||
		v.Win[1].Now != "bpf-stats is on" {
		t.Errorf("%+v", v.Win)
	}
}

// What this machine has is not to be avoided but undone.
func TestTaken(t *testing.T) {
	doc := &record.Document[record.BenchRow]{RunParts: record.RunParts{Prices: []record.TaxRow{
		{Name: "bpf-prog", Price: ns(10, 9, 11)}, {Name: "tracepoint/1", Price: ns(50, 40, 60)},
	}}}
	full := host.Finding{Name: "xdp-dispatcher", Level: host.LevelWarn, Found: "48 of 48 dispatcher slots taken", Do: "detach programs"}
	v := New(doc, []host.Finding{full})
	if len(v.Win) != 1 || v.Win[0].What != "detach programs" || v.Win[0].Ns.Median != 10 || len(v.Lose) != 1 {
		t.Errorf("try %+v, avoid %+v", v.Win, v.Lose)
	}
	full.Level = host.LevelOK
	if v := New(doc, []host.Finding{full}); len(v.Win) != 0 || len(v.Lose) != 2 || v.Lose[1].Now != full.Found {
		t.Errorf("try %+v, avoid %+v", v.Win, v.Lose)
	}
}

// What is said of the packets of a program of the user's is true of its verdict: only a redirect is called one.
func TestVerdicts(t *testing.T) {
	const of = ": 3.00 ns [2.00, 4.00] of the 100 ns of your program and the way of its verdict, 3.00 % [2.00, 4.00]. " +
		"Without them it would take 97.0 ns."
	for _, test := range []struct {
		verdict, none, some string
	}{
		{"redirect", "a redirect makes no indirect call behind the program.", "a redirect makes 0.25 indirect calls of 12.0 ns each" + of},
		{"tx", "a packet that is sent back (XDP_TX) makes no indirect call behind the program.",
			"a packet that is sent back (XDP_TX) makes 0.25 indirect calls of 12.0 ns each" + of},
		{"drop", "a packet that is dropped makes no indirect call behind the program.",
			"a packet that is dropped makes 0.25 indirect calls of 12.0 ns each" + of},
		{"pass", "a packet that passes makes no indirect call behind the program; those of the network stack are not counted.",
			"a packet that passes makes 0.25 indirect calls of 12.0 ns each, without those of the network stack" + of},
		{record.MixedVerdict, "a packet makes no indirect call behind the program; those of the network stack are not counted.",
			"a packet makes 0.25 indirect calls of 12.0 ns each, without those of the network stack" + of},
	} {
		row := record.TaxRow{Name: "packet/bulk=16", Labels: map[string]string{"verdict": test.verdict},
			PerPacket: &stat.Quantity{Unit: "calls"}, With: ns(100, 99, 101), Without: ns(100, 99, 101), Price: ns(0, 0, 0)}
		if got, want := Calls([]record.TaxRow{row}, nil), "At bulk 16 "+test.none; got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", test.verdict, got, want)
		}
		if got := taxHeadline([]record.TaxRow{row}); got.Title == "" || strings.Contains(got.Title, "redirect") {
			t.Errorf("%s: %+v", test.verdict, got)
		}
		row.PerPacket.Median, row.Price, row.Without = 0.25, ns(3, 2, 4), ns(97, 96, 98)
		if got, want := Calls([]record.TaxRow{row}, nil), "At bulk 16 "+test.some; got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", test.verdict, got, want)
		}
		said := taxHeadline([]record.TaxRow{row})
		if is := strings.Contains(said.Title+said.Text, "redirect"); is != (test.verdict == "redirect") {
			t.Errorf("%s: %+v", test.verdict, said)
		}
	}
}

// The footnote of rates names the tests without a redirect that have a number there, and no others.
func TestRatesBasis(t *testing.T) {
	row := func(scenario string, hop *stat.Quantity) record.BenchRow {
		return record.BenchRow{Labels: map[string]string{"scenario": scenario}, Hop: hop, Rounds: []int{0}}
	}
	for _, test := range []struct {
		rows []record.BenchRow
		want string
	}{
		{[]record.BenchRow{row("tx", ns(2, 1, 3)), row("pass", nil)}, "the same test that drops; of tx too, without a redirect."},
		{[]record.BenchRow{row("redirect-map", ns(2, 1, 3)), row("pass", nil)}, "the same test that drops."},
	} {
		got := RatesBasis(&record.Document[record.BenchRow]{Rows: test.rows})
		if !strings.HasSuffix(got, test.want) {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

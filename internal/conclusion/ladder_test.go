package conclusion

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestLadder(t *testing.T) {
	rung := func(bulk string, hop *stat.Quantity) record.BenchRow {
		return record.BenchRow{
			Name: "redirect-map/bulk=" + bulk, Labels: map[string]string{"bulk": bulk},
			Mpps: &stat.Quantity{Median: 10, Low: 9.8, High: 10.2, Unit: "Mpps"}, Ns: ns(100, 98, 102), Hop: hop,
		}
	}
	few := func(x float64) *stat.Quantity { return ns(x, math.NaN(), math.NaN()) }
	refused := rung("64", nil)
	refused.Ns, refused.Mpps, refused.Refused = nil, nil, "packet counts disagree"
	const first = "One core does 10.00 Mpps [9.80, 10.20] of the whole test at bulk 64."
	for name, test := range map[string]struct {
		rows []record.BenchRow
		want string
	}{
		"saves": {[]record.BenchRow{rung("1", ns(140, 138, 142)), rung("64", ns(40, 38, 42))},
			first + " The redirect alone takes 40 ns [38, 42] of a packet's 100 ns, 40 %. At bulk 1 it takes 140 ns [138, 142]: " +
				"bulking saves 100 ns a packet."},
		"no telling": {[]record.BenchRow{rung("1", ns(50, 41, 60)), rung("64", ns(40, 38, 42))},
			first + " The redirect alone takes 40 ns [38, 42] of a packet's 100 ns, 40 %. At bulk 1 it takes 50 ns [41, 60]: " +
				"this run cannot tell what bulking saves."},
		"one row": {[]record.BenchRow{rung("64", few(40))}, first +
			" The redirect alone takes 40 ns (too few rounds for an interval) of a packet's 100 ns, 40 %."},
		"no hop":     {[]record.BenchRow{rung("64", nil)}, first},
		"refused":    {[]record.BenchRow{rung("1", nil), refused}, "redirect-map/bulk=64 has no number: packet counts disagree."},
		"no rows":    {nil, "Nothing was measured."},
		"first only": {[]record.BenchRow{refused, rung("64", nil)}, first},
	} {
		if got := Ladder(test.rows); got != test.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, test.want)
		}
	}
}

func TestCalls(t *testing.T) {
	calls := func(n float64) *stat.Quantity {
		return &stat.Quantity{Median: n, Low: n, High: n, N: 7, Unit: "calls"}
	}
	rows := []record.TaxRow{
		{Name: "bpf-prog", Price: ns(12, 11, 13)},
		{Name: "packet/bulk=16", PerPacket: calls(1.125), With: ns(110, 109, 111), Without: ns(96.5, 95, 98), Price: ns(13.5, 12, 15)},
		{Name: "packet/2018", PerPacket: calls(3.0156), With: ns(123, 121, 125), Without: ns(87, 86, 88),
			Price: ns(36.2, math.NaN(), math.NaN())},
		{Name: "packet/bulk=64", Refused: "why"},
	}
	want := "At bulk 16 a redirect makes 1.13 indirect calls of 12.0 ns each: 13.5 ns [12.0, 15.0] of its 110 ns, " +
		"12.3 % [10.9, 13.6]. Without them it would take 96.5 ns. " +
		"In 2018 each packet had a call of ndo_xdp_xmit, of the program and of a map lookup of its own. At bulk 64 that is " +
		"3.02 indirect calls of 12.0 ns each: 36.2 ns of 123 ns, 29 %."
	if got := Calls(rows, nil); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	// Beside a ladder it is of the redirect that the ladder has: one quantity, one figure.
	ladder := []record.BenchRow{{Labels: map[string]string{"bulk": "16"}, Hop: ns(135, 134, 136)}}
	if got := Calls(rows, ladder); !strings.Contains(got, "of its 135 ns, 10.0 %") || !strings.Contains(got, "would take 122 ns") {
		t.Errorf("%s", got)
	}
	if got := Calls(rows[:1], nil); got != "" {
		t.Errorf("without an estimate: %q", got)
	}
}

package conclusion

import (
	"math"
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
	const first = "One core sends 10.00 Mpps [9.80, 10.20] through the chain at bulk 64."
	for name, test := range map[string]struct {
		rows []record.BenchRow
		want string
	}{
		"saves": {[]record.BenchRow{rung("1", ns(140, 138, 142)), rung("64", ns(40, 38, 42))},
			first + " The redirect hop takes 40 ns [38, 42] of a packet's 100 ns, 40 %. At bulk 1 it takes 140 ns [138, 142]: " +
				"bulking saves 100 ns a packet."},
		"no telling": {[]record.BenchRow{rung("1", ns(50, 41, 60)), rung("64", ns(40, 38, 42))},
			first + " The redirect hop takes 40 ns [38, 42] of a packet's 100 ns, 40 %. At bulk 1 it takes 50 ns [41, 60]: " +
				"this run cannot tell what bulking saves."},
		"one row": {[]record.BenchRow{rung("64", few(40))}, first +
			" The redirect hop takes 40 ns (too few rounds for an interval) of a packet's 100 ns, 40 %."},
		"no hop":     {[]record.BenchRow{rung("64", nil)}, first},
		"refused":    {[]record.BenchRow{rung("1", nil), refused}, "No verdict: redirect-map/bulk=64 has no number (packet counts disagree)."},
		"no rows":    {nil, "No verdict: nothing was measured."},
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
	want := "At bulk 16 a redirect makes 1.12 indirect calls at 12.0 ns each: 13.5 ns [12.0, 15.0] of its 110 ns, 12.3 " +
		"%; with none it would take 96 ns. " +
		"With a call for each packet of ndo_xdp_xmit, of the program and of a map lookup, as in 2018, and all else bulked " +
		"as it is at 64, it would make " +
		"3.02 indirect calls at 12.0 ns each: 36.2 ns of its 123 ns, 29.4 %; with none it would take 87 ns."
	if got := Calls(rows); got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
	if got := Calls(rows[:1]); got != "" {
		t.Errorf("without an estimate: %q", got)
	}
}

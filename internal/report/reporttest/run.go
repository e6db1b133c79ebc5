package reporttest

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Run is a record of run on a quiet machine: a ladder, prices, stages, advice.
func Run() *record.Document[record.BenchRow] {
	doc := Bench("run", 3, 1)
	doc.Kind = "run"
	doc.Settings = map[string]string{"cpu": "1", "profiled": "redirect-map/bulk=16", "core-clock": "3.60 GHz (3.58 to 3.62)"}
	doc.Host = host.Fingerprint{
		CPU: "AMD EPYC, family 26 model 2 stepping 1", Virtual: "KVM", Kernel: "6.18.44", Compiler: "gcc 15.3.0",
		IndirectThunk: "retpoline", ReturnThunk: "ret", CallSites: "through thunks",
		Mitigations: map[string]string{"spectre-v2": "Mitigation: Retpolines"},
	}
	r := rand.New(rand.NewPCG(3, 7))
	rows := doc.Rows[:0]
	for _, want := range []struct {
		bulk          string
		ns, alone, of float64
	}{{"1", 265, 110, 1}, {"4", 101, 40, 4}, {"16", 62.8, 24.1, 16}, {"64", 58.3, 22.7, 16}} {
		row := BenchRow(r, "redirect-map/bulk="+want.bulk, want.bulk, want.ns, want.alone, want.of)
		row.Mpps = Around(1e3/want.ns, 0.1, "Mpps")
		row.Ns, row.Hop = Around(want.ns, want.ns/200, "ns"), Around(want.alone, 0.02*want.alone, "ns")
		rows = append(rows, row)
	}
	doc.Rows = rows
	doc.Prices = slices.DeleteFunc(Tax().Rows, func(row record.TaxRow) bool { return strings.HasPrefix(row.Name, "packet/") })
	price := func(name string, price, with, calls float64) {
		doc.Prices = append(doc.Prices, record.TaxRow{
			Name: name, Labels: map[string]string{"pair": "packet"}, Price: Around(price, price/20, "ns"),
			With: Around(with, 1, "ns"), Without: Around(with-price, 1, "ns"),
			PerPacket: &stat.Quantity{Median: calls, Low: calls, High: calls, N: 1, Unit: "calls"},
		})
	}
	price("packet/bulk=16", 1.04, 23.3, 0.125)
	price("packet/2018", 25.4, 46.7, 3.05)
	p := Profile()
	doc.Stages, doc.Profile = p.Rows, &p.ProfileParts
	doc.Conclusion = &record.Conclusion{
		Win: []record.Gain{{What: "have the hypervisor pass automatic IBRS through", Why: "Zen 5 has it, this guest does not see it",
			Ns: Around(1.04, 0.05, "ns"), Verb: "check"}},
		Lose: []record.Gain{
			{What: "a program at tracepoint xdp_redirect", Now: "none attached", Ns: Around(17.6, 0.4, "ns"), Verb: "tax"},
			{What: "a second XDP program, in the devmap", Ns: Around(12.5, 0.2, "ns"), Verb: "tax"},
			{What: "a tail call to an index that is not constant", Ns: Around(10.5, 0.2, "ns"), Verb: "tax"},
			{What: "a 49th XDP program", Now: "3 of 48 dispatcher slots taken", Ns: Around(8.32, 0.2, "ns"), Verb: "tax"},
		},
	}
	return doc
}

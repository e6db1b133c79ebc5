package reporttest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// BenchRow is a row of bench with values around ns, of them hop, and frames a call.
func BenchRow(r *rand.Rand, name, bulk string, ns, hop, frames float64) record.BenchRow {
	const rounds = 15
	row := record.BenchRow{
		Name: name, Labels: map[string]string{"bulk": bulk, "scenario": "redirect-map"},
		Counts: record.Counts{Sent: 1 << 20, Redirected: 1 << 20, Received: 1 << 20},
	}
	var mpps, hops []float64
	for i := range rounds {
		x := ns * math.Exp(0.03*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, x), append(row.Rounds, i)
		mpps = append(mpps, 1e3/x)
		hops = append(hops, hop*math.Exp(0.1*r.NormFloat64()))
	}
	q := func(xs []float64, unit string) *stat.Quantity {
		s := stat.Summarize(xs, unit)
		return &s
	}
	row.Ns, row.Mpps, row.FramesPerXmit = q(row.Samples, "ns"), q(mpps, "Mpps"),
		&stat.Quantity{Median: frames, Low: frames, High: frames, N: rounds, Unit: "frames"}
	if hop > 0 {
		row.Hop = q(hops, "ns")
	}
	return row
}

// Bench is a record of bench: a ladder whose ns are factor times those of factor 1.
func Bench(run string, seed uint64, factor float64) *record.Document[record.BenchRow] {
	r := rand.New(rand.NewPCG(seed, 7))
	machine := host.Fingerprint{
		CPU: "Intel(R) Xeon(R) CPU E5-1650 v4 @ 3.60GHz", Kernel: "6.12.9",
		Compiler: "gcc (Debian 14.2.0-19) 14.2.0", IndirectThunk: "retpoline", CallSites: "through thunks",
		Governor:    "performance",
		Mitigations: map[string]string{"spectre-v2": "Mitigation: Retpolines; IBPB: conditional; RSB filling"},
	}
	doc := &record.Document[record.BenchRow]{
		Head: record.Head{
			Schema: record.Schema, Kind: "bench", Run: run, Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Host: machine,
		},
		Warnings: []record.Warning{},
	}
	for i, bulk := range []string{"1", "2", "4", "8", "16", "32", "64"} {
		ns := 60 + 1400/float64(int(1)<<i)
		doc.Rows = append(doc.Rows, BenchRow(r, "redirect-map/bulk="+bulk, bulk, ns*factor, ns/2*factor,
			float64(int(1)<<min(i, 4))))
	}
	return doc
}

// FullBench is a record of bench with a row of each sort, refused ones too, and warnings.
func FullBench() *record.Document[record.BenchRow] {
	doc := Bench("one", 1, 1)
	r := rand.New(rand.NewPCG(2, 2))
	doc.Rows[6].CountingCost = &stat.Quantity{Median: 1.24, Low: 0.41, High: 2.07, N: 15, Unit: "ns"}
	doc.Rows = append(doc.Rows,
		BenchRow(r, "redirect-map/bulk=64/operation=swap-macs/size=1500", "64", 140, 51, 16),
		record.BenchRow{Name: "redirect-xsk/bulk=1", Labels: map[string]string{"bulk": "1"},
			Refused: "packet counts disagree: 1048576 sent, 1048576 redirected, 0 received; xdp_redirect: EOPNOTSUPP " +
				"(eth1's peer has no XDP program)"},
		BenchRow(r, "drop/bulk=64", "64", 41, 0, 0),
		BenchRow(r, "redirect-map/in=eth0/out=eth1", "", 83, 0, 11.5),
	)
	doc.Rows[9].FramesPerXmit = nil
	few := &doc.Rows[10]
	few.Samples, few.Rounds = few.Samples[:3], few.Rounds[:3]
	few.Ns.Low, few.Ns.High, few.Mpps.Low, few.Mpps.High = math.NaN(), math.NaN(), math.NaN(), math.NaN()
	doc.Warnings = []record.Warning{
		{Row: "redirect-map/bulk=64", Text: "two modes, near 96.2 and 154: the median may lie in either"},
		{Row: "redirect-map/bulk=64", Text: "drifted by +12 % from first to last round: the interval is too narrow"},
		{Row: "drop/bulk=64", Text: "two modes, near 96.2 and 154: the median may lie in either"},
		{Row: "redirect-map/in=eth0/out=eth1", Text: "3 rounds: a 95 % interval needs 6"},
		{Text: "the hypervisor took 4.1 % of the CPUs' time during the run"},
	}
	return doc
}

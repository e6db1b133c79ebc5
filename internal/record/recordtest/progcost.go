package recordtest

import (
	"math/rand/v2"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// CostRow is a row of packets that cost ns each, give or take sd a round.
func CostRow(r *rand.Rand, name string, packets int, share, ns, sd float64, verdicts map[string]int) record.CostRow {
	row := record.CostRow{
		Name: name, Labels: map[string]string{}, Packets: packets, Timed: min(packets, 1024), Share: share, Verdicts: verdicts,
	}
	for i := range 20 {
		row.Samples, row.Rounds = append(row.Samples, ns+sd*r.NormFloat64()), append(row.Rounds, i)
	}
	q, null := stat.Location(row.Samples, "ns"), stat.Quantity{Median: 80, Low: 79, High: 81, N: 20, Unit: "ns"}
	row.Ns, row.Null = &q, &null
	return row
}

// Cost is a record of prog cost, of a program that costs factor times what it costs at 1.
func Cost(run string, seed uint64, factor float64) *record.ProgCost {
	r := rand.New(rand.NewPCG(seed, 4))
	c := &record.ProgCost{
		Document: record.Document[record.CostRow]{
			Head: record.Head{Schema: record.Schema, Kind: "prog-cost", Run: run,
				Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: host.Fingerprint{Kernel: "6.18"}},
			Warnings: []record.Warning{},
		},
		CostParts: record.CostParts{
			Program: record.ProgramIdentity{Target: "lb.o", Name: "xdp_lb", Tag: "0123456789abcdef", JitedBytes: 1234, Places: 20},
			Packets: record.PacketSource{Source: "p.pcap", Seen: 20000, Kept: 16384, LeftOut: "3 cut short by the capture"},
		},
	}
	c.Rows = []record.CostRow{
		CostRow(r, "all", 16384, 100, 46*factor, 0.4, map[string]int{"tx": 13107, "pass": 3277}),
		CostRow(r, "verdict/tx", 13107, 80, 55*factor, 0.4, map[string]int{"tx": 13107}),
		CostRow(r, "verdict/pass", 3277, 20, 9*factor, 0.2, map[string]int{"pass": 3277}),
	}
	c.Rows[1].Labels["verdict"], c.Rows[2].Labels["verdict"] = "tx", "pass"
	return c
}

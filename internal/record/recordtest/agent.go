package recordtest

import (
	"math/rand/v2"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// AgentPrice is a price of about ns.
func AgentPrice(r *rand.Rand, name string, ns float64) record.TaxRow {
	row := record.TaxRow{Name: name, Labels: map[string]string{"pair": name}, Target: "a call"}
	with := make([]float64, 7)
	for i := range 7 {
		row.Samples, row.Rounds = append(row.Samples, ns+0.1*r.NormFloat64()), append(row.Rounds, i)
		with[i] = row.Samples[i] + 10
	}
	price, on := stat.Summarize(row.Samples, "ns"), stat.Summarize(with, "ns")
	row.Price, row.With, row.Without = &price, &on, &stat.Quantity{Median: 10, Low: 10, High: 10, N: 7, Unit: "ns"}
	return row
}

// Agent is a record of agent: machine n of a fleet, whose thunk takes about ns.
func Agent(run string, n uint64, ns float64) *record.Agent {
	r := rand.New(rand.NewPCG(n, 7))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cpu := 1
	const hex = "0123456789abcdef"
	id := []byte("0123456789abcdef0123456789abcdef")
	for i := range 8 {
		id[i] = hex[n>>(4*(7-i))&15]
	}
	a := &record.Agent{
		Document: record.Document[record.TaxRow]{
			Head: record.Head{Schema: record.Schema, Kind: "agent", Run: run, Time: at,
				Host: host.Fingerprint{CPU: "Some CPU", Microcode: "0x1", Virtual: "none", CPUs: 8, Kernel: "6.18", IndirectThunk: "retpoline"}},
			Rows: []record.TaxRow{AgentPrice(r, "control", 0), AgentPrice(r, "callback/loop", ns), AgentPrice(r, "map-lookup/lpm", ns+0.5),
				AgentPrice(r, "direct-call", 1.2)},
			Warnings: []record.Warning{},
		},
		AgentParts: record.AgentParts{
			Machine: record.Machine{ID: string(id), Name: "edge-1", Boot: "fedcba9876543210fedcba9876543210",
				Labels: map[string]string{"rack": "r12"}, IOMMU: "off", Drivers: []string{"mlx5_core"}},
			Reason: record.AgentBoot, Measured: &at,
			Findings: []host.Finding{{Name: "retpoline", Level: host.LevelWarn, Found: "indirect calls go through a retpoline"}},
			Paths: []record.AgentPath{{
				Device: "veth", PerPacket: 4, PacketMaybe: new(3), PerBulk: 2, BulkMaybe: new(0), PerPoll: 3, PollMaybe: new(1),
				Kinds: map[string]int{"thunk": 9},
			}},
			Programs: []record.ProgramRow{{Name: "id:42", ID: 42, Program: "xdp_lb", Type: "xdp", Tag: "0123456789abcdef",
				JitedBytes: 1234, Dispatcher: "in", Attached: []record.Attachment{}, Entries: []record.MapEntry{}, MapIDs: []uint32{}}},
			Code:    []record.ProgramCode{{Name: "id:42", Indirect: 2, TailCalls: 1, Changes: 1}},
			Refused: []record.AgentRefusal{},
			Cost:    record.AgentCost{Seconds: 4.2, CPUSeconds: 3.1, MeasureSeconds: 2.4, PeakBytes: 60 << 20, CPU: &cpu, Slots: 2},
		},
	}
	for _, bulk := range []string{"1", "16", "64"} {
		row := Row("redirect-map/bulk="+bulk, map[string]string{"scenario": "redirect-map", "bulk": bulk}, Steady, 1)
		hop := stat.Summarize(row.Samples, "ns")
		row.Hop = &hop
		a.Redirect = append(a.Redirect, row)
	}
	return a
}

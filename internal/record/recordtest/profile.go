package recordtest

import (
	"math"
	"math/rand/v2"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// MeanOf is what a profile states of samples, with an interval of no matter.
func MeanOf(samples []float64) *stat.Quantity {
	sum := 0.0
	for _, ns := range samples {
		sum += ns
	}
	m := sum / float64(len(samples))
	return &stat.Quantity{Median: m, Low: m - 1, High: m + 1, N: len(samples), Unit: "ns"}
}

// ProfileOf is a profile of rounds whose stages take ns per packet, a sample
// being worth 0.5 ns in a round. What is left of 300 ns is unattributed.
func ProfileOf(run string, seed uint64, rounds int, stages ...Stage) *record.Profile {
	r := rand.New(rand.NewPCG(seed, 3))
	p := &record.Profile{}
	p.Schema, p.Kind, p.Run, p.Warnings = record.Schema, "profile", run, []record.Warning{}
	p.Host, p.Settings = host.Fingerprint{Kernel: "6.12"}, map[string]string{"scenario": "redirect-map", "bulk": "64"}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 10_000, CPUs: []int{1}, Packets: 1 << 20}
	rest := make([]float64, rounds)
	packets := make([]float64, rounds)
	numbers := make([]int, rounds)
	total := 0.0
	for _, s := range stages {
		total += s.Ns
	}
	for i := range rounds {
		packets[i] = total + 5 + 2*r.NormFloat64()
		rest[i], numbers[i] = packets[i], i
	}
	const grain = 0.5
	for _, s := range stages {
		row := record.ProfileRow{Name: s.Name, Rounds: numbers}
		for i := range rounds {
			count := max(math.Round(s.Ns/grain+math.Sqrt(s.Ns/grain)*r.NormFloat64()), 0)
			row.Samples = append(row.Samples, count*grain)
			rest[i] -= count * grain
			p.Sampling.Samples += int(count)
		}
		row.Ns = MeanOf(row.Samples)
		p.Rows = append(p.Rows, row)
	}
	p.Rows = append(p.Rows, record.ProfileRow{Name: "unattributed", Ns: MeanOf(rest), Samples: rest, Rounds: numbers})
	p.Packet = MeanOf(packets)
	return p
}

type Stage struct {
	Name string
	Ns   float64
}

var Way = []Stage{{"receive", 60}, {"program", 40}, {"transmit", 120}, {"locks", 0.2}, {"dma", 0}}

// ChangedWay is Way with transmit made to take ns.
func ChangedWay(ns float64) []Stage {
	return []Stage{Way[0], Way[1], {"transmit", ns}, Way[3], Way[4]}
}

// FullProfile has something of everything a profile may hold.
func FullProfile() *record.Profile {
	p := ProfileOf("a", 1, 10, Way...)
	ns := func(x float64) *stat.Quantity {
		return &stat.Quantity{Median: x, Low: x - 1, High: x + 1, N: 10, Unit: "ns"}
	}
	calls := "napi_struct.poll"
	p.Sampling.Throughput = &stat.Quantity{Median: 99, Low: 98, High: 100, N: 10, Unit: "percent"}
	p.Functions = []record.ProfileFunction{{Name: "bq_xmit_all", Stage: "transmit", Samples: 12, Ns: ns(0.5)}}
	p.Tax = &record.ProfileTax{
		Thunks: ns(3), TargetEntries: ns(-0.5), Total: ns(-0.1),
		Returns: ns(1), Direct: ns(0.2), Estimate: ns(4), Hop: ns(3), Agree: "cannot tell",
		Sites: []record.ProfileSite{{Function: "__napi_poll", Stage: "receive", Pointer: &calls,
			Targets: []string{"veth_poll"}, Thunk: ns(2), TargetEntry: ns(-1)}},
	}
	p.Counters = []record.ProfileCounter{{Name: "cycles", PerPacket: &stat.Quantity{Median: 900, Low: 890, High: 910, N: 10, Unit: "events"}}}
	p.Stacks = []record.ProfileStack{{Frames: []string{"net_rx_action", "bq_xmit_all"}, Stage: "transmit", Samples: 12, Ns: 0.5}}
	return p
}

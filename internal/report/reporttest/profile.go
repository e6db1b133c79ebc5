package reporttest

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Around is a quantity of which the interval reaches half to either side.
func Around(x, half float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: x, Low: x - half, High: x + half, N: 11, Unit: unit}
}

// Profile is a profile of the veth chain.
func Profile() *record.Profile {
	p := new(record.Profile)
	p.Schema, p.Kind, p.Run = record.Schema, "profile", "one"
	p.Packet = Around(126.6, 4, "ns")
	for _, s := range []struct {
		name string
		ns   float64
	}{{"generator", 40}, {"receive", 15}, {"program", 8}, {"redirect", 7}, {"bulk-queue", 3}, {"transmit", 12},
		{"return", 12},
		{"softirq", 4}, {"locks", 3}, {"sink", 20}, {"observer", 1.5}, {"other", 0.7}, {"unattributed", 0.4}} {
		p.Rows = append(p.Rows, record.ProfileRow{Name: s.name, Ns: Around(s.ns, s.ns/10, "ns"),
			Samples: []float64{s.ns}, Rounds: []int{0}})
	}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 800, CPUs: []int{1}, Samples: 5000, Packets: 19_500_000,
		Throughput: Around(98.8, 0.4, "percent")}
	p.Sampling.Windows, p.Sampling.LeftOut = 2400, 300
	p.Undisturbed = Around(121, 1, "ns")
	p.Outside = []record.ProfileOutside{{Name: "other-tasks", Share: Around(12, 2, "percent")},
		{Name: "rcu", Share: Around(0.01, 0.01, "percent")}, {Name: "sampling", Share: Around(1.2, 0.4, "percent")}}
	program := "bpf_prog_e8df55ddab988952_redirect_map"
	for _, f := range []struct {
		name, stage string
		ns          float64
	}{{"veth_xdp_rcv_one", "receive", 30}, {program, "program", 8},
		{"a_function_with_a_name_that_is_longer_than_the_column", "redirect", 7}} {
		p.Functions = append(p.Functions, record.ProfileFunction{Name: f.name, Stage: f.stage, Samples: int(40 * f.ns),
			Ns: Around(f.ns, 1, "ns")})
	}
	calls := "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit"
	p.Tax = &record.ProfileTax{
		Thunks: Around(0.1, 0.05, "ns"), TargetEntries: Around(2.3, 0.8, "ns"), Total: Around(2.4, 0.8, "ns"),
		Hop:      Around(1.9, 0.7, "ns"),
		Estimate: Around(1.8, 0.1, "ns"), Agree: "agree", Returns: Around(0.6, 0.2, "ns"),
		ReturnEntries: Around(50, 3, "ns"),
		Sites: []record.ProfileSite{
			{Function: "bq_xmit_all", Offset: 0xa3, Stage: "transmit", Pointer: &calls,
				Targets: []string{"veth_ndo_xdp_xmit"}, PerPacket: Around(0.0625, 0, "calls"),
				Thunk: Around(0.1, 0.05, "ns"), TargetEntry: Around(1, 0.4, "ns")},
			{Function: "bpf_dispatcher_xdp", Offset: 0x3d, Stage: "program", Targets: []string{program},
				Thunk: Around(0, 0, "ns"), TargetEntry: Around(0.9, 0.4, "ns")},
		},
	}
	p.Counters = []record.ProfileCounter{{Name: "cycles", PerPacket: Around(470, 5, "events")},
		{Name: "instructions", PerPacket: Around(940, 1, "events")}}
	root := []string{"entry_SYSCALL_64_after_hwframe", "bpf_test_run_xdp_live", "xdp_test_run_batch.constprop.0"}
	poll := append(root[:3:3], "__local_bh_enable_ip", "net_rx_action", "__napi_poll", "veth_poll", "veth_xdp_rcv")
	stack := func(stage string, ns float64, base []string, frames ...string) {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: append(base[:len(base):len(base)], frames...),
			Stage: stage, Samples: int(40 * ns), Ns: ns})
	}
	stack("generator", 40, root)
	stack("receive", 15, poll)
	stack("program", 8, poll, program)
	stack("redirect", 7, poll, "xdp_do_redirect")
	stack("transmit", 12, poll, "bq_xmit_all", "veth_ndo_xdp_xmit", "veth_xdp_xmit")
	stack("sink", 0.001, poll, "too_narrow_to_be_seen")
	p.Warnings = []record.Warning{{Text: "a warning"}, {Row: "locks", Text: "a warning of a row"}}
	return p
}

// Stages is a profile whose transmit takes ns per packet.
func Stages(run string, seed uint64, ns float64) *record.Profile {
	const rounds = 25
	r := rand.New(rand.NewPCG(seed, 4))
	p := new(record.Profile)
	p.Packet = &stat.Quantity{Unit: "ns", N: rounds}
	p.Schema, p.Kind, p.Run, p.Time = record.Schema, "profile", run, time.Date(2026, 3, 4, 5, int(seed), 0, 0, time.UTC)
	p.Settings = map[string]string{"scenario": "redirect-map"}
	p.Host = host.Fingerprint{Kernel: "6.12", IndirectThunk: "plain"}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 10_000, Samples: 20_000}
	for _, s := range []struct {
		name string
		ns   float64
	}{{"generator", 80}, {"receive", 60}, {"program", 40}, {"transmit", ns}, {"locks", 0.2}, {"dma", 0},
		{"unattributed", -1}} {
		row := record.ProfileRow{Name: s.name, Ns: &stat.Quantity{Unit: "ns", N: rounds}}
		for i := range rounds {
			x := s.ns + 0.01*s.ns*r.NormFloat64()
			row.Samples, row.Rounds = append(row.Samples, x), append(row.Rounds, i)
			row.Ns.Median += x / rounds
		}
		row.Ns.Low, row.Ns.High = row.Ns.Median-math.Abs(s.ns)/50, row.Ns.Median+math.Abs(s.ns)/50
		p.Packet.Median += row.Ns.Median
		p.Rows = append(p.Rows, row)
	}
	p.Packet.Low, p.Packet.High = p.Packet.Median-2, p.Packet.Median+2
	return p
}

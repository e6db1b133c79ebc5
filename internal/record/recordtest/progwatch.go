package recordtest

import (
	"math/rand/v2"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// WatchRow is a figure that is about mean in each of 12 seconds.
func WatchRow(r *rand.Rand, name, unit string, mean, sd float64) record.WatchRow {
	row := record.WatchRow{Name: name}
	for i := range 12 {
		row.Samples, row.Rounds = append(row.Samples, max(mean+sd*r.NormFloat64(), 0)), append(row.Rounds, i)
	}
	q := stat.Mean(row.Samples, unit)
	row.Value = &q
	return row
}

// Watch is a record of prog watch.
func Watch(run string, seed uint64) *record.ProgWatch {
	r := rand.New(rand.NewPCG(seed, 5))
	w := &record.ProgWatch{
		Document: record.Document[record.WatchRow]{
			Head: record.Head{Schema: record.Schema, Kind: "prog-watch", Run: run,
				Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: host.Fingerprint{Kernel: "6.18"}},
			Warnings: []record.Warning{},
		},
		WatchParts: record.WatchParts{
			Program: record.WatchedProgram{
				Target: "dev:eth0", ID: 42, Name: "xdp_lb", Tag: "0123456789abcdef", JitedBytes: 1234, Device: "eth0", Driver: "mlx5_core",
				Mode: "native", Attached: 42, Programs: 3,
			},
			Seconds: 12.01, Each: 1,
			Sampling: record.Sampling{Event: "cpu-clock", Rate: 189, CPUs: []int{0, 1}, Samples: 2250, Packets: 23_000_000},
			SampleNs: &record.SampleCost{Interrupt: 13_800, Frame: 260},
			Stacks: []record.ProfileStack{
				{Frames: []string{"net_rx_action", "__napi_poll", "mlx5e_napi_poll", "bpf_prog_0123456789abcdef_xdp_lb"}, Stage: "program",
					Samples: 1200, Ns: 52},
				{Frames: []string{"net_rx_action", "__napi_poll", "mlx5e_napi_poll"}, Stage: "receive", Samples: 800, Ns: 35},
			},
		},
	}
	w.Rows = []record.WatchRow{
		WatchRow(r, "packets", "pps", 1.92e6, 1e4), {Name: "verdict/pass", Refused: "mlx5_core does not count it"},
		WatchRow(r, "verdict/drop", "pps", 2e4, 500), WatchRow(r, "verdict/tx", "pps", 1.9e6, 1e4),
		WatchRow(r, "program", "ns", 52, 3), WatchRow(r, "path", "ns", 97, 5), WatchRow(r, "stage/receive", "ns", 35, 3),
		WatchRow(r, "stage/program", "ns", 52, 3), WatchRow(r, "core", "percent", 18.6, 0.5),
		{Name: "frames-per-xmit", Refused: "no device counts it: --tracepoints does"},
		WatchRow(r, "lost/rx_missed_errors", "pps", 0, 0), WatchRow(r, "lost/rx_xdp_tx_full", "pps", 12, 1),
		WatchRow(r, "cost", "percent", 0.39, 0.01),
	}
	return w
}

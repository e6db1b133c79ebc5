package reporttest

import (
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Lab is a record of lab: two guests that differ in a boot parameter, and a refused one.
func Lab() *record.Lab {
	l := new(record.Lab)
	l.Schema, l.Kind, l.Run = record.Schema, "lab", "one"
	count := func(x float64) *float64 { return &x }
	row := func(line, thunk string, instructions float64) record.LabRow {
		return record.LabRow{
			Name:    "debian:6.12-cloud/" + line + "/bulk=16",
			Labels:  map[string]string{"kernel": "debian:6.12-cloud", "cpu": "", "append": line, "bulk": "16"},
			Release: "6.12.117", Thunk: thunk, Instructions: count(instructions), Window: 1024, CallsPerPacket: count(0.3125),
			Sites: []record.LabSite{
				{Function: "bq_xmit_all", Offset: 0x8c, Stage: "bulk-queue", Target: "veth_ndo_xdp_xmit",
					PerPacket: 0.125},
				{Function: "handle_softirqs", Offset: 0xcb, Stage: "receive", Target: "net_rx_action",
					PerPacket: 0.0625},
			},
			Functions: []record.LabFunction{{Function: "bq_xmit_all", PerPacket: 0.125}},
		}
	}
	l.Rows = []record.LabRow{row("spectre_v2=retpoline", "retpoline", 1180.333984375),
		row("spectre_v2=off", "plain jmp", 1179.70703125)}
	broken := row("panic", "", 0)
	broken.Instructions, broken.CallsPerPacket, broken.Refused = nil, nil, `guest 6.12.117 ended; its last words: "Kernel panic"`
	l.Rows = append(l.Rows, broken)
	l.Differences = []record.LabDifference{{
		With: l.Rows[0].Name, Without: l.Rows[1].Name, Instructions: 0.626953125, BySites: 0.625,
		ByObserver:     0.001953125,
		CallsPerPacket: 0.3125, Ns: &stat.Quantity{Median: 3.1, Low: 2.9, High: 3.4, N: 7, Unit: "ns"},
		Lost: &stat.Quantity{Median: 0.503, Low: 0.472, High: 0.55, N: 7, Unit: "Mpps"},
	}}
	l.Warnings = []record.Warning{{Text: "a warning"}}
	return l
}

// Wires is a record of lab whose guests redirect between NICs.
func Wires() *record.Lab {
	l := Lab()
	for i := range l.Rows {
		row := &l.Rows[i]
		row.Labels["nic"], row.Labels["dma"] = "igb", "iommu-lazy"
		row.Functions = []record.LabFunction{{Function: "dma_map_page_attrs", Part: "out-xmit", PerPacket: 1}}
		row.DMA = []record.LabDMA{{Part: "in-poll", Sync: 2}, {Part: "out-xmit", Map: 1},
			{Part: "out-poll", Unmap: 1, Flush: 0.00374}}
		for j := range row.Sites {
			row.Sites[j].Part = "out-xmit"
		}
	}
	l.Price = &stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"}
	return l
}

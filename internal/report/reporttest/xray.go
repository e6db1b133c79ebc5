package reporttest

import "github.com/unthunk/unthunk/internal/record"

// Xray is an inventory with a branch of each sort.
func Xray() *record.Document[record.SiteRow] {
	doc := &record.Document[record.SiteRow]{
		Head: record.Head{Schema: record.Schema, Kind: "xray", Run: "one", Settings: map[string]string{"path": "veth"}},
	}
	add := func(stage, function, calls, kind, per string, always bool, targets ...string) *record.SiteRow {
		row := record.SiteRow{
			Name: function + "/" + calls, Function: function, Offset: uint64(0x1f + 16*len(doc.Rows)), Kind: kind,
			Thunk: "__x86_indirect_thunk_rax",
			Stage: stage, Confidence: "certain", Targets: targets, Per: per, Always: always, Via: []string{function},
		}
		if calls != "unknown" {
			row.Pointer = &calls
		} else {
			row.Confidence = "unknown"
		}
		doc.Rows = append(doc.Rows, row)
		return &doc.Rows[len(doc.Rows)-1]
	}
	add("receive", "__napi_poll", "napi_struct.poll", "thunk", "poll", true, "veth_poll")
	add("program", "veth_xdp_rcv_one", "bpf_prog.bpf_func", "thunk", "packet", false).Confidence = "likely"
	add("transmit", "bq_xmit_all", "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit", "its-thunk", "bulk", true,
		"veth_ndo_xdp_xmit")
	add("transmit", "a_function_with_a_very_long_name_indeed", "some_operations.a_member_with_a_long_name", "register",
		"packet", true, "the_function_that_is_there_now").Jump = true
	add("return", "__xdp_return", "unknown", "memory", "unknown", false)
	add("return", "__xdp_return", "memory_provider_ops.release", "thunk", "rare", false)
	add("dma", "__iommu_unmap", "iommu_domain_ops.unmap_pages", "thunk", "packet", false).CannotRun =
		"a veth maps no memory for DMA"
	doc.Partial = []record.PartialFunction{{Name: "veth_poll", Why: "a jump table"}}
	doc.Warnings = []record.Warning{{Text: "a warning"}}
	return doc
}

// XrayCounted is [Xray] with counts of a guest: of a branch on each bulk, of one that no
// packet went through, of a rare one, and of one that is not on the path.
func XrayCounted() *record.Document[record.SiteRow] {
	doc := Xray()
	for name, n := range map[string]float64{
		"bq_xmit_all/net_device.netdev_ops → net_device_ops.ndo_xdp_xmit": 0.0625, "veth_xdp_rcv_one/bpf_prog.bpf_func": 0,
		"__xdp_return/memory_provider_ops.release": 0.125,
	} {
		for i := range doc.Rows {
			if doc.Rows[i].Name == name {
				doc.Rows[i].PerPacket = &n
			}
		}
	}
	doc.Counts = &record.SiteCounts{
		Row: "debian:6.12-cloud/bulk=16", Release: "6.12.1", CallsPerPacket: 0.3125,
		Others: []record.LabSite{{Function: "a_tick", Offset: 0x20, Stage: "softirq", Target: "its_handler", PerPacket: 0.125}},
	}
	return doc
}

// CallGraph is one with a direct call, and an indirect one of each sort.
func CallGraph() *record.CallGraph {
	rows := Xray().Rows
	g := &record.CallGraph{
		Functions: []string{"__napi_poll", "bq_xmit_all", `veth"poll`},
		Calls:     []record.GraphCall{{From: `veth"poll`, To: "bq_xmit_all"}},
	}
	for i := range rows {
		g.Calls = append(g.Calls, record.GraphCall{From: rows[i].Function, To: "called", Site: &rows[i]})
	}
	return g
}

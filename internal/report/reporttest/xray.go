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

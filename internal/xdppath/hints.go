package xdppath

import "github.com/unthunk/unthunk/internal/codeflow"

// hints are the data that indirect branches of the path are read from, beyond what
// BTF says of it.
var hints = codeflow.Hints{
	// kernel/softirq.c, kernel/dma/mapping.c, include/net/net_namespace.h.
	Globals: map[string]codeflow.Global{
		"softirq_vec": {Struct: "softirq_action", Array: 10}, // NR_SOFTIRQS
		"dma_ops":     {Struct: "dma_map_ops", Pointer: true},
		"init_net":    {Struct: "net"},
		"init_task":   {Struct: "task_struct"},
	},
	Operations: []codeflow.Operations{
		{Holder: "net_device", Member: "netdev_ops", Struct: "net_device_ops"},
		{Holder: "net_device", Member: "ethtool_ops", Struct: "ethtool_ops"},
		{Holder: "net_device", Member: "header_ops", Struct: "header_ops"},
		{Holder: "net_device", Member: "xdp_metadata_ops", Struct: "xdp_metadata_ops"},
		{Holder: "bpf_map", Member: "ops", Struct: "bpf_map_ops"},
		{Holder: "device", Member: "dma_ops", Struct: "dma_map_ops"},
		{Holder: "page_pool", Member: "mp_ops", Struct: "memory_provider_ops"},
		{Holder: "iommu_domain", Member: "ops", Struct: "iommu_domain_ops"},
		{Holder: "sock", Member: "sk_prot", Struct: "proto"},
		{Holder: "socket", Member: "ops", Struct: "proto_ops"},
		{Holder: "Qdisc", Member: "ops", Struct: "Qdisc_ops"},
	},
	Containers: []string{
		"net_device", "napi_struct", "xdp_dev_bulk_queue", "xdp_bulk_queue", "xdp_sock", "bpf_map", "bpf_dtab",
		"bpf_cpu_map", "bpf_cpu_map_entry", "bpf_dtab_netdev", "page_pool", "sock", "sk_buff", "xsk_buff_pool",
		"xdp_buff_xsk", "xsk_map", "net", "softnet_data", "veth_rq", "receive_queue", "send_queue",
	},
	Outer: map[string]string{"virtqueue": "vring_virtqueue"},
	// drivers/net/veth.c: a queue begins with its NAPI; frames of XDP have their lowest bit set, and are told apart before.
	First:    map[string]string{"veth_poll": "veth_rq"},
	Elements: map[string]string{"veth_rq.xdp_ring.queue": "sk_buff"},
	Prefixes: map[string]string{"__tracepoint_": "tracepoint"},
}

package xdppath

import (
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// global is the type of a variable that BTF does not have.
type global struct {
	typ     string // name of a struct
	pointer bool
	array   uint32 // number of elements
}

// globals are those that indirect branches of the path are read from; see
// kernel/softirq.c, kernel/dma/mapping.c, include/net/net_namespace.h.
var globals = map[string]global{
	"softirq_vec": {typ: "softirq_action", array: 10}, // NR_SOFTIRQS
	"dma_ops":     {typ: "dma_map_ops", pointer: true},
	"init_net":    {typ: "net"},
	"init_task":   {typ: "task_struct"},
}

// opsHolders are members that point to structs of functions, for pointers
// whose own type is lost.
var opsHolders = []struct{ holder, member, ops string }{
	{"net_device", "netdev_ops", "net_device_ops"},
	{"net_device", "ethtool_ops", "ethtool_ops"},
	{"net_device", "header_ops", "header_ops"},
	{"net_device", "xdp_metadata_ops", "xdp_metadata_ops"},
	{"bpf_map", "ops", "bpf_map_ops"},
	{"device", "dma_ops", "dma_map_ops"},
	{"page_pool", "mp_ops", "memory_provider_ops"},
	{"iommu_domain", "ops", "iommu_domain_ops"},
	{"sock", "sk_prot", "proto"},
	{"socket", "ops", "proto_ops"},
	{"Qdisc", "ops", "Qdisc_ops"},
}

// containers are structs that the path finds by a list entry, a timer or a
// work in them (container_of).
var containers = []string{
	"net_device", "napi_struct", "xdp_dev_bulk_queue", "xdp_bulk_queue", "xdp_sock", "bpf_map", "bpf_dtab",
	"bpf_cpu_map", "bpf_cpu_map_entry", "bpf_dtab_netdev", "page_pool", "sock", "sk_buff", "xsk_buff_pool", "xdp_buff_xsk",
	"xsk_map", "net", "softnet_data", "veth_rq", "receive_queue", "send_queue",
}

// around are structs whose first member is another, and which are only known
// by a pointer to that.
var around = map[string]string{"virtqueue": "vring_virtqueue"}

// StageOf is the stage on the path of a function by its name; "" when the name does
// not tell.
func StageOf(name string) Stage {
	if s := functions.StageOf(name); s.OnPath() {
		return s
	}
	return ""
}

// rootOf is the entry of the table for a symbol that is a root of every path.
func rootOf(name string) (functions.Function, bool) {
	f, ok := functions.Find(name)
	return f, ok && f.Roles&functions.Root != 0
}

// rootStage is the stage of such a root. The path knows no softirq: what runs polls is
// a part of receiving.
func rootStage(f functions.Function) Stage {
	if f.Stage.OnPath() {
		return f.Stage
	}
	return StageReceive
}

func rareCall(name string) bool { return functions.Has(name, functions.Rare) }

// thunkSymbol tells whether a direct branch to name is an indirect branch or
// a return in disguise.
func thunkSymbol(name string) bool {
	return strings.HasPrefix(name, "__x86_indirect_") || strings.HasSuffix(name, "_return_thunk") ||
		name == "__x86_return_skl" || name == "__fentry__" || strings.HasPrefix(name, "srso_") || strings.HasPrefix(name, "clear_bhb_")
}

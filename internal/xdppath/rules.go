package xdppath

import (
	"slices"
	"strings"
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

// stageRules place functions by name; the first that fits wins. A function
// that none fits has the stage of what calls it.
var stageRules = []struct {
	stage Stage
	names []string // a trailing * stands for anything
}{
	{StagePagePool, []string{"page_pool_*", "__page_pool_*", "napi_pp_put_page", "netmem_*"}},
	{StageDMA, []string{"dma_*", "__dma_*", "iommu_*", "__iommu_*", "swiotlb_*", "__swiotlb_*",
		"intel_iommu_*", "amd_iommu_*", "xp_dma_*", "arm_smmu_*"}},
	{StageReturn, []string{"xdp_return_*", "__xdp_return*", "xdp_flush_frame_bulk*"}},
	{StageRedirect, []string{"xdp_do_redirect*", "__xdp_do_redirect*", "dev_map_enqueue*", "dev_map_bpf_prog_run*",
		"dev_map_redirect_multi*", "cpu_map_enqueue*", "__xsk_map_redirect*", "xdp_convert_*", "xdpf_clone*"}},
	{StageBulkQueue, []string{"bq_*", "__dev_flush*", "__cpu_map_flush*", "xdp_do_flush*", "xdp_do_check_flushed",
		"__xsk_map_flush*", "xsk_flush*", "__dev_map_flush*"}},
	{StageProgram, []string{"bpf_prog_*", "bpf_dispatcher_*", "bpf_xdp_*", "bpf_redirect*", "dev_map_redirect",
		"dev_hash_map_redirect", "dev_map_hash_redirect", "cpu_map_redirect", "xsk_map_redirect",
		"dev_map_lookup_elem", "dev_map_hash_lookup_elem", "cpu_map_lookup_elem", "xsk_map_lookup_elem"}},
}

// match tells whether name, without what the compiler appended, is pattern.
func match(pattern, name string) bool {
	if p, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, p)
	}
	return source(name) == pattern
}

// source is the name in the source of a symbol: without .isra.0 and the like.
func source(name string) string {
	base, _, _ := strings.Cut(name, ".")
	return base
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

// StageOf is the stage of a function by its name; "" when the name does not
// tell.
func StageOf(name string) Stage {
	for _, r := range stageRules {
		if matchAny(r.names, name) {
			return r.stage
		}
	}
	// Drivers: igb_clean_tx_irq, free_old_xmit, mlx5e_poll_xdpsq_cq,
	// bnxt_tx_int_xdp, virtnet_poll_tx.
	for _, part := range []string{"clean_tx", "tx_clean", "free_old_xmit", "free_old_xdp", "poll_xdpsq", "tx_int_xdp", "free_xdpsq", "txdone", "tx_complet", "poll_tx", "tx_poll"} {
		if strings.Contains(name, part) {
			return StageCompletion
		}
	}
	return ""
}

// coreRoot is a function that is known by name.
type coreRoot struct {
	name  string
	stage Stage
	per   Per
	why   string
	// flat is set when its loops go over things that Per counts already:
	// net_rx_action's over polls.
	flat bool
	// loop is what runs once for each turn of its loops, when not a packet.
	loop Per
	// inlined is set for a helper that the verifier mostly calls another function
	// for; per holds where it does not.
	inlined bool
}

// core is the part of the path that is the same for every driver, as of Linux
// 4.18 to 6.18. How often these run is given here and not taken from their
// callers: bq_enqueue flushes a full queue itself, but only once a bulk.
var core = []coreRoot{
	{name: "handle_softirqs", stage: StageReceive, per: PerPoll, why: "runs the softirqs", flat: true},
	{name: "__do_softirq", stage: StageReceive, per: PerPoll, why: "runs the softirqs up to Linux 6.9", flat: true},
	{name: "net_rx_action", stage: StageReceive, per: PerPoll, why: "the receive softirq", flat: true},
	{name: "__napi_poll", stage: StageReceive, per: PerPoll, why: "calls a driver's poll", flat: true},

	{name: "bpf_dispatcher_xdp_func", stage: StageProgram, per: PerPacket, why: "the dispatcher that a driver calls a program through"},
	{name: "bpf_xdp_redirect", stage: StageProgram, per: PerPacket, why: "helper of XDP programs"},
	{name: "bpf_xdp_redirect_map", stage: StageProgram, per: PerRare, why: "helper of XDP programs, where the verifier did not put the map's own function in its place", inlined: true},
	{name: "bpf_dispatcher_nop_func", stage: StageProgram, per: PerRare, why: "stands in for the dispatcher until a program is attached"},
	{name: "dev_map_redirect", stage: StageProgram, per: PerPacket, why: "bpf_map_ops.map_redirect of devmap"},
	{name: "dev_hash_map_redirect", stage: StageProgram, per: PerPacket, why: "bpf_map_ops.map_redirect of devmap_hash"},
	{name: "cpu_map_redirect", stage: StageProgram, per: PerPacket, why: "bpf_map_ops.map_redirect of cpumap"},
	{name: "xsk_map_redirect", stage: StageProgram, per: PerPacket, why: "bpf_map_ops.map_redirect of xskmap"},

	{name: "xdp_do_redirect", stage: StageRedirect, per: PerPacket, why: "called by drivers on XDP_REDIRECT"},
	{name: "xdp_do_redirect_frame", stage: StageRedirect, per: PerPacket, why: "called for frames on XDP_REDIRECT"},
	{name: "dev_xdp_enqueue", stage: StageRedirect, per: PerPacket, why: "enqueues without a map"},
	{name: "dev_map_enqueue", stage: StageRedirect, per: PerPacket, why: "enqueues on a devmap"},
	{name: "dev_map_enqueue_multi", stage: StageRedirect, per: PerPacket, why: "enqueues on all of a devmap"},
	{name: "cpu_map_enqueue", stage: StageRedirect, per: PerPacket, why: "enqueues on a cpumap"},
	{name: "__xsk_map_redirect", stage: StageRedirect, per: PerPacket, why: "enqueues on an xskmap"},

	{name: "bq_enqueue", stage: StageBulkQueue, per: PerPacket, why: "the bulk queue of devmap or cpumap"},
	{name: "bq_xmit_all", stage: StageBulkQueue, per: PerBulk, why: "sends a bulk queue"},
	{name: "bq_flush_to_queue", stage: StageBulkQueue, per: PerBulk, why: "sends a bulk queue to a cpumap's thread"},
	{name: "xdp_do_flush", stage: StageBulkQueue, per: PerPoll, why: "called at the end of a poll", loop: PerBulk},
	{name: "xdp_do_flush_map", stage: StageBulkQueue, per: PerPoll, why: "called at the end of a poll", loop: PerBulk},
	{name: "__dev_flush", stage: StageBulkQueue, per: PerPoll, why: "flushes the queues of devmap", loop: PerBulk},
	{name: "__dev_map_flush", stage: StageBulkQueue, per: PerPoll, why: "flushes the queues of devmap", loop: PerBulk},
	{name: "__cpu_map_flush", stage: StageBulkQueue, per: PerPoll, why: "flushes the queues of cpumap", loop: PerBulk},
	{name: "__xsk_map_flush", stage: StageBulkQueue, per: PerPoll, why: "flushes the queues of xskmap", loop: PerBulk},
	{name: "cpu_map_kthread_run", stage: StageBulkQueue, per: PerBulk, why: "the thread of a cpumap entry"},
	{name: "dev_map_bpf_prog_run", stage: StageRedirect, per: PerBulk, why: "the second program of a devmap entry"},

	{name: "xdp_return_frame", stage: StageReturn, per: PerPacket, why: "gives a frame back"},
	{name: "xdp_return_frame_rx_napi", stage: StageReturn, per: PerPacket, why: "gives a frame back in a poll"},
	{name: "xdp_return_frame_bulk", stage: StageReturn, per: PerPacket, why: "gives a frame back in a bulk"},
	{name: "xdp_flush_frame_bulk", stage: StageReturn, per: PerBulk, why: "ends a bulk of returns"},
	{name: "xdp_return_buff", stage: StageReturn, per: PerPacket, why: "gives a buffer back"},
	{name: "xdp_return_frag", stage: StageReturn, per: PerPacket, why: "gives a fragment back"},
	{name: "__xdp_return", stage: StageReturn, per: PerPacket, why: "gives memory back by its kind"},

	{name: "page_pool_alloc_pages", stage: StagePagePool, per: PerPacket, why: "takes a page"},
	{name: "page_pool_alloc_netmems", stage: StagePagePool, per: PerPacket, why: "takes a page"},
	{name: "page_pool_alloc_frag", stage: StagePagePool, per: PerPacket, why: "takes a part of a page"},
	{name: "page_pool_alloc_frag_netmem", stage: StagePagePool, per: PerPacket, why: "takes a part of a page"},
	{name: "page_pool_put_unrefed_netmem", stage: StagePagePool, per: PerPacket, why: "gives a page back"},
	{name: "page_pool_put_unrefed_page", stage: StagePagePool, per: PerPacket, why: "gives a page back"},
	{name: "page_pool_put_defragged_page", stage: StagePagePool, per: PerPacket, why: "gives a page back"},
	{name: "page_pool_put_page_bulk", stage: StagePagePool, per: PerBulk, why: "gives pages back"},
	{name: "page_pool_put_netmem_bulk", stage: StagePagePool, per: PerBulk, why: "gives pages back"},

	{name: "dma_map_page_attrs", stage: StageDMA, per: PerPacket, why: "maps a frame for the device"},
	{name: "dma_map_phys", stage: StageDMA, per: PerPacket, why: "maps a frame for the device"},
	{name: "dma_unmap_page_attrs", stage: StageDMA, per: PerPacket, why: "unmaps a frame"},
	{name: "dma_unmap_phys", stage: StageDMA, per: PerPacket, why: "unmaps a frame"},
	{name: "dma_sync_single_for_cpu", stage: StageDMA, per: PerPacket, why: "gives a frame to the CPU"},
	{name: "__dma_sync_single_for_cpu", stage: StageDMA, per: PerPacket, why: "gives a frame to the CPU"},
	{name: "dma_sync_single_for_device", stage: StageDMA, per: PerPacket, why: "gives a frame to the device"},
	{name: "__dma_sync_single_for_device", stage: StageDMA, per: PerPacket, why: "gives a frame to the device"},
}

// coreOf is the entry of core for a symbol.
func coreOf(name string) (coreRoot, bool) {
	base := source(name)
	for _, c := range core {
		if c.name == base && !strings.Contains(name, ".cold") {
			return c, true
		}
	}
	return coreRoot{}, false
}

// boundaries are functions that the walk does not go into, and why. They are
// part of the inventory all the same, as partial ones.
var boundaries = []struct {
	why   string
	names []string
}{
	{"warnings and messages", []string{"_printk", "printk", "__warn_printk", "warn_slowpath_*", "__warn", "dump_stack*",
		"panic", "__stack_chk_fail", "netdev_warn", "netdev_err", "netdev_info", "netdev_printk", "_dev_*", "__dynamic_*", "___ratelimit", "net_ratelimit",
		"refcount_warn_saturate", "fortify_*", "__fortify_*", "__ubsan_*", "__kasan_*", "kasan_*", "__kcsan_*", "__msan_*",
		"bpf_warn_*", "report_bug*", "__bug*", "bad_page*", "__asan_*", "__tsan_*", "kmsan_*", "__copy_overflow", "usercopy_abort"}},
	{"tracing", []string{"trace_event_*", "trace_raw_*", "perf_trace_*", "bpf_trace_run*", "perf_*", "ring_buffer_*",
		"__trace_*", "trace_*", "ftrace_*", "__bpf_trace_*", "do_trace_*"}},
	{"locks, when contended", []string{"native_queued_spin_lock_*", "__pv_queued_*", "queued_read_lock_*", "queued_write_lock_*",
		"queued_*", "rwsem_*", "down_*", "up_*", "mutex_*", "__mutex_*", "lock_acquire*", "lock_release*", "lockdep_*", "__lock_*", "debug_*", "rt_spin_*"}},
	{"the scheduler", []string{"schedule*", "__schedule*", "preempt_schedule*", "__cond_resched*", "try_to_wake_up", "wake_up_*", "__wake_up*",
		"default_wake_*", "ttwu_*", "__SCT__cond_resched", "__SCT__might_resched", "__SCT__preempt_*", "kthread_*", "complete", "complete_all", "swake_up_*", "set_cpus_allowed*", "resched_*",
		"dynamic_preempt_*", "smp_call_*", "__smp_call_*", "arch_send_call_*", "irq_work_*", "wakeup_softirqd", "finish_wait", "prepare_to_wait*"}},
	{"timers and deferred work", []string{"hrtimer_*", "mod_timer*", "add_timer*", "timer_*", "del_timer*", "__mod_timer", "queue_work*",
		"__queue_work*", "queue_delayed_*", "mod_delayed_*", "queue_rcu_*", "delayed_work_*", "flush_work*", "cancel_work*", "schedule_*"}},
	{"RCU", []string{"call_rcu*", "rcu_*", "__rcu_*", "synchronize_*", "kfree_rcu*", "kvfree_*", "kfree_call_rcu*", "srcu_*", "__srcu_*"}},
	{"the memory allocator", []string{"kmalloc*", "__kmalloc*", "kmem_cache_*", "___kmalloc*", "__kmem_cache_*", "kfree", "kfree_sensitive", "krealloc*",
		"alloc_pages*", "__alloc_pages*", "__get_free_*", "get_free_pages*", "get_page_from_*", "alloc_frozen_*", "__alloc_frozen_*", "alloc_mpol*",
		"__free_pages*", "free_pages*", "free_unref_*", "__folio_put*", "folio_*", "put_page*", "__put_page*", "free_frozen_*", "___free_pages*", "free_large_*",
		"page_frag_*", "__page_frag_*", "slab_*", "__slab_*", "___slab_*", "vmalloc*", "vfree*", "__vmalloc*", "kvmalloc*", "__kvmalloc*", "mempool_*",
		"__pcpu_*", "pcpu_*", "free_percpu", "__alloc_percpu*", "xa_*", "__xa_*", "idr_*", "ida_*", "radix_tree_*", "xas_*",
		"__lruvec_*", "lruvec_*", "mod_memcg_*", "__mod_memcg_*", "mod_node_*", "__mod_node_*", "iommu_put_pages_list"}},
	{"the network stack, which takes no redirected frame", []string{"netif_receive_*", "__netif_receive_*", "napi_gro_*", "gro_*", "__gro_*", "dev_gro_*",
		"netif_rx*", "__netif_rx*", "kfree_skb*", "consume_skb*", "__kfree_skb*", "__consume_*", "napi_consume_skb", "napi_skb_*", "__napi_kfree_*", "skb_*", "__skb_*", "___skb_*", "pskb_*", "__pskb_*",
		"sk_skb_*", "__alloc_skb*", "alloc_skb*", "build_skb*", "__build_skb*", "napi_build_*", "napi_alloc_*", "__napi_alloc_*", "netdev_alloc_*", "__netdev_alloc_*", "dev_kfree_*", "__dev_kfree_*",
		"dev_queue_*", "__dev_queue_*", "__dev_direct_*", "dev_hard_*", "eth_type_trans", "do_xdp_generic", "bpf_prog_run_generic_xdp", "generic_xdp_*", "xdp_do_generic_*",
		"xdp_build_skb_*", "__xdp_build_skb_*", "xdp_alloc_skb_*", "netif_schedule*", "__netif_schedule", "sock_*", "__sock_*", "sk_*", "tcp_*", "udp_*", "ip_*", "ipv6_*", "inet_*", "net_tx_action", "qdisc_*", "validate_xmit_*",
		"cpu_map_bpf_prog_run_skb", "dev_map_generic_redirect", "cpu_map_generic_redirect", "dev_map_redirect_multi", "xsk_generic_rcv", "napi_busy_*", "ptp_*", "dst_*", "tun_*skb*"}},
	{"hardware control, not done for frames", []string{"pci_*", "__pci_*", "pm_*", "__pm_*", "request_irq", "free_irq", "enable_irq", "disable_irq*", "irq_set_*", "__irq_*", "msix_*", "regmap_*", "phy_*", "devlink_*"}},
	{"programs and maps being loaded and freed", []string{"__bpf_prog_put*", "bpf_prog_put*", "bpf_prog_free*", "bpf_map_put*", "bpf_map_free*", "audit_*", "bpf_audit_*", "security_*"}},
	{"text and delays", []string{"vsnprintf", "snprintf", "vscnprintf", "scnprintf", "sprintf", "__const_udelay", "__udelay", "__ndelay", "usleep_range*", "msleep*"}},
	{"user copies", []string{"copy_to_user*", "copy_from_user*", "_copy_*", "copy_user_*", "__get_user_*", "__put_user_*", "might_fault"}},
}

// boundary tells why the walk does not go into a function; "" when it does.
func boundary(name string) string {
	if _, ok := coreOf(name); ok {
		return ""
	}
	if _, suffix, ok := strings.Cut(name, "_slowpath"); ok && suffix == "" {
		return "locks, when contended"
	}
	for _, b := range boundaries {
		if matchAny(b.names, name) {
			return b.why
		}
	}
	return ""
}

// rareCalls are functions that are only called on ways that a packet does
// not take while all goes well.
var rareCalls = []string{
	"_printk", "printk", "__warn_printk", "warn_slowpath_*", "__warn", "dump_stack*", "panic", "__stack_chk_fail",
	"netdev_warn", "netdev_err", "netdev_info", "_dev_err", "_dev_warn", "_dev_info", "___ratelimit", "net_ratelimit",
	"__traceiter_*", "trace_event_*", "trace_call_bpf", "__bpf_trace_*", "do_trace_*", "__SCT__tp_func_*",
	"bpf_warn_*", "refcount_warn_saturate", "fortify_*", "__fortify_*", "__ubsan_*", "__copy_overflow",
	"native_queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath", "queued_read_lock_slowpath",
	"queued_write_lock_slowpath", "rcu_read_unlock_special", "bad_page*", "wakeup_softirqd",
	"__list_add_valid_or_report", "__list_del_entry_valid_or_report", "xdp_warn", ".slowpath", "__raw_callee_save___pv_queued_spin_unlock_slowpath",
	"__bpf_prog_put*", "bpf_prog_put*", "bpf_map_put*", "audit_*", "bpf_audit_*", "__const_udelay", "__udelay", "usleep_range*", "msleep*",
	"netdev_printk", "_dev_notice", "__netdev_watchdog*", "rcu_note_*", "preempt_schedule*", "__SCT__preempt_schedule*",
}

func rareCall(name string) bool { return matchAny(rareCalls, name) }

// deadEnds do not return.
var deadEnds = []string{"panic", "__stack_chk_fail", "fortify_panic", "__fortify_panic", "do_exit", "usercopy_abort", "nmi_panic"}

func deadEnd(name string) bool { return slices.Contains(deadEnds, name) }

// programRuns are functions that a driver calls for each frame that it has
// received, so the loop that does is the receive loop.
var programRuns = []string{"bpf_dispatcher_xdp_func", "bpf_prog_run_xdp", "bpf_prog_run_generic_xdp", "xdp_do_redirect", "xdp_do_redirect_frame"}

// frameCalls are functions that are called once a frame or more often.
var frameCalls = []string{"xdp_return_*", "dma_map_*", "dma_unmap_*", "dma_sync_*", "page_pool_alloc_*", "page_pool_put_*",
	"napi_consume_skb", "dev_kfree_skb*", "dev_consume_skb*", "napi_gro_receive", "netif_receive_skb", "build_skb", "napi_build_skb", "page_pool_dev_*"}

// thunkSymbol tells whether a direct branch to name is an indirect branch or
// a return in disguise.
func thunkSymbol(name string) bool {
	return strings.HasPrefix(name, "__x86_indirect_") || strings.HasSuffix(name, "_return_thunk") ||
		name == "__x86_return_skl" || name == "__fentry__" || strings.HasPrefix(name, "srso_") || strings.HasPrefix(name, "clear_bhb_")
}

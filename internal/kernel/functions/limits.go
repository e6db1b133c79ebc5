package functions

import "strings"

// What [Limit] says of functions that packets go through which are not redirected.
const (
	SchedulerLimit = "the scheduler"
	StackLimit     = "the network stack, which takes no redirected frame"
)

// limits are functions that a walk of the path does not go into, and why. They are part
// of its inventory all the same, as partial ones.
var limits = []struct {
	why      string
	patterns matcher
}{
	{"warnings and messages", matcher{
		"_printk", "printk", "__warn_printk", "warn_slowpath_*", "__warn", "dump_stack*", "panic",
		"__stack_chk_fail", "netdev_warn", "netdev_err", "netdev_info", "netdev_printk", "_dev_*",
		"__dynamic_*", "___ratelimit", "net_ratelimit", "refcount_warn_saturate", "fortify_*", "__fortify_*",
		"__ubsan_*", "__kasan_*", "kasan_*", "__kcsan_*", "__msan_*", "bpf_warn_*", "report_bug*", "__bug*",
		"bad_page*", "__asan_*", "__tsan_*", "kmsan_*", "__copy_overflow", "usercopy_abort",
	}},
	{"tracing", matcher{
		"trace_event_*", "trace_raw_*", "perf_trace_*", "bpf_trace_run*", "perf_*", "ring_buffer_*",
		"__trace_*", "trace_*", "ftrace_*", "__bpf_trace_*", "do_trace_*",
	}},
	{"locks, when contended", matcher{
		"native_queued_spin_lock_*", "__pv_queued_*", "queued_read_lock_*", "queued_write_lock_*", "queued_*",
		"rwsem_*", "down_*", "up_*", "mutex_*", "__mutex_*", "lock_acquire*", "lock_release*", "lockdep_*",
		"__lock_*", "debug_*", "rt_spin_*",
	}},
	{SchedulerLimit, matcher{
		"schedule*", "__schedule*", "preempt_schedule*", "__cond_resched*", "try_to_wake_up", "wake_up_*",
		"__wake_up*", "default_wake_*", "ttwu_*", "__SCT__cond_resched", "__SCT__might_resched",
		"__SCT__preempt_*", "kthread_*", "complete", "complete_all", "swake_up_*", "set_cpus_allowed*",
		"resched_*", "dynamic_preempt_*", "smp_call_*", "__smp_call_*", "arch_send_call_*", "irq_work_*",
		"wakeup_softirqd", "finish_wait", "prepare_to_wait*",
	}},
	{"timers and deferred work", matcher{
		"hrtimer_*", "mod_timer*", "add_timer*", "timer_*", "del_timer*", "__mod_timer", "queue_work*",
		"__queue_work*", "queue_delayed_*", "mod_delayed_*", "queue_rcu_*", "delayed_work_*", "flush_work*",
		"cancel_work*", "schedule_*",
	}},
	{"RCU", matcher{
		"call_rcu*", "rcu_*", "__rcu_*", "synchronize_*", "kfree_rcu*", "kvfree_*", "kfree_call_rcu*",
		"srcu_*", "__srcu_*",
	}},
	{"the memory allocator", matcher{
		"kmalloc*", "__kmalloc*", "kmem_cache_*", "___kmalloc*", "__kmem_cache_*", "kfree", "kfree_sensitive",
		"krealloc*", "alloc_pages*", "__alloc_pages*", "__get_free_*", "get_free_pages*", "get_page_from_*",
		"alloc_frozen_*", "__alloc_frozen_*", "alloc_mpol*", "__free_pages*", "free_pages*", "free_unref_*",
		"__folio_put*", "folio_*", "put_page*", "__put_page*", "free_frozen_*", "___free_pages*",
		"free_large_*", "page_frag_*", "__page_frag_*", "slab_*", "__slab_*", "___slab_*", "vmalloc*",
		"vfree*", "__vmalloc*", "kvmalloc*", "__kvmalloc*", "mempool_*", "__pcpu_*", "pcpu_*", "free_percpu",
		"__alloc_percpu*", "xa_*", "__xa_*", "idr_*", "ida_*", "radix_tree_*", "xas_*", "__lruvec_*",
		"lruvec_*", "mod_memcg_*", "__mod_memcg_*", "mod_node_*", "__mod_node_*", "iommu_put_pages_list",
	}},
	{StackLimit, matcher{
		"netif_receive_*", "__netif_receive_*", "napi_gro_*", "gro_*", "__gro_*", "dev_gro_*", "netif_rx*",
		"__netif_rx*", "kfree_skb*", "consume_skb*", "__kfree_skb*", "__consume_*", "napi_consume_skb",
		"napi_skb_*", "__napi_kfree_*", "skb_*", "__skb_*", "___skb_*", "pskb_*", "__pskb_*", "sk_skb_*",
		"__alloc_skb*", "alloc_skb*", "build_skb*", "__build_skb*", "napi_build_*", "napi_alloc_*",
		"__napi_alloc_*", "netdev_alloc_*", "__netdev_alloc_*", "dev_kfree_*", "__dev_kfree_*", "dev_queue_*",
		"__dev_queue_*", "__dev_direct_*", "dev_hard_*", "eth_type_trans", "do_xdp_generic",
		"bpf_prog_run_generic_xdp", "generic_xdp_*", "xdp_do_generic_*", "xdp_build_skb_*",
		"__xdp_build_skb_*", "xdp_alloc_skb_*", "netif_schedule*", "__netif_schedule", "sock_*", "__sock_*",
		"sk_*", "tcp_*", "udp_*", "ip_*", "ipv6_*", "inet_*", "net_tx_action", "qdisc_*", "validate_xmit_*",
		"cpu_map_bpf_prog_run_skb", "dev_map_generic_redirect", "cpu_map_generic_redirect",
		"dev_map_redirect_multi", "xsk_generic_rcv", "napi_busy_*", "ptp_*", "dst_*", "tun_*skb*",
	}},
	{"hardware control, not done for frames", matcher{
		"pci_*", "__pci_*", "pm_*", "__pm_*", "request_irq", "free_irq", "enable_irq", "disable_irq*",
		"irq_set_*", "__irq_*", "msix_*", "regmap_*", "phy_*", "devlink_*",
	}},
	{"programs and maps being loaded and freed", matcher{
		"__bpf_prog_put*", "bpf_prog_put*", "bpf_prog_free*", "bpf_map_put*", "bpf_map_free*", "audit_*",
		"bpf_audit_*", "security_*",
	}},
	{"text and delays", matcher{
		"vsnprintf", "snprintf", "vscnprintf", "scnprintf", "sprintf", "__const_udelay", "__udelay",
		"__ndelay", "usleep_range*", "msleep*",
	}},
	{"user copies", matcher{
		"copy_to_user*", "copy_from_user*", "_copy_*", "copy_user_*", "__get_user_*", "__put_user_*",
		"might_fault",
	}},
}

// Limit tells why a walk does not go into the function of a symbol; "" when it does.
func Limit(symbol string) string {
	if f, ok := Find(symbol); ok && f.Roles&Root != 0 {
		return ""
	}
	if strings.HasSuffix(symbol, "_slowpath") {
		return "locks, when contended"
	}
	for i := range limits {
		if limits[i].patterns.match(Source(symbol)) {
			return limits[i].why
		}
	}
	return ""
}

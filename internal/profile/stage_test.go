package profile

import (
	"testing"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// frames are places by function name, the innermost first.
func frames(names ...string) (out []Frame) {
	for _, name := range names {
		out = append(out, Frame{Function: name})
	}
	return out
}

func TestClassify(t *testing.T) {
	poll := []string{"veth_poll", "__napi_poll", "net_rx_action", "handle_softirqs", "do_softirq.part.0",
		"__local_bh_enable_ip", "xdp_test_run_batch.constprop.0", "bpf_test_run_xdp_live", "entry_SYSCALL_64_after_hwframe"}
	live := []string{"xdp_test_run_batch.constprop.0", "bpf_test_run_xdp_live", "bpf_prog_test_run_xdp", "entry_SYSCALL_64_after_hwframe"}
	xmit := append([]string{"veth_ndo_xdp_xmit", "bq_xmit_all", "__dev_flush", "xdp_do_flush"}, poll...)
	in := func(base []string, names ...string) []Frame { return frames(append(names, base...)...) }
	for _, test := range []struct {
		frames []Frame
		sink   bool
		by     task
		want   functions.Stage
		where  Outside
	}{
		{in(poll), false, sender, functions.StageReceive, Inside},
		{in(poll), true, sender, functions.StageSink, Inside},
		{in(poll, "veth_xdp_rcv_one", "veth_xdp_rcv"), false, sender, functions.StageReceive, Inside},
		{in(poll, "__rcu_read_unlock", "veth_xdp_rcv_one", "veth_xdp_rcv"), false, sender, functions.StageReceive, Inside},
		{in(poll, "bpf_prog_1234567812345678_redirect_map", "veth_xdp_rcv_one"), false, sender, functions.StageProgram, Inside},
		{in(poll, "bpf_prog_1234567812345678_sink", "veth_xdp_rcv_one"), true, sender, functions.StageSink, Inside},
		{in(poll, "dev_map_enqueue", "xdp_do_redirect", "veth_xdp_rcv_one"), false, sender, functions.StageRedirect, Inside},
		{in(poll, "memcpy", "xdp_do_redirect", "veth_xdp_rcv_one"), false, sender, functions.StageRedirect, Inside},
		{in(poll, "bq_enqueue", "dev_map_enqueue", "xdp_do_redirect"), false, sender, functions.StageBulkQueue, Inside},
		{in(xmit), false, sender, functions.StageTransmit, Inside},
		{in(xmit, "veth_xdp_xmit"), false, sender, functions.StageTransmit, Inside},
		{in(xmit, "_raw_spin_lock", "veth_xdp_xmit"), false, sender, functions.StageLocks, Inside},
		{in(xmit, "__napi_schedule", "veth_xdp_xmit"), false, sender, functions.StageSoftirq, Inside},
		{in(xmit[1:]), false, sender, functions.StageBulkQueue, Inside},
		{in(poll, "page_pool_put_unrefed_netmem", "__xdp_return", "xdp_return_frame", "veth_xdp_rcv_one"),
			true, sender, functions.StageReturn, Inside},
		{in(poll, "iommu_dma_map_page", "dma_map_page_attrs", "igb_xmit_xdp_ring"), false, sender, functions.StageDMA, Inside},
		{in(poll, "igb_clean_tx_irq"), false, sender, functions.StageCompletion, Inside},
		{in(poll, "napi_complete_done"), false, sender, functions.StageSoftirq, Inside},
		{in(poll[1:]), false, sender, functions.StageSoftirq, Inside},
		{in(poll[2:]), false, sender, functions.StageSoftirq, Inside},
		{in(live), false, sender, functions.StageGenerator, Inside},
		{in(live, "veth_ndo_xdp_xmit", "bq_xmit_all", "__dev_flush"), false, sender, functions.StageGenerator, Inside},
		{in(live, "_raw_spin_lock", "veth_xdp_xmit"), false, sender, functions.StageGenerator, Inside},
		{in(poll, "bpf_trace_run5", "__traceiter_xdp_redirect", "xdp_do_redirect"), false, sender, functions.StageObserver, Inside},
		{in(poll, "bpf_prog_1234567812345678_watch", "bpf_trace_run5", "__traceiter_xdp_redirect",
			"xdp_do_redirect"), false, sender, functions.StageObserver, Inside},
		{in(poll, "__netif_receive_skb_core.constprop.0", "netif_receive_skb_list_internal"), false, sender, functions.StageStack, Inside},
		{in(live, "tick_nohz_handler", "__hrtimer_run_queues", "sysvec_apic_timer_interrupt",
			"asm_sysvec_apic_timer_interrupt"), false, sender, "", Timers},
		{in(poll, "enqueue_hrtimer", "perf_swevent_hrtimer", "__hrtimer_run_queues", "sysvec_apic_timer_interrupt"), false, sender,
			"", Sampling},
		{in(poll, "bpf_prog_1234567812345678_phase", "bpf_overflow_handler", "__perf_event_overflow",
			"perf_swevent_hrtimer", "__hrtimer_run_queues", "sysvec_apic_timer_interrupt"), false, sender, "", Sampling},
		{in(poll, "update_curr", "sched_tick", "update_process_times", "tick_nohz_handler", "sysvec_apic_timer_interrupt"), false,
			sender, "", Timers},
		{in(live, "rcu_do_batch", "rcu_core", "handle_softirqs", "__irq_exit_rcu", "sysvec_apic_timer_interrupt"), false,
			sender, "", RCU},
		{in(live, "_raw_spin_lock", "sched_balance_softirq", "handle_softirqs", "__irq_exit_rcu"), false, sender, "", Scheduler},
		{in(live, "blk_done_softirq", "handle_softirqs", "__irq_exit_rcu"), false, sender, "", Interrupts},
		{in(live, "virtio_vsock_interrupt", "__common_interrupt", "common_interrupt"), false, sender, "", Interrupts},
		{in(live, "__napi_schedule", "igb_msix_ring", "__common_interrupt", "common_interrupt"), false, anyTask,
			functions.StageSoftirq, Inside},
		{in(live, "finish_task_switch.isra.0", "__schedule", "schedule"), false, sender, "", Scheduler},
		// In another task: polls that a softirq runs there are the packet's.
		{in(poll, "veth_xdp_rcv"), false, another, functions.StageReceive, Inside},
		{in(poll[2:]), false, another, functions.StageSoftirq, Inside},
		{frames("bpf_prog_1234567812345678_redirect_map"), false, another, functions.StageProgram, Inside},
		{in(live), false, another, functions.StageGenerator, OtherTasks},
		{frames("ext4_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"), false, another, functions.StageOther, OtherTasks},
		{frames("ep_poll", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"), false, unthunk, functions.StageOther, Sampling},
		{frames("do_anonymous_page", "exc_page_fault", "asm_exc_page_fault"), false, another, "", OtherTasks},
		{frames("do_anonymous_page", "exc_page_fault", "asm_exc_page_fault"), false, anyTask, "", OtherTasks},
		{frames("nmi_handle", "asm_exc_nmi"), false, another, "", Interrupts},
		{nil, false, another, "", OtherTasks},
		{nil, false, anyTask, "", OtherTasks},
		{nil, false, unthunk, "", Sampling},
		{frames("pv_native_safe_halt", "default_idle", "do_idle", "cpu_startup_entry"), false, sender, "", Idle},
		{frames("_raw_spin_lock", "ext4_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"), false, sender, functions.StageOther, Inside},
		// The unwinder left off in the program's prologue.
		{frames("bpf_prog_1234567812345678_generate"), false, sender, functions.StageGenerator, Inside},
		{frames("bpf_prog_1234567812345678_redirect_map"), false, sender, functions.StageProgram, Inside},
		{frames("bpf_prog_1234567812345678_sink"), true, sender, functions.StageSink, Inside},
		{frames("some_function"), false, sender, functions.StageOther, Inside},
		{frames(""), false, sender, functions.StageUnattributed, Inside},
		{nil, false, sender, "", Sampling}, // user space
	} {
		if got, where := classify(test.frames, test.sink, test.by); got != test.want || where != test.where {
			t.Errorf("%v sink %v task %d: %q %q, want %q %q", test.frames, test.sink, test.by, got, where, test.want, test.where)
		}
	}
}

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
		want   functions.Stage
	}{
		{in(poll), false, functions.StageReceive},
		{in(poll), true, functions.StageSink},
		{in(poll, "veth_xdp_rcv_one", "veth_xdp_rcv"), false, functions.StageReceive},
		{in(poll, "__rcu_read_unlock", "veth_xdp_rcv_one", "veth_xdp_rcv"), false, functions.StageReceive},
		{in(poll, "bpf_prog_1234567812345678_redirect_map", "veth_xdp_rcv_one"), false, functions.StageProgram},
		{in(poll, "bpf_prog_1234567812345678_sink", "veth_xdp_rcv_one"), true, functions.StageSink},
		{in(poll, "dev_map_enqueue", "xdp_do_redirect", "veth_xdp_rcv_one"), false, functions.StageRedirect},
		{in(poll, "memcpy", "xdp_do_redirect", "veth_xdp_rcv_one"), false, functions.StageRedirect},
		{in(poll, "bq_enqueue", "dev_map_enqueue", "xdp_do_redirect"), false, functions.StageBulkQueue},
		{in(xmit), false, functions.StageTransmit},
		{in(xmit, "veth_xdp_xmit"), false, functions.StageTransmit},
		{in(xmit, "_raw_spin_lock", "veth_xdp_xmit"), false, functions.StageLocks},
		{in(xmit, "__napi_schedule", "veth_xdp_xmit"), false, functions.StageSoftirq},
		{in(xmit[1:]), false, functions.StageBulkQueue},
		{in(poll, "page_pool_put_unrefed_netmem", "__xdp_return", "xdp_return_frame", "veth_xdp_rcv_one"), true,
			functions.StageReturn},
		{in(poll, "iommu_dma_map_page", "dma_map_page_attrs", "igb_xmit_xdp_ring"), false, functions.StageDMA},
		{in(poll, "igb_clean_tx_irq"), false, functions.StageCompletion},
		{in(poll, "napi_complete_done"), false, functions.StageSoftirq},
		{in(poll[1:]), false, functions.StageSoftirq},
		{in(poll[2:]), false, functions.StageSoftirq},
		{in(live), false, functions.StageGenerator},
		{in(live, "veth_ndo_xdp_xmit", "bq_xmit_all", "__dev_flush"), false, functions.StageGenerator},
		{in(live, "_raw_spin_lock", "veth_xdp_xmit"), false, functions.StageGenerator},
		{in(poll, "bpf_trace_run5", "__traceiter_xdp_redirect", "xdp_do_redirect"), false, functions.StageObserver},
		{in(poll, "bpf_prog_1234567812345678_watch", "bpf_trace_run5", "__traceiter_xdp_redirect",
			"xdp_do_redirect"), false, functions.StageObserver},
		{in(poll, "__netif_receive_skb_core.constprop.0", "netif_receive_skb_list_internal"), false,
			functions.StageStack},
		{in(live, "tick_nohz_handler", "__hrtimer_run_queues", "sysvec_apic_timer_interrupt",
			"asm_sysvec_apic_timer_interrupt"), false, functions.StageOther},
		{frames("pv_native_safe_halt", "default_idle", "do_idle", "cpu_startup_entry"), false, functions.StageIdle},
		{frames("_raw_spin_lock", "ext4_read", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"), false,
			functions.StageOther},
		// The unwinder left off in the program's prologue.
		{frames("bpf_prog_1234567812345678_generate"), false, functions.StageGenerator},
		{frames("bpf_prog_1234567812345678_redirect_map"), false, functions.StageProgram},
		{frames("bpf_prog_1234567812345678_sink"), true, functions.StageSink},
		{frames("some_function"), false, functions.StageOther},
		{frames(""), false, functions.StageUnattributed},
		{nil, false, functions.StageOther}, // user space
	} {
		if got := classify(test.frames, test.sink); got != test.want {
			t.Errorf("%v sink %v: %s, want %s", test.frames, test.sink, got, test.want)
		}
	}
}

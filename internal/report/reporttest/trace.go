package reporttest

import (
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
)

// Traced is a record of lab whose two rows are traced: the second kernel has one function by
// another name, and one that the first had in its caller.
func Traced() *record.Lab {
	l := &record.Lab{Differences: []record.LabDifference{}}
	l.Document = *record.New[record.LabRow]("lab", host.Fingerprint{})
	old := tracedRow("debian:6.1-cloud", "6.1.0-56-cloud-amd64", []record.LabTraceStack{
		{Frames: []string{"bpf_test_run_xdp_live"}, Stage: "generator", Executed: 9000},
		{Frames: []string{"bpf_test_run_xdp_live", "net_rx_action", "__napi_poll", "veth_poll"}, Stage: "receive", Executed: 4000},
		{Frames: []string{"bpf_test_run_xdp_live", "net_rx_action", "__napi_poll", "veth_poll", "page_pool_put_defragged_page"},
			Stage: "return", Executed: 6288},
	})
	new := tracedRow("debian:6.12-cloud", "6.12.117+deb12-cloud-amd64", []record.LabTraceStack{
		{Frames: []string{"bpf_test_run_xdp_live"}, Stage: "generator", Executed: 700},
		{Frames: []string{"bpf_test_run_xdp_live", "xdp_test_run_batch"}, Stage: "generator", Executed: 9001},
		{Frames: []string{"bpf_test_run_xdp_live", "xdp_test_run_batch", "net_rx_action", "__napi_poll", "veth_poll"}, Stage: "receive",
			Executed: 4000},
		{Frames: []string{"bpf_test_run_xdp_live", "xdp_test_run_batch", "net_rx_action", "__napi_poll", "veth_poll",
			"page_pool_put_unrefed_netmem"}, Stage: "return", Executed: 9232},
	})
	l.Rows = []record.LabRow{old, new}
	return l
}

func tracedRow(kernel, release string, stacks []record.LabTraceStack) record.LabRow {
	t := &record.LabTrace{Packets: 128, Stacks: stacks, Branches: []record.LabTraceBranch{
		{Function: "__napi_poll", Offset: 0x26, Target: "veth_poll", Times: 16},
		{Function: "ktime_get_mono_fast_ns", Offset: 0x38, Jump: true, Target: "read_tsc", Times: 1},
	}}
	for _, s := range stacks {
		t.Executed += s.Executed
		t.Functions = append(t.Functions, record.LabTraceFunction{
			Function: s.Frames[len(s.Frames)-1], Stage: s.Stage, Executed: s.Executed, Inclusive: s.Executed})
	}
	t.Lines = []record.LabTraceLine{
		{Program: "bpf_prog_0123456789abcdef_redirect_map", File: "src/chain.bpf.c", Line: 333,
			Text: "return tested(bpf_redirect_map(&ports, 0, 0));", Executed: 12 * 128},
		{Program: "bpf_prog_0123456789abcdef_redirect_map", File: "src/chain.bpf.c", Line: 324, Text: "if (counting)", Executed: 8 * 128},
	}
	t.Annotated = []record.LabTraceInstruction{
		{Function: "veth_poll", Offset: 0, Text: "endbr64", Times: 16, Source: "veth.c:950 static int veth_poll("},
		{Function: "veth_poll", Offset: 4, Text: "push %rbp", Times: 16},
		{Function: "veth_poll", Offset: 0x20, Text: "call veth_xdp_rcv", Times: 3968, Source: "veth.c:962"},
	}
	n, calls := t.PerPacket(t.Executed), 0.125
	return record.LabRow{
		Name: kernel + "/bulk=16", Labels: map[string]string{"kernel": kernel, "append": "", "nic": "veth", "bulk": "16"},
		Release: release, Thunk: "retpoline", Instructions: &n, CallsPerPacket: &calls, Window: 128, Trace: t,
		Sites: []record.LabSite{}, Functions: []record.LabFunction{},
		Counts: record.Counts{Sent: 640, Redirected: 640, Received: 640},
	}
}

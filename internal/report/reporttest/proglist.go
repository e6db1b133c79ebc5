package reporttest

import (
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// ProgramList is a record with all that a machine may have.
func ProgramList() *record.ProgramList {
	loaded := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	on := true
	lb := []record.Process{{PID: 812, Name: "lb1"}}
	doc := &record.ProgramList{Document: record.Document[record.ProgramRow]{
		Head: record.Head{Schema: record.Schema, Kind: "prog-list", Run: "one"},
	}}
	doc.Rows = []record.ProgramRow{
		{Name: "id:241", ID: 241, Program: "lb_main", Type: "xdp", Tag: "3f2a9c1104b1d2aa",
			Pins: []string{"/sys/fs/bpf/lb1"}, JitedBytes: 1204, Loaded: &loaded,
			Dispatcher: record.InDispatcher, MapIDs: []uint32{11, 12, 13}, Holders: lb,
			Attached: []record.Attachment{
				{Device: "eth0", Index: 2, Driver: "virtio_net", Namespace: 1, Mode: record.NativeMode, By: "link", Link: 12},
				{Device: "veth1", Index: 4, Driver: "veth", Namespace: 2, Where: "ns1", Mode: record.GenericMode, By: "netlink"},
				{Index: 9, By: "link", Link: 14},
			}, Tracers: []record.ProgramName{{ID: 300, Name: "xdp_dump"}}},
		{Name: "id:250", ID: 250, Program: "xdp_dispatcher", Type: "xdp", Tag: "90f686eb86991928", JitedBytes: 900,
			Dispatcher: record.OutOfDispatcher, Parts: []uint32{252, 251},
			Attached: []record.Attachment{{Device: "eth1", Index: 3, Namespace: 1, Mode: record.NativeMode, By: "unknown"}}},
		{Name: "id:251", ID: 251, Program: "xdp_filter", Type: "extension", Tag: "b1", JitedBytes: 10, PartOf: 250, Slot: "prog1"},
		{Name: "id:252", ID: 252, Program: "xdp_count", Type: "extension", Tag: "b2", JitedBytes: 10, PartOf: 250, Slot: "prog0"},
		{Name: "id:243", ID: 243, Program: "icmp_reply", Type: "xdp", Tag: "a1", JitedBytes: 64,
			Entries: []record.MapEntry{{Map: 13, Key: 3}, {Map: 14}}},
		{Name: "id:77", ID: 77, Type: "xdp", Tag: "c1"},
		{Name: "id:78", ID: 78, Attached: []record.Attachment{{Device: "eth2", Index: 5, Namespace: 1, Mode: record.NativeMode, By: "unknown"}},
			Dispatcher: record.DispatcherUnknown},
	}
	doc.Maps = []record.ProgramMap{
		{ID: 11, Name: "flow_map", Type: "lru_hash"}, {ID: 12, Type: "array"},
		{ID: 13, Name: "tails", Type: "prog_array", Programs: []record.HeldProgram{{Key: 3, Program: 243}, {Key: 4, Program: 999}}},
		{ID: 14, Name: "ports", Type: "devmap", Programs: []record.HeldProgram{{Program: 243}}},
	}
	doc.Namespaces = []record.Namespace{{Inode: 1, Devices: 4}, {Inode: 2, Name: "ns1", Devices: 2}, {Inode: 3, Name: "x", Unseen: "no"}}
	doc.Observers = []record.Observer{
		{Tracepoint: "xdp_redirect", ProgramName: record.ProgramName{ID: 260, Name: "xdp_mon"},
			Holders: []record.Process{{PID: 77, Name: "xdp-monitor"}}},
	}
	doc.Dispatcher = &record.DispatcherState{Programs: 48, Slots: 48}
	doc.Statistics = record.Statistics{Sysctl: &on}
	doc.Costs = []record.ProgramCost{
		{What: "xdp_dispatcher id:250 is not in the BPF dispatcher: called indirectly", Each: "packet of eth1", Row: "bpf-prog",
			Ns: &stat.Quantity{Median: 11.2, Low: 10.6, High: 11.8, N: 7, Unit: "ns"}, Source: "tax.json",
			Note: "attach it again when fewer than 48 programs are attached"},
		{What: "lb_main id:241 is attached in generic mode: the kernel makes an skb first", Each: "packet of veth1 in ns1",
			Note: "no price: it depends on the driver", More: "unthunk prog xray id:241"},
	}
	doc.Unseen = []string{"what processes have open, and their namespaces, of 3: CAP_SYS_PTRACE is missing: run as root"}
	doc.Warnings = []record.Warning{{Text: "the prices are of another CPU, kernel or kind of thunk: tax.json"}}
	return doc
}

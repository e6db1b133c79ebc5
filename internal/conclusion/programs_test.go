package conclusion

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// The prices that stand in for those of a machine are those of docs/tax.md.
func TestDocumentedPrices(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/tax.md")
	if err != nil {
		t.Fatal(err)
	}
	prices := DocumentedPrices()
	if len(prices.rows) < 5 || !strings.Contains(prices.Source, "another machine") {
		t.Fatalf("%+v", prices)
	}
	for _, row := range prices.rows {
		found := false
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) > 5 && fields[0] == row.Name {
				found = strings.Contains(line, " "+strings.TrimSuffix(row.Price.Text(stat.Number), "")[:4]) &&
					strings.Contains(line, strings.TrimPrefix(row.Price.Text(stat.Number), stat.Number(row.Price.Median)+" ns "))
				break
			}
		}
		if !found {
			t.Errorf("docs/tax.md has no price %s of %s", row.Price.Text(stat.Number), row.Name)
		}
	}
	page, err := os.ReadFile("../../docs/prog.md")
	if err != nil || !strings.Contains(string(page), stat.Number(statisticsPrice.Median)+" ns") {
		t.Errorf("docs/prog.md does not say %s ns: %v", stat.Number(statisticsPrice.Median), err)
	}
}

// Each thing that packets pay for is a cost, with the price of the record where it has one.
func TestProgramCosts(t *testing.T) {
	t.Parallel()
	prices := Prices{Source: "tax.json", rows: []record.TaxRow{
		{Name: "bpf-prog", Price: &stat.Quantity{Median: 10, Low: 9, High: 11, Unit: "ns"}},
		{Name: "tracepoint/2", Price: &stat.Quantity{Median: 130, Low: 120, High: 140, Unit: "ns"}},
	}}
	on := true
	native := []record.Attachment{{Device: "eth0", Mode: record.NativeMode, Namespace: 1}}
	rows := []record.ProgramRow{
		{Name: "id:1", ID: 1, Program: "in", Type: "xdp", JitedBytes: 9, Dispatcher: record.InDispatcher, Attached: native},
		{Name: "id:2", ID: 2, Program: "out", Type: "xdp", JitedBytes: 9, Dispatcher: record.OutOfDispatcher, Attached: native,
			MapIDs: []uint32{5}},
		{Name: "id:3", ID: 3, Program: "slow", Type: "xdp", Dispatcher: record.OutOfDispatcher,
			Attached: []record.Attachment{{Device: "eth1", Mode: record.GenericMode, Namespace: 2, Where: "blue"}}},
		{Name: "id:4", ID: 4, Program: "idle", Type: "xdp", JitedBytes: 9, MapIDs: []uint32{5}},
		{Name: "id:6", ID: 6, Attached: native, Dispatcher: record.DispatcherUnknown},
	}
	parts := &record.ProgramListParts{
		Namespaces: []record.Namespace{{Inode: 1}, {Inode: 2, Name: "blue"}},
		Maps: []record.ProgramMap{
			{ID: 5, Name: "tails", Type: "prog_array", Programs: []record.HeldProgram{{Program: 4}}},
			{ID: 7, Name: "ports", Type: "devmap_hash", Programs: []record.HeldProgram{{Program: 4}, {Program: 4}}},
			{ID: 8, Type: "cpumap", Programs: []record.HeldProgram{{Program: 4}}},
			{ID: 9, Type: "lru_hash"},
		},
		Observers: []record.Observer{
			{Tracepoint: "xdp_redirect", ProgramName: record.ProgramName{ID: 20, Name: "a"}},
			{Tracepoint: "xdp_redirect", ProgramName: record.ProgramName{ID: 21}},
			{Tracepoint: "xdp_redirect", ProgramName: record.ProgramName{ID: 22, Name: "c"}},
			{Tracepoint: "xdp_devmap_xmit", ProgramName: record.ProgramName{ID: 20, Name: "a"}},
		},
		Statistics: record.Statistics{Sysctl: &on},
	}
	var said []string
	for _, c := range ProgramCosts(rows, parts, prices) {
		ns := "?"
		if c.Ns != nil {
			ns = stat.Number(c.Ns.Median)
		}
		said = append(said, fmt.Sprintf("%s a %s: %s (%s)", ns, c.Each, c.What, c.Note))
	}
	want := []string{
		"10.0 a packet of eth0: out id:2 is not in the BPF dispatcher: called indirectly " +
			"(attach it again when fewer than 48 programs are attached)",
		"? a tail call by a variable index: out id:2 makes tail calls through tails " +
			"(by a constant index there is none; tax.json has no price of it)",
		"? a packet of eth1 in blue: slow id:3 is interpreted (no price: sysctl net.core.bpf_jit_enable=1)",
		"? a packet of eth1 in blue: slow id:3 is attached in generic mode: the kernel makes an skb first (no price: it depends on the driver)",
		"? a packet redirected to such an entry: 2 programs of devmap_hash ports (tax.json has no price of it)",
		"? a packet redirected to such an entry: 1 program of cpumap map id:8 (no price)",
		"130 a redirected packet of the machine: a id:20, id:21, c id:22 at xdp_redirect (the price is of two empty programs, and there are 3)",
		"? a redirected bulk of the machine: a id:20 at xdp_devmap_xmit (the price is of an empty program; tax.json has no price of it)",
		"69.8 a run of each BPF program: run statistics are on (kernel.bpf_stats_enabled) (sysctl kernel.bpf_stats_enabled=0)",
	}
	if got := strings.Join(said, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	if got := ProgramCosts(rows[:1], &record.ProgramListParts{}, prices); got == nil || len(got) != 0 {
		t.Errorf("of one in the dispatcher: %+v", got)
	}
}

// A run says of each program on a device how it is called, at the run's price of a call.
func TestAttachedPrograms(t *testing.T) {
	t.Parallel()
	prices := []record.TaxRow{{Name: "bpf-prog", Price: &stat.Quantity{Median: 10, Low: 9, High: 11, Unit: "ns"}}}
	on := func(mode string) []record.Attachment {
		return []record.Attachment{{Device: "eth0", Mode: mode}, {Device: "eth1", Mode: mode}}
	}
	rows := []record.ProgramRow{
		{Name: "id:1", Program: "in", Type: "xdp", JitedBytes: 9, Dispatcher: record.InDispatcher, Attached: on(record.NativeMode)[:1]},
		{Name: "id:2", Program: "out", Type: "xdp", JitedBytes: 9, Dispatcher: record.OutOfDispatcher, Attached: on(record.GenericMode)},
		{Name: "id:3", Type: "xdp", Dispatcher: record.OutOfDispatcher, Attached: on(record.NativeMode), Parts: []uint32{5}},
		{Name: "id:4", Dispatcher: record.DispatcherUnknown, Attached: on(record.NativeMode)},
	}
	want := []string{
		"in id:1 on eth0: called directly, +0 ns",
		"out id:2 on eth0 and 1 more: not in the BPF dispatcher, +10.0 ns a packet; generic mode",
		"id:3 on eth0 and 1 more: interpreted, several times slower; runs 1 part",
		"id:4 on eth0 and 1 more",
	}
	if got := AttachedPrograms(rows, prices); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	const unpriced = "out id:2 on eth0 and 1 more: not in the BPF dispatcher, called indirectly; generic mode"
	if got := AttachedPrograms(rows[1:2], nil); got[0] != unpriced {
		t.Error(got)
	}
}

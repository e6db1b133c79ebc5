package xray

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

const base = 0xffffffff81000000

// made is a kernel of two functions and a retpoline.
func made(t *testing.T) *kernel.Kernel {
	t.Helper()
	code := make([]byte, 0x60)
	for i := range code {
		code[i] = 0xcc
	}
	copy(code, "\xe8\x3b\x00\x00\x00\xc3")                            // call the thunk; ret
	copy(code[0x20:], "\xff\xe0")                                     // jmp *%rax
	copy(code[0x40:], "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3") // call +1; int3; mov %rax,(%rsp); ret
	table, err := ksym.New([]ksym.Symbol{
		{Addr: base, Size: 0x20, Type: 'T', Name: "_stext"},
		{Addr: base, Size: 0x20, Type: 't', Name: "caller.isra.0"},
		{Addr: base + 0x20, Size: 0x20, Type: 't', Name: "jumper"},
		{Addr: base + 0x40, Size: 0x20, Type: 'T', Name: "__x86_indirect_thunk_rax"},
		{Addr: base + 0x60, Size: 16, Type: 'T', Name: "_etext"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return kernel.New(ktext.Bytes{Addr: base, Code: code}, table, nil)
}

func TestReadFunction(t *testing.T) {
	k := made(t)
	f, err := ReadFunction(k, "caller")
	if err != nil {
		t.Fatal(err)
	}
	if branches := f.Branches(); f.Name != "caller.isra.0" || len(branches) != 2 || branches[0].Target != base+0x40 {
		t.Errorf("%s: %+v", f.Name, branches)
	}
	if _, err := ReadFunction(k, "nothing"); err == nil {
		t.Error("a function that is not there was read")
	}
}

// The listing of a thunk ends with the first trap of its padding.
func TestThunks(t *testing.T) {
	sites := []xdppath.Site{{Thunk: "__x86_indirect_thunk_rcx"}, {Thunk: "__x86_indirect_thunk_rax"}, {Thunk: "__x86_indirect_thunk_rax"}, {}}
	got := thunks(made(t), sites, "a_return_thunk_without_a_symbol")
	if len(got) != 1 || got[0].Name != "__x86_indirect_thunk_rax" || len(got[0].Lines) != 5 {
		t.Errorf("%+v", got)
	}
}

func TestRows(t *testing.T) {
	sites := []xdppath.Site{
		{Function: "f", Pointer: "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit", Confidence: codeflow.Certain},
		{Function: "f", Offset: 8, Confidence: codeflow.Unknown},
		{Function: "f", Offset: 16, Confidence: codeflow.Unknown},
	}
	var names []string
	for _, row := range rows(sites, reach{}) {
		names = append(names, row.Name)
	}
	if diff := cmp.Diff([]string{"f/net_device_ops.ndo_xdp_xmit", "f/unknown", "f/unknown#2"}, names); diff != "" {
		t.Error(diff)
	}
}

// What is of a file: no fingerprint of this machine, no calls that are not patched yet.
func TestOfFile(t *testing.T) {
	k := made(t)
	k.Release = "6.12.1"
	from := beginning{of: "veth in " + k.String(), owner: "veth", roots: []xdppath.Root{
		{Function: "caller.isra.0", Addr: base, Stage: functions.StageReceive, Per: functions.PerPoll,
			Why: "given to netif_napi_add by probe of veth"},
		{Function: "jumper", Addr: base + 0x20, Stage: functions.StageDMA, Per: functions.PerPacket},
	}}
	p, err := from.walk(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if want := "The path of veth in Linux 6.12.1: caller.isra.0 is its poll, given to netif_napi_add by probe."; p.Title != want {
		t.Errorf("title %q, want %q", p.Title, want)
	}
	p.paravirt = 3
	var doc record.Document[record.SiteRow]
	doc.Host = p.Host()
	p.Record(&doc)
	if doc.Host.Kernel != "6.12.1" || doc.Host.CPU != "" || doc.Code != nil || len(doc.Warnings) != 1 || len(doc.Rows) != 1 {
		t.Errorf("%+v", doc)
	}
	if !paravirt(xdppath.Site{Pointer: "pv_ops.mmu"}) || paravirt(xdppath.Site{Pointer: "net_device.netdev_ops"}) {
		t.Error("calls through pv_ops are told wrongly")
	}
}

func TestOwnVeth(t *testing.T) {
	testutil.Root(t)
	k, err := kernel.OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	p, err := Read(t.Context(), k, "", "")
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if want := "The path of a veth with an XDP program: veth_poll is its napi_struct.poll"; !strings.HasPrefix(p.Title, want) {
		t.Errorf("title %q, want %q", p.Title, want)
	}
	// kallsyms has programs where net.core.bpf_jit_kallsyms says so, for root.
	named := regexp.MustCompile(`, bpf_prog_[0-9a-f]{16}_\w+ is its XDP program\.$`).MatchString(p.Title)
	if b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_kallsyms"); err == nil && strings.TrimSpace(string(b)) != "0" && !named {
		t.Errorf("title %q does not name the program", p.Title)
	}
	for _, name := range p.Graph(make([]record.SiteRow, len(p.Sites))).Functions {
		if strings.HasPrefix(name, "0x") || strings.HasPrefix(name, "bpf_prog_") && strings.Contains(name, "+0x") {
			t.Errorf("a function is called %s", name)
		}
	}
	if _, err := Read(t.Context(), k, "no-such-dev", ""); err == nil {
		t.Error("the path of a device that is not there")
	}
}

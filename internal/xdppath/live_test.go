package xdppath

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// live is the running kernel.
func live(t testing.TB) *kernel.Kernel {
	t.Helper()
	testutil.Root(t)
	testutil.AMD64(t)
	k, err := kernel.OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := k.Types(); err != nil {
		t.Log(err)
		testutil.Missing(t, "BTF")
	}
	return k
}

// veth is a device with an XDP program. The symbols are read after it was
// attached.
func veth(t testing.TB) (*kernel.Kernel, *netlab.Namespace, int) {
	t.Helper()
	testutil.Root(t)
	lab, err := netlab.New(0)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	a, _, err := lab.VethPair("pa", "pb")
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := price.Load("nothing")
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	if err := a.Attach(prog, 0); err != nil {
		t.Fatal(err)
	}
	return live(t), lab, a.Index
}

// walkVeth is the inventory of a veth device.
func walkVeth(t testing.TB, k *kernel.Kernel, lab *netlab.Namespace, ifindex int) *Inventory {
	t.Helper()
	var roots []Root
	if err := lab.Do(func() (err error) { roots, err = LiveRoots(k, ifindex); return err }); err != nil {
		t.Fatal(err)
	}
	inv, err := Walk(context.Background(), k, roots)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestLiveRoots(t *testing.T) {
	k, lab, ifindex := veth(t)
	inv := walkVeth(t, k, lab, ifindex)
	for _, want := range []struct {
		why    string
		suffix string
		stage  functions.Stage
		per    functions.Per
	}{
		{"napi_struct.poll of pa", "_poll", functions.StageReceive, functions.PerPoll},
		{"net_device_ops.ndo_xdp_xmit of pa", "xdp_xmit", functions.StageTransmit, functions.PerBulk},
		{"net_device_ops.ndo_bpf of pa", "veth_xdp", functions.StageReceive, functions.PerRare},
		{"the XDP program of pa", "_nothing", functions.StageProgram, functions.PerPacket},
	} {
		i := slices.IndexFunc(inv.Roots, func(r Root) bool { return r.Why == want.why })
		if i < 0 {
			t.Errorf("no root %q", want.why)
			continue
		}
		r := inv.Roots[i]
		// Another process may have loaded a program of that name too.
		s, off, ok := k.Symbols.Find(r.Addr)
		if !ok || off != 0 || s.Name != r.Function || !strings.HasSuffix(functions.Source(r.Function), want.suffix) ||
			r.Stage != want.stage || r.Per != want.per {
			t.Errorf("%q: %+v", want.why, r)
		}
	}
	if !slices.ContainsFunc(inv.Roots, func(r Root) bool {
		return r.Function == "xdp_do_redirect" && r.Per == functions.PerPacket
	}) {
		t.Error("xdp_do_redirect is no root")
	}
	err := lab.Do(func() error { _, err := LiveRoots(k, 1<<20); return err })
	if !errors.Is(err, syscall.ENODEV) {
		t.Errorf("interface that is not there: %v", err)
	}
	// A table without BTF, a file.
	untyped, file := kernel.New(k.Text, k.Symbols, nil), kernel.New(k.Text, k.Symbols, nil)
	untyped.Live = true
	for _, k := range []*kernel.Kernel{untyped, file} {
		if _, err := LiveRoots(k, 1); feature.AsMissing(err) == nil {
			t.Errorf("%v", err)
		}
	}
}

func TestWalkLive(t *testing.T) {
	k, lab, ifindex := veth(t)
	inv := walkVeth(t, k, lab, ifindex)
	site := func(function, calls string) *Site {
		for i, s := range inv.Sites {
			if s.Function == function && strings.HasSuffix(s.Pointer, calls) {
				return &inv.Sites[i]
			}
		}
		return nil
	}
	for _, want := range []struct {
		function, calls, target string
		per                     functions.Per
		stage                   functions.Stage
		confidence              codeflow.Confidence
	}{
		{"bq_xmit_all", "net_device_ops.ndo_xdp_xmit", "veth_ndo_xdp_xmit", functions.PerBulk,
			functions.StageBulkQueue, codeflow.Certain},
		{"__napi_poll", "napi_struct.poll", "veth_poll", functions.PerPoll, functions.StageReceive, codeflow.Certain},
		{"bpf_xdp_redirect_map", "bpf_map_ops.map_redirect", "", functions.PerRare, functions.StageProgram,
			codeflow.Likely},
	} {
		if _, ok := k.Symbols.Lookup(want.function); !ok {
			t.Logf("no %s in this kernel", want.function)
			continue
		}
		s := site(want.function, want.calls)
		if s == nil {
			t.Errorf("%s: no site that calls %s", want.function, want.calls)
			continue
		}
		if s.Per != want.per || s.Stage != want.stage || s.Confidence != want.confidence ||
			want.target != "" && !slices.Contains(s.Targets, want.target) {
			t.Errorf("%s: %+v", want.function, *s)
		}
	}
	// Nothing is dropped: every site of every function that was decoded, by
	// a second count over the whole symbol.
	resolve := func(addr uint64) (string, bool) {
		s, off, ok := k.Symbols.Find(addr)
		return s.Name, ok && off == 0
	}
	listed := make(map[uint64]bool)
	for _, s := range inv.Sites {
		if listed[s.Addr] {
			t.Errorf("%s+%#x is listed twice", s.Function, s.Offset)
		}
		listed[s.Addr] = true
	}
	decoded, total := 0, 0
	for _, f := range inv.Functions {
		if f.Partial != "" || f.Size > kernel.MaxFunction {
			continue
		}
		b := make([]byte, f.Size)
		if err := k.Text.ReadAddr(b, f.Addr); err != nil {
			t.Fatal(err)
		}
		decoded++
		sites, _ := branch.Sites(b, f.Addr, resolve, nil)
		for _, s := range sites {
			total++
			if !listed[f.Addr+s.Offset] && !strings.HasPrefix(f.Name, "bpf_") {
				t.Errorf("%s+%#x is not listed", f.Name, s.Offset)
			}
		}
	}
	for _, s := range inv.Sites {
		if (s.Pointer == "") != (s.Confidence == codeflow.Unknown) || s.Per == "" || s.Stage == "" || len(s.Via) == 0 {
			t.Errorf("incomplete: %+v", s)
		}
	}
	t.Logf("%d functions, %d of them whole with %d sites; %d sites listed",
		len(inv.Functions), decoded, total, len(inv.Sites))
	again := walkVeth(t, k, lab, ifindex)
	// Others may load programs between the two walks, which the dispatcher shows.
	for _, i := range []*Inventory{inv, again} {
		i.Functions = slices.DeleteFunc(i.Functions, func(f Function) bool {
			return f.Stage == functions.StageProgram && (strings.HasPrefix(f.Name, "0x") ||
				strings.HasPrefix(f.Name, "bpf_dispatcher_") || strings.HasPrefix(f.Name, "bpf_prog_"))
		})
		dispatcher := func(name string) bool { return strings.HasPrefix(name, "bpf_dispatcher_") }
		i.Sites = slices.DeleteFunc(i.Sites, func(s Site) bool {
			return dispatcher(s.Function) || slices.ContainsFunc(s.Via, dispatcher)
		})
		i.Returns = nil
	}
	if diff := cmp.Diff(inv, again, cmpopts.IgnoreUnexported(Root{})); diff != "" {
		t.Errorf("a second walk differs:\n%s", diff)
	}
}

// TestRates checks how often functions run whose place on the path is known.
func TestRates(t *testing.T) {
	k, lab, ifindex := veth(t)
	inv := walkVeth(t, k, lab, ifindex)
	per := make(map[string]functions.Per)
	for _, f := range inv.Functions {
		per[functions.Source(f.Name)] = f.Per
	}
	absent := 0
	for function, want := range map[string]functions.Per{
		"veth_poll": functions.PerPoll, "veth_xdp_rcv": functions.PerPoll,
		"veth_xdp_rcv_one": functions.PerPacket, "napi_complete_done": functions.PerPoll,
		"xdp_do_redirect": functions.PerPacket, "xdp_do_flush": functions.PerPoll,
		"bq_xmit_all": functions.PerBulk, "veth_ndo_xdp_xmit": functions.PerBulk,
		"xdp_return_frame": functions.PerPacket, "__warn_printk": functions.PerRare, "_printk": functions.PerRare,
	} {
		got, ok := per[function]
		switch {
		case !ok:
			absent++
		case got != want:
			t.Errorf("%s runs per %s, want %s", function, got, want)
		}
	}
	if absent > 3 { // kernels differ in what they inline
		t.Errorf("%d functions are not on the path", absent)
	}
}

func TestDriverRoots(t *testing.T) {
	k := live(t)
	if _, ok := k.Symbols.Lookup("veth_poll"); !ok {
		testutil.Missing(t, "veth")
	}
	roots, err := DriverRoots(k, "veth")
	if err != nil {
		t.Fatal(err)
	}
	for function, stage := range map[string]functions.Stage{"veth_poll": functions.StageReceive,
		"veth_ndo_xdp_xmit": functions.StageTransmit} {
		i := slices.IndexFunc(roots, func(r Root) bool { return r.Function == function })
		if i < 0 || roots[i].Stage != stage {
			t.Errorf("%s is no root of stage %s", function, stage)
			continue
		}
		t.Log(roots[i].Function, roots[i].Why)
	}
	if _, err := DriverRoots(k, "nosuchdriver"); err == nil {
		t.Error("roots of a driver that is not there")
	}
}

// TestVirtioNet follows a driver that is there without a device of its.
func TestVirtioNet(t *testing.T) {
	k := live(t)
	s, ok := k.Symbols.Lookup("virtnet_poll")
	if !ok || s.Module != "" {
		testutil.Missing(t, "virtio_net built into the kernel")
	}
	roots, err := DriverRoots(k, "virtio_net")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := Walk(context.Background(), k, roots)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ function, calls string }{
		{"virtqueue_map_page_attrs", "virtio_map_ops.map_page"},
		{"virtqueue_notify", "vring_virtqueue.notify"},
	} {
		if _, ok := k.Symbols.Lookup(want.function); !ok {
			continue
		}
		if !slices.ContainsFunc(inv.Sites, func(s Site) bool {
			return s.Function == want.function && strings.HasSuffix(s.Pointer, want.calls)
		}) {
			t.Errorf("%s: no site that calls %s", want.function, want.calls)
		}
	}
	i := slices.IndexFunc(inv.Functions, func(f Function) bool { return f.Name == "virtnet_poll_tx" })
	if i < 0 || inv.Functions[i].Stage != functions.StageCompletion {
		t.Error("virtnet_poll_tx is not of the completion stage")
	}
}

func BenchmarkVeth(b *testing.B) {
	k, lab, ifindex := veth(b)
	b.ReportAllocs()
	for b.Loop() {
		walkVeth(b, k, lab, ifindex)
	}
}

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func table(t testing.TB, symbols []ksym.Symbol) *ksym.Table {
	t.Helper()
	table, err := ksym.New(symbols)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestMain(m *testing.M) {
	if guest.First() { // of what TestLiveTotals boots
		guest.Init()
	}
	testutil.NoLeaks(m)
}

const base = 0xffffffff81000000

// made is a kernel of one page of code.
func made(t testing.TB, code []byte, symbols ...ksym.Symbol) *Kernel {
	page := make([]byte, 4096)
	copy(page, code)
	return New(ktext.Bytes{Addr: base, Code: page}, table(t, symbols), nil)
}

func TestFunction(t *testing.T) {
	k := made(t, nil,
		ksym.Symbol{Addr: base, Type: 't', Name: "plain"},
		ksym.Symbol{Addr: base + 16, Type: 't', Name: "plain.part.0"},
		ksym.Symbol{Addr: base + 32, Type: 't', Name: "split.constprop.0.isra.0"},
		ksym.Symbol{Addr: base + 48, Type: 't', Name: "cold.cold"},
		ksym.Symbol{Addr: base + 64, Type: 'd', Name: "data"},
	)
	for name, want := range map[string]string{
		"plain": "plain", "plain.part.0": "plain.part.0", "split": "split.constprop.0.isra.0", "cold": "", "data": "", "nothing": "",
	} {
		if f, ok := k.Function(name); f.Name != want || ok != (want != "") {
			t.Errorf("%s: found %q, %v; want %q", name, f.Name, ok, want)
		}
	}
	var names []string
	for _, f := range k.Functions("plain") {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"plain", "plain.part.0"}, names); diff != "" {
		t.Error(diff)
	}
}

// An indirect branch that goes to a preamble of FineIBT enters the function behind it, also where clang put
// more in front of the function than the preamble has.
func TestEntered(t *testing.T) {
	const preamble = "\xf3\x0f\x1e\xfa\x2d\x78\x56\x34\x12\x2e\x0f\x85\x03\x00\x00\x00"
	page := make([]byte, 4096)
	copy(page[0x10:], preamble)
	copy(page[0xb0:], preamble)
	copy(page[0xd0:], "\xb8\x78\x56\x34\x12")
	k := made(t, page,
		ksym.Symbol{Addr: base + 0x10, Type: 't', Name: "__cfi_near"}, ksym.Symbol{Addr: base + 0x20, Type: 't', Name: "near"},
		ksym.Symbol{Addr: base + 0x80, Type: 't', Name: "__cfi_far"}, ksym.Symbol{Addr: base + 0xc0, Type: 't', Name: "far"},
		ksym.Symbol{Addr: base + 0xd0, Type: 't', Name: "__cfi_kcfi"}, ksym.Symbol{Addr: base + 0xe0, Type: 't', Name: "kcfi"},
		ksym.Symbol{Addr: base + 0xf0, Type: 'd', Name: "data"}, ksym.Symbol{Addr: base + 0x100, Type: 't', Name: "end"},
	)
	for offset, want := range map[uint64]string{
		0x10: "near", 0x20: "near", 0xb0: "far", 0xc0: "far", 0xe0: "kcfi", 0x24: "", 0x18: "", 0xf0: "", 0x8: "",
	} {
		f, ok := k.Entered(base + offset)
		if p, preamble := k.Preamble(base + offset); preamble != (offset == 0x20 || offset == 0xc0) || preamble && p.Instructions != 3 {
			t.Errorf("%#x: preamble %+v, %v", offset, p, preamble)
		}
		if ok != (want != "") || ok && f.Name != want {
			t.Errorf("%#x: %q, %v, want %q", offset, f.Name, ok, want)
		}
	}
}

// What a live kernel lacks is told from what could not be read.
func TestTypesOfLive(t *testing.T) {
	denied := errors.New("permission denied")
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, "BTF"},
		{fmt.Errorf("no BTF found: %w", btf.ErrNotSupported), "BTF"},
		{denied, "read types of the running kernel: permission denied"},
	} {
		k := &Kernel{Live: true, types: func() (*btf.Spec, error) { return nil, test.err }}
		_, err := k.Types()
		missing := feature.AsMissing(err)
		if err == nil || (missing != nil) != (test.want == "BTF") || missing == nil && err.Error() != test.want {
			t.Errorf("%v: %v, want %s", test.err, err, test.want)
		}
	}
}

func TestCode(t *testing.T) {
	// Zeroes of the page decode too: "add %al, (%rax)".
	ret, traps := []byte{0x31, 0xc0, 0xc3}, []byte{0xcc, 0xcc, 0xcc, 0xcc}
	// mov $0xcccccccc, %eax
	immediate := []byte{0xb8, 0xcc, 0xcc, 0xcc, 0xcc}
	for _, test := range []struct {
		name string
		code []byte
		f    ksym.Symbol
		want []byte
	}{
		{"function", ret, ksym.Symbol{Addr: base, Size: 3}, ret},
		{"function with traps", traps, ksym.Symbol{Addr: base, Size: 4}, traps},
		{"no size", nil, ksym.Symbol{Addr: base + 4000}, make([]byte, 96)},
		{"program", append(bytes.Clone(ret), traps...), ksym.Symbol{Addr: base, Size: 64, Module: program}, ret},
		{"traps in an operand", append(bytes.Clone(immediate), traps...), ksym.Symbol{Addr: base, Module: program}, immediate},
	} {
		got, err := made(t, test.code).Code(test.f)
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: %x, %v; want %x", test.name, got, err, test.want)
		}
	}
	if _, err := made(t, nil).Code(ksym.Symbol{Addr: base, Size: 8192, Name: "f"}); err == nil {
		t.Error("code behind the page was read")
	}
}

// Code of arm64 is read as such: the end of a program, branches, lines and totals.
func TestARM64(t *testing.T) {
	var code []byte
	for _, w := range []uint32{0xd503245f, 0xd63f0100, 0xd65f03c0, 0xd4202000, 0xd4202000, 0xd4202000, 0xd4202000} {
		code = binary.LittleEndian.AppendUint32(code, w) // bti c; blr x8; ret; brk
	}
	symbols := table(t, []ksym.Symbol{{Addr: base, Type: 'T', Name: "_stext"}, {Addr: base, Type: 't', Name: "f"},
		{Addr: base + uint64(len(code)), Type: 'T', Name: "_etext"}})
	k := New(ktext.Bytes{Addr: base, Code: append(code, make([]byte, 64)...)}, symbols, nil)
	k.Arch = "arm64"
	if got, err := k.Code(ksym.Symbol{Addr: base, Size: 32, Module: program}); err != nil || !bytes.Equal(got, code[:12]) {
		t.Errorf("program %x, %v", got, err)
	}
	var branches []branch.Class
	for b := range k.Branches(code, base) {
		branches = append(branches, b.Class)
	}
	if want := []branch.Class{branch.ClassRegister, branch.ClassReturn}; !slices.Equal(branches, want) {
		t.Errorf("branches %v", branches)
	}
	var lines []string
	for l := range k.Annotated(code[:12], base) {
		lines = append(lines, l.Text)
	}
	if want := []string{"bti c", "blr x8", "ret"}; !slices.Equal(lines, want) {
		t.Errorf("lines %q", lines)
	}
	totals, err := k.Totals(t.Context())
	if err != nil || totals.Branches[branch.ClassRegister] != 1 || totals.Branches[branch.ClassReturn] != 1 || len(totals.Branches) != 2 {
		t.Errorf("totals %+v, %v", totals, err)
	}
}

// The distance to the next symbol may be long, and memory behind a function unread.
func TestLimits(t *testing.T) {
	long := make([]byte, maxProgram+1)
	k := New(ktext.Bytes{Addr: base, Code: long}, new(ksym.Table), nil)
	for module, want := range map[string]int{"": MaxFunction, "veth": MaxFunction, program: maxProgram} {
		code, err := k.Code(ksym.Symbol{Addr: base, Size: uint64(len(long)), Module: module})
		if err != nil || len(code) != want {
			t.Errorf("module %q: %d bytes, %v; want %d", module, len(code), err, want)
		}
	}
	// The last function of a module ends with what is mapped.
	k = New(ktext.Bytes{Addr: base, Code: long[:2*4096]}, new(ksym.Table), nil)
	for addr, want := range map[uint64]int{base + 0x10: 2*4096 - 0x10, base + 0x1ff0: 0x10, base + 0x2000: 0} {
		code, err := k.Code(ksym.Symbol{Addr: addr, Size: 3 * 4096, Module: "veth"})
		if len(code) != want || (err == nil) != (want > 0) {
			t.Errorf("%#x: %d bytes, %v; want %d", addr, len(code), err, want)
		}
	}
	k = New(ktext.Bytes{Addr: base, Code: long}, table(t, []ksym.Symbol{
		{Addr: base, Type: 'T', Name: "_stext"}, {Addr: base + maxText + 1, Type: 'T', Name: "_etext"},
	}), nil)
	if code, _, err := k.AllText(); err == nil {
		t.Errorf("%d bytes of text", len(code))
	}
}

func TestJited(t *testing.T) {
	want := []ksym.Symbol{
		{Addr: 0x1000, Size: 16, Type: 't', Name: "program", Module: program},
		{Addr: 0x2000, Size: 32, Type: 't', Name: "program's function 1", Module: program},
	}
	if diff := cmp.Diff(want, jited([]uintptr{0x1000, 0x2000}, []uint32{16, 32})); diff != "" {
		t.Error(diff)
	}
	for _, test := range []struct {
		name  string
		addrs []uintptr
		lens  []uint32
	}{
		{"no answer", nil, nil},
		{"interpreted", []uintptr{0x1000}, []uint32{0}},
		{"hidden", []uintptr{0}, []uint32{16}},
		{"lengths missing", []uintptr{0x1000}, nil},
	} {
		if got := jited(test.addrs, test.lens); got != nil {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestOpenLive(t *testing.T) {
	testutil.Root(t)
	k, err := OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	few, err := OpenNamed(func(name, _ []byte) bool { return string(name) == "xdp_do_redirect" })
	if err != nil {
		t.Fatal(err)
	}
	defer few.Close()
	f, ok := k.Function("xdp_do_redirect")
	if g, ok2 := few.Function("xdp_do_redirect"); !ok || !ok2 || f != g || f.Size == 0 {
		t.Errorf("%+v, %+v", f, g)
	}
	one, err := k.Code(f)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := few.Code(f); err != nil || !bytes.Equal(one, two) {
		t.Errorf("%d and %d bytes, %v", len(one), len(two), err)
	}
	if text, addr, err := k.AllText(); err != nil || addr > f.Addr || addr+uint64(len(text)) < f.Addr {
		t.Errorf("%d bytes at %#x, %v", len(text), addr, err)
	}
}

func TestOpenTree(t *testing.T) {
	dir := guesttest.Kernel(t, "6.1")
	for driver, module := range map[string]string{"": "", "virtio-net": "virtio_net", "no_such": ""} {
		k, err := OpenTree(t.Context(), dir, driver)
		if err != nil {
			t.Fatal(err)
		}
		if types, err := k.Types(); err != nil || types == nil {
			t.Errorf("%q: types %v, %v", driver, types, err)
		}
		if _, ok := k.Function("xdp_do_redirect"); !ok || k.Live || k.Release == "" {
			t.Errorf("%q: %v", driver, k)
		}
		if f, ok := k.Function("virtnet_poll"); ok != (module != "") || f.Module != module {
			t.Errorf("%q: %+v", driver, f)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{t.TempDir(), "no such folder"} {
		if _, err := OpenTree(t.Context(), dir, ""); err == nil {
			t.Errorf("a kernel in %s", dir)
		}
	}
}

package ksym

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
)

const sample = `ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff8154bbe0 t __pfx_bq_xmit_all
ffffffff8154bbf0 t bq_xmit_all
ffffffff8154bd80 t bq_enqueue
ffffffff82204bc0 T __pi___x86_indirect_thunk_rax
ffffffff82204bc0 T __x86_indirect_thunk_array
ffffffff82204bc0 T __x86_indirect_thunk_rax
ffffffff82204be0 T __x86_indirect_thunk_rcx
ffffffff83000000 D jiffies
ffffffff83000008 D same
ffffffff83000010 T end
ffffffffc0204000 t same	[veth]
ffffffffc0203000 t veth_poll	[veth]
ffffffffc0300000 t mlx5e_napi_poll	[mlx5_core]
ffffffffc0400000 t bpf_prog_6deef7357e7b4530_sd_fw_egress	[bpf]
`

func TestTable(t *testing.T) {
	table, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 16 {
		t.Errorf("%d symbols", table.Len())
	}
	for _, tt := range []struct {
		name string
		want Symbol
	}{
		{"bq_xmit_all", Symbol{0xffffffff8154bbf0, 0x190, 't', "bq_xmit_all", ""}},
		{"__pfx_bq_xmit_all", Symbol{0xffffffff8154bbe0, 0x10, 't', "__pfx_bq_xmit_all", ""}},
		{"__pi___x86_indirect_thunk_rax", Symbol{0xffffffff82204bc0, 0x20, 'T', "__pi___x86_indirect_thunk_rax", ""}},
		{"same", Symbol{0xffffffffc0204000, 0, 't', "same", "veth"}},
		{"veth_poll", Symbol{0xffffffffc0203000, 0x1000, 't', "veth_poll", "veth"}},
		{"mlx5e_napi_poll", Symbol{0xffffffffc0300000, 0, 't', "mlx5e_napi_poll", "mlx5_core"}},
		{"end", Symbol{0xffffffff83000010, 0, 'T', "end", ""}},
	} {
		got, ok := table.Lookup(tt.name)
		if diff := cmp.Diff(tt.want, got); !ok || diff != "" {
			t.Errorf("%s: %v %s", tt.name, ok, diff)
		}
	}
	if _, ok := table.Lookup("nothing"); ok {
		t.Error("found nothing")
	}
	if got := table.All("same"); len(got) != 2 || got[0].Type != 'D' || got[1].Module != "veth" {
		t.Errorf("all: %v", got)
	}
	if got := table.At(0xffffffff82204bc0); len(got) != 3 || got[0].Name != "__pi___x86_indirect_thunk_rax" {
		t.Errorf("aliases: %v", got)
	}
	for _, tt := range []struct {
		addr uint64
		name string
		off  uint64
	}{
		{0xffffffff80ffffff, "", 0},
		{0xffffffff81000001, "_text", 1},
		{0xffffffff82204bc6, "__x86_indirect_thunk_rax", 6},
		{0xffffffff8154bd7f, "bq_xmit_all", 0x18f},
		{0xffffffffc0204fff, "same", 0xfff},
		{0xffffffffc0205000, "", 0},
		{^uint64(0), "", 0},
	} {
		got, off, ok := table.Find(tt.addr)
		if got.Name != tt.name || off != tt.off || ok != (tt.name != "") {
			t.Errorf("find %#x: %q+%#x %v", tt.addr, got.Name, off, ok)
		}
	}
}

// Names of all lengths keep their letters, and symbols that share one are all found.
func TestTableNames(t *testing.T) {
	var syms []Symbol
	for _, n := range []int{0, 1, 127, 128, 129, 511, 16383, 16384, 70000} {
		syms = append(syms, Symbol{Addr: uint64(n), Size: 1, Type: 't', Name: strings.Repeat("x", n), Module: "m"})
	}
	for n := range 5000 {
		syms = append(syms, Symbol{Addr: uint64(1e6 + n), Size: 1, Type: 'd', Name: strconv.Itoa(n % 2500)})
	}
	table, err := New(syms)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(syms, append(table.Module("m"), table.Module("")...)); diff != "" {
		t.Fatal(diff)
	}
	for _, s := range syms {
		if got := table.All(s.Name); !slices.Contains(got, s) {
			t.Fatalf("%d letters at %d: found %d others", len(s.Name), s.Addr, len(got))
		}
	}
	if got := table.All("17"); len(got) != 2 || got[0].Addr != 1e6+17 || got[1].Addr != 1e6+2517 {
		t.Errorf("%+v", got)
	}
	if got := table.All("2500"); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestBehind(t *testing.T) {
	table, err := Parse(strings.NewReader("1000 t __cfi_f\n1010 t f\n1020 t __cfi_data\n1030 d data\n1040 t g\n1050 t __cfi_last\n"))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{0x1000: "f", 0x1008: "f", 0x1010: "", 0x1020: "", 0x1040: "", 0x1050: ""} {
		s, _, _ := table.Find(addr)
		f, ok := table.Behind(s)
		if f.Name != want && ok || ok != (want != "") {
			t.Errorf("%#x, %s: %q, %v, want %q", addr, s.Name, f.Name, ok, want)
		}
	}
}

func TestSelect(t *testing.T) {
	table, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	got, err := selectFrom(strings.NewReader(sample), func(_, _ []byte) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != table.Len() {
		t.Fatalf("%d symbols", len(got))
	}
	for _, s := range got {
		all := table.All(s.Name)
		found := false
		for _, want := range all {
			found = found || want == s
		}
		if !found {
			t.Errorf("select has %+v, parse %+v", s, all)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no address":    "hello\n",
		"empty line":    "\n",
		"long address":  "0ffffffff81000000 T a\n",
		"capitals":      "FFFFFFFF81000000 T a\n",
		"no type":       "ffffffff81000000\n",
		"no name":       "ffffffff81000000 T \n",
		"two names":     "ffffffff81000000 T a b\n",
		"open bracket":  "ffffffff81000000 T a\t[veth\n",
		"no brackets":   "ffffffff81000000 T a\tveth\n",
		"long line":     "ffffffff81000000 T " + strings.Repeat("a", 1024) + "\n",
		"endless line":  "ffffffff81000000 T " + strings.Repeat("a", 100<<10),
		"a binary file": "\x7fELF\x00\x00 \x00 \x00",
	} {
		if _, err := Parse(strings.NewReader(in)); err == nil || feature.AsMissing(err) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseHidden(t *testing.T) {
	for _, in := range []string{"", "0000000000000000 T _text\n0000000000000000 t a\t[m]\n"} {
		if _, err := Parse(strings.NewReader(in)); feature.AsMissing(err) == nil {
			t.Errorf("%q: %v", in, err)
		}
		if _, err := selectFrom(strings.NewReader(in), func(_, _ []byte) bool { return true }); feature.AsMissing(err) == nil {
			t.Errorf("select %q: %v", in, err)
		}
	}
	// Symbols of per-CPU data do have the address 0.
	if _, err := Parse(strings.NewReader("0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text")); err != nil {
		t.Error(err)
	}
}

type brokenReader struct{}

var errBroken = errors.New("broken")

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func TestScanReadError(t *testing.T) {
	n := 0
	for _, err := range scan(io.MultiReader(strings.NewReader("ffffffff81000000 T a\n"), brokenReader{})) {
		n++
		if n == 2 && !errors.Is(err, errBroken) {
			t.Errorf("error %v", err)
		}
	}
	if n != 2 {
		t.Errorf("%d steps", n)
	}
}

func TestLive(t *testing.T) {
	if _, err := os.Stat(path); err != nil {
		testutil.Missing(t, path)
	}
	table, err := Live()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := table.Lookup("xdp_do_redirect")
	if !ok || s.Size == 0 {
		t.Errorf("xdp_do_redirect: %+v %v", s, ok)
	}
	found, off, ok := table.Find(s.Addr + 1)
	if !ok || found.Name != "xdp_do_redirect" || off != 1 {
		t.Errorf("find: %+v %d %v", found, off, ok)
	}
	picked, err := Select(func(name, _ []byte) bool { return string(name) == "xdp_do_redirect" })
	if err != nil || len(picked) != 1 || picked[0] != s {
		t.Errorf("select: %v %v, want %v", picked, err, s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("0000000000000000 T _text\n"))
	f.Add([]byte("ffffffff81000000 T a\t[m]"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var table *Table
		var err error
		testutil.Allocates(t, 1<<20+64*uint64(len(in)), func() { table, err = Parse(bytes.NewReader(in)) })
		if err != nil {
			return
		}
		n := 0
		for s, err := range scan(strings.NewReader(string(in))) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if len(table.All(string(s.name))) == 0 {
				t.Fatalf("%q is lost", s.name)
			}
			found, off, ok := table.Find(s.addr)
			if !ok || off != 0 || found.Addr != s.addr {
				t.Fatalf("%q at %#x found as %+v+%d", s.name, s.addr, found, off)
			}
		}
		if n != table.Len() {
			t.Fatalf("%d of %d symbols", table.Len(), n)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.SetBytes(int64(len(sample)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(strings.NewReader(sample)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestModules(t *testing.T) {
	table, err := Parse(strings.NewReader("ffffffff81000000 T a\nffffffffc0000000 t v\t[veth]\nffffffffc0001000 t p\t[bpf]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Modules(); !slices.Equal(got, []string{"veth", "bpf"}) {
		t.Errorf("%q", got)
	}
	if got := new(Table).Modules(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Symbols by which modules of arm64 tell code from data name nothing.
func TestMapping(t *testing.T) {
	const lines = "ffff800079c00000 t $x\t[veth]\nffff800079c00000 t veth_poll\t[veth]\nffff800079c00100 d $d.12\t[veth]\n" +
		"ffff800079c00200 t $xs\t[veth]\nffff800079c00300 t veth_open\t[veth]\n"
	parsed, err := Parse(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	made, err := New([]Symbol{
		{Addr: 0xffff800079c00000, Type: 't', Name: "$x"}, {Addr: 0xffff800079c00000, Type: 't', Name: "veth_poll"},
		{Addr: 0xffff800079c00100, Type: 'd', Name: "$d.12"}, {Addr: 0xffff800079c00200, Type: 't', Name: "$xs"},
		{Addr: 0xffff800079c00300, Type: 't', Name: "veth_open"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{parsed, made} {
		for addr, want := range map[uint64]string{0xffff800079c00000: "veth_poll", 0xffff800079c00200: "$xs", 0xffff800079c00300: "veth_open"} {
			if s, _, ok := table.Find(addr); !ok || s.Name != want {
				t.Errorf("%#x is %q, want %q", addr, s.Name, want)
			}
		}
		if table.Len() != 3 {
			t.Errorf("%d symbols", table.Len())
		}
	}
}

// A table takes the memory that it has in the end, and nothing beside it while it is made of symbols that come one by one.
func TestOfMemory(t *testing.T) {
	const count = 100_000
	symbols := func(yield func(Symbol, []byte) bool) {
		var name []byte
		for n := range count {
			name = strconv.AppendInt(append(name[:0], "function_with_a_long_name_of_60_bytes__________________"...), int64(10_000+n), 10)
			if !yield(Symbol{Addr: uint64(n), Size: 1, Type: 't'}, name) {
				return
			}
		}
	}
	var table *Table
	var err error
	const want = count * (24 + 62)
	testutil.Allocates(t, want+want/16, func() { table, err = Of(symbols) })
	if err != nil || table.Len() != count {
		t.Fatalf("%d symbols, %v", table.Len(), err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if got, ok := table.Lookup("function_with_a_long_name_of_60_bytes__________________10777"); !ok || got.Addr != 777 {
		t.Errorf("%+v", got)
	}
	runtime.ReadMemStats(&after)
	if all := want + int(after.TotalAlloc-before.TotalAlloc); table.Memory() < all || table.Memory() > 2*all {
		t.Errorf("%d bytes, said are %d", all, table.Memory())
	}
}

// With leaves out modules, and keeps the rest of both.
func TestTableWith(t *testing.T) {
	table, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	kernel := table.Module("")
	module := []Symbol{{0xffffffff90000000, 8, 't', "same", "more"}, {0xffffffff80000000, 8, 't', "same", "more"}}
	if table, err = table.With(module); err != nil {
		t.Fatal(err)
	}
	if got := table.Module(""); !cmp.Equal(got, kernel) || table.Len() != len(kernel)+2 {
		t.Errorf("%d symbols, of the kernel %+v", table.Len(), got)
	}
	if got := table.All("same"); len(got) != 3 || got[0] != module[1] || got[1].Module != "" || got[2] != module[0] {
		t.Errorf("%+v", got)
	}
}

package xdppath

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// base is where the functions of the tests begin, 4 KiB apart.
const base uint64 = 0xffffffff81000000

// function is code in pieces: strings of bytes, and direct branches to other
// functions by name.
type function struct {
	name string
	asm  []any // string, callTo or jumpTo
}

type (
	callTo string // call
	jumpTo string // jmp
)

// image assembles functions.
func image(t testing.TB, functions []function) *kernel.Kernel {
	t.Helper()
	addr := make(map[string]uint64)
	var syms strings.Builder
	for i, f := range functions {
		addr[f.name] = base + uint64(i)<<12
		fmt.Fprintf(&syms, "%x t %s\n", addr[f.name], f.name)
	}
	fmt.Fprintf(&syms, "%x t end\n", base+uint64(len(functions))<<12)
	code := bytes.Repeat([]byte{0xcc}, len(functions)<<12)
	for i, f := range functions {
		var b []byte
		rel := func(op byte, to string) {
			if addr[to] == 0 {
				t.Fatalf("no function %s", to)
			}
			b = append(b, op)
			next := base + uint64(i)<<12 + uint64(len(b)) + 4
			b = binary.LittleEndian.AppendUint32(b, uint32(addr[to]-next))
		}
		for _, a := range f.asm {
			switch a := a.(type) {
			case string:
				b = append(b, a...)
			case callTo:
				rel(0xe8, string(a))
			case jumpTo:
				rel(0xe9, string(a))
			}
		}
		copy(code[i<<12:], b)
	}
	table, err := ksym.Parse(strings.NewReader(syms.String()))
	if err != nil {
		t.Fatal(err)
	}
	return kernel.New(ktext.Bytes{Addr: base, Code: code}, table, testTypes(t))
}

// testTypes are a net_device whose netdev_ops are at 8 and ndo_xdp_xmit at
// 16 of those; a list of them; and prototypes.
func testTypes(t testing.TB) *btf.Spec {
	t.Helper()
	fn := &btf.Pointer{Target: &btf.FuncProto{Return: &btf.Void{}}}
	u64 := &btf.Int{Name: "u64", Size: 8}
	ops := &btf.Struct{Name: "net_device_ops", Size: 24, Members: []btf.Member{
		{Name: "ndo_open", Type: fn}, {Name: "ndo_stop", Type: fn, Offset: 64}, {Name: "ndo_xdp_xmit", Type: fn, Offset: 128},
	}}
	dev := &btf.Struct{Name: "net_device", Size: 32}
	dev.Members = []btf.Member{
		{Name: "flags", Type: u64},
		{Name: "netdev_ops", Type: &btf.Pointer{Target: &btf.Const{Type: ops}}, Offset: 64},
		{Name: "next", Type: &btf.Pointer{Target: dev}, Offset: 128},
		{Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "number", Type: u64}, {Name: "run", Type: fn}}}, Offset: 192},
	}
	p := func(typ btf.Type) btf.Type { return &btf.Pointer{Target: typ} }
	takes := func(name string, ret btf.Type, params ...btf.FuncParam) btf.Type {
		return &btf.Func{Name: name, Type: &btf.FuncProto{Return: ret, Params: params}, Linkage: btf.StaticFunc}
	}
	d := btf.FuncParam{Name: "dev", Type: p(dev)}
	b, err := btf.NewBuilder([]btf.Type{
		takes("f", &btf.Void{}, d),
		takes("driver_poll", &btf.Void{}, d),
		takes("get", p(dev)),
		takes("fill", &btf.Void{}, btf.FuncParam{Name: "to", Type: p(dev)}),
		takes("g", &btf.Void{}),
		takes("h", &btf.Void{}, btf.FuncParam{Name: "fn", Type: fn}),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

const (
	xmit   = "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit"
	load   = "\x48\x8b\x40\x08" // mov 8(%rax),%rax
	called = "\xff\x50\x10"     // call *0x10(%rax)
	ret    = "\xc3"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name       string
		f          []any
		pointer    string
		confidence codeflow.Confidence
	}{
		{"argument", []any{"\x48\x89\xf8", load, called, ret}, xmit, codeflow.Certain}, // mov %rdi,%rax
		{"two loads", []any{"\x48\x8b\x47\x08", "\x48\x8b\x40\x10", "\xff\xd0", ret}, xmit, codeflow.Certain},
		{"spill", []any{
			"\x48\x83\xec\x18",     // sub $0x18,%rsp
			"\x48\x89\x7c\x24\x08", // mov %rdi,8(%rsp)
			callTo("g"),
			"\x48\x8b\x44\x24\x08", // mov 8(%rsp),%rax
			load, called, "\x48\x83\xc4\x18", ret,
		}, xmit, codeflow.Certain},
		{"spill to an aligned stack", []any{
			"\x55\x48\x89\xe5",     // push %rbp; mov %rsp,%rbp
			"\x48\x83\xe4\xc0",     // and $-64,%rsp
			"\x48\x83\xec\x40",     // sub $0x40,%rsp
			"\x48\x89\x7c\x24\x08", // mov %rdi,8(%rsp)
			callTo("g"),
			"\x48\x8b\x44\x24\x08", load, called, "\xc9", ret,
		}, xmit, codeflow.Certain},
		{"callee-saved", []any{
			"\x53\x48\x89\xfb", callTo("g"), "\x48\x89\xd8", load, called, "\x5b", ret,
		}, xmit, codeflow.Certain},
		{"push and pop", []any{"\x57", callTo("g"), "\x58", load, called, ret}, xmit, codeflow.Certain},
		{"clobbered", []any{callTo("g"), "\x48\x89\xf8", load, called, ret}, "", codeflow.Unknown},
		{"overwritten spill", []any{
			"\x48\x83\xec\x18", "\x48\x89\x7c\x24\x08",
			"\xc7\x44\x24\x0c\x01\x00\x00\x00", // movl $1,0xc(%rsp)
			"\x48\x8b\x44\x24\x08", load, called, ret,
		}, "", codeflow.Unknown},
		{"spill given away", []any{
			"\x48\x83\xec\x28", "\x48\x89\x7c\x24\x08",
			"\x48\x8d\x3c\x24", // lea (%rsp),%rdi
			callTo("fill"),
			"\x48\x8b\x44\x24\x08", load, called, ret,
		}, "", codeflow.Unknown},
		{"returned", []any{callTo("get"), load, called, ret}, xmit, codeflow.Certain},
		{"both ways", []any{
			"\x48\x85\xff",         // test %rdi,%rdi
			"\x74\x06",             // je 1f
			"\x48\x89\xf8\x0f\x1f", // mov %rdi,%rax; nopl (%rax)
			"\x00",
			"\x48\x89\xf8", // 1: mov %rdi,%rax
			load, called, ret,
		}, xmit, codeflow.Certain},
		{"list", []any{
			"\x48\x8b\x47\x08", // 0: mov 8(%rdi),%rax
			"\x53\x48\x89\xfb", // push %rbx; mov %rdi,%rbx
			called,
			"\x48\x8b\x7b\x10", // mov 0x10(%rbx),%rdi
			"\x5b\xeb\xee",     // pop %rbx; jmp 0b
		}, xmit, codeflow.Certain},
		{"union", []any{"\xff\x57\x18", ret}, "net_device.run", codeflow.Certain},
		// mov 8(%rdi,%rsi,8),%rax
		{"index", []any{"\x48\x8b\x44\xf7\x08", called, ret}, xmit, codeflow.Likely},
		{"no pointer", []any{"\x48\x8b\x07", "\xff\xd0", ret}, "", codeflow.Unknown},
		{"constant", []any{"\x48\xc7\xc0\x00\x10\x00\x81", "\xff\xd0", ret}, "g", codeflow.Certain}, // mov $g,%rax
		{"thunk", []any{
			"\x48\x8b\x47\x08", "\x48\x8b\x40\x10", callTo("__x86_indirect_thunk_rax"), ret,
		}, xmit, codeflow.Certain},
		{"tail call", []any{
			"\x48\x8b\x47\x08", "\x48\x8b\x40\x10", jumpTo("__x86_indirect_thunk_rax"),
		}, xmit, codeflow.Certain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := image(t, []function{
				{"f", tt.f}, {"g", []any{ret}}, {"get", []any{ret}}, {"fill", []any{ret}},
				{"__x86_indirect_thunk_rax", []any{"\xff\xe0\xcc"}},
			})
			roots := []Root{{Function: "f", Addr: base, Stage: functions.StageReceive, Per: functions.PerPacket}}
			inv, err := Walk(context.Background(), code, roots)
			if err != nil {
				t.Fatal(err)
			}
			if len(inv.Sites) != 1 {
				t.Fatalf("sites %+v", inv.Sites)
			}
			if s := inv.Sites[0]; s.Pointer != tt.pointer || s.Confidence != tt.confidence || s.Function != "f" {
				t.Errorf("%q %s, want %q %s", s.Pointer, s.Confidence, tt.pointer, tt.confidence)
			}
		})
	}
}

// The checks of CFI (see branch/cfi.go) stand between the load of a pointer and its call. What was
// known before a check is known behind it, also where the check takes the register to the preamble of
// the function, and where nothing but the jump over it leads past it.
func TestNamesBehindChecks(t *testing.T) {
	const (
		hash     = "\x78\x56\x34\x12"
		kcfi     = "\x41\xba" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
		udb      = "\x41\xba" + hash + "\x45\x03\x53\xf1\x75\x01\xa8\xd6"
		off      = "\xeb\x0c" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
		fineibt  = "\xb8" + hash + "\x4d\x8d\x5b\xf0\x0f\x1f\x44\x00\x00"
		older    = "\x41\xba" + hash + "\x49\x83\xeb\x10\x0f\x1f\x40\x00"
		paranoid = "\xb8" + hash + "\x41\x3b\x43\xf5\x2e\x4d\x8d\x5b\xf0"
		jne      = "\x75\xfd"
		call     = "\x41\xff\xd3"
		thunk    = callTo("__x86_indirect_thunk_r11")
		its      = callTo("__x86_indirect_paranoid_thunk_r11")
		padding  = 4096 - branch.PreambleLen
	)
	for _, tt := range []struct {
		name         string
		asm          []any
		check        branch.Check
		instructions int
		preamble     int
	}{
		{"kcfi", []any{kcfi, call}, branch.CheckKCFI, 4, 0},
		{"kcfi, retpoline", []any{kcfi, thunk}, branch.CheckKCFI, 7, 0},
		{"kcfi, udb", []any{udb, call}, branch.CheckKCFIUDB, 5, 0},
		{"off", []any{off, call}, branch.CheckOff, 2, 0},
		{"fineibt", []any{fineibt, call}, branch.CheckFineIBT, 4, 3},
		{"fineibt 6.2", []any{older, call}, branch.CheckFineIBT, 4, 3},
		{"fineibt, retpoline", []any{fineibt, thunk}, branch.CheckFineIBT, 7, 3},
		{"paranoid", []any{paranoid + jne, call}, branch.CheckParanoid, 5, 3},
		{"paranoid, ITS", []any{paranoid, its}, branch.CheckParanoid, 6, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asm := []any{"\x53\x48\x89\xfb", "\x48\x8b\x47\x08", "\x4c\x8b\x58\x10"} // push %rbx; mov %rdi,%rbx; to %r11
			asm = append(asm, tt.asm...)
			asm = append(asm, "\x48\x89\xd8", load, called)   // mov %rbx,%rax: the device is still known
			asm = append(asm, "\x49\xc7\xc3\x00\x20\x00\x81") // mov $g,%r11
			asm = append(append(asm, tt.asm...), "\x5b", ret)
			code := image(t, []function{
				{"f", asm},
				{"filler", []any{strings.Repeat("\xcc", padding) + "\xf3\x0f\x1e\xfa\x2d" + hash + "\x2e\x0f\x85\x03\x00\x00\x00"}},
				{"g", []any{ret}},
				{"__x86_indirect_thunk_r11", []any{"\xe8\x01\x00\x00\x00\xcc\x4c\x89\x1c\x24\xc3"}},
				{"__x86_indirect_paranoid_thunk_r11", []any{"\x75\xfd\x41\xff\xe3\xcc"}},
			})
			code.Live = true
			roots := []Root{{Function: "f", Addr: base, Stage: functions.StageReceive, Per: functions.PerPacket}}
			inv, err := Walk(context.Background(), code, roots)
			if err != nil {
				t.Fatal(err)
			}
			if len(inv.Sites) != 3 {
				t.Fatalf("sites %+v", inv.Sites)
			}
			first, second, last := inv.Sites[0], inv.Sites[1], inv.Sites[2]
			if first.Pointer != xmit || first.Confidence != codeflow.Certain || second.Pointer != xmit {
				t.Errorf("%q %s, then %q", first.Pointer, first.Confidence, second.Pointer)
			}
			if first.Check != tt.check || first.Instructions != tt.instructions || first.Register != "r11" || first.Preamble != 0 {
				t.Errorf("%+v", first)
			}
			if !slices.Equal(last.Targets, []string{"g"}) || last.Preamble != tt.preamble || !last.Always {
				t.Errorf("calls %v, preamble %d, always %v", last.Targets, last.Preamble, last.Always)
			}
		})
	}
}

func TestRatesOfLoops(t *testing.T) {
	site := "\xff\x57\x18" // call *0x18(%rdi)
	code := image(t, []function{
		{"driver_poll", []any{
			site,               // 0: per poll, always
			"\x85\xf6",         // 3: test %esi,%esi
			"\x74\x14",         // 5: je 0x1b
			callTo("f"),        // 7: loop
			"\xff\xce",         // c: dec %esi
			"\x75\xf7",         // e: jne 7
			"\x85\xd2",         // 10: test %edx,%edx
			"\x75\x0a",         // 12: jne 0x1e
			"\xff\x57\x18",     // 14: per poll, not always
			"\x0f\x1f\x40\x00", // 17: nop
			"\xff\x57\x18",     // 1b: per poll
			ret,                // 1e
			"\x0f\x0b",         // 1f: ud2: a BUG nothing leads to
			site,               // 21
			ret,
		}},
		{"f", []any{
			callTo("xdp_do_redirect"),
			"\x85\xf6",             // 5: test
			"\x74\x08",             // 7: je 0x11
			"\xb8\xea\xff\xff\xff", // 9: mov $-EINVAL,%eax
			"\xff\x57\x18",         // e: failing
			ret + "\x90\x90",       // 11
			site,
			callTo("_printk"), // rare
			ret,
		}},
		{"xdp_do_redirect", []any{site, ret}},
		{"_printk", []any{site, ret}},
	})
	roots := []Root{{Function: "driver_poll", Addr: base, Stage: functions.StageReceive, Per: functions.PerPoll}}
	inv, err := Walk(context.Background(), code, roots)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		function string
		offset   uint64
		stage    functions.Stage
		per      functions.Per
		always   bool
	}
	var got []row
	for _, s := range inv.Sites {
		got = append(got, row{s.Function, s.Offset, s.Stage, s.Per, s.Always})
	}
	want := []row{
		{"driver_poll", 0, functions.StageReceive, functions.PerPoll, true},
		{"driver_poll", 0x14, functions.StageReceive, functions.PerPoll, false},
		{"driver_poll", 0x1b, functions.StageReceive, functions.PerPoll, false},
		{"driver_poll", 0x21, functions.StageReceive, functions.PerRare, false},
		{"f", 0xe, functions.StageReceive, functions.PerPacket, false},
		{"f", 0x14, functions.StageReceive, functions.PerRare, false},
		{"xdp_do_redirect", 0, functions.StageRedirect, functions.PerPacket, false}, // a poll may find nothing
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Error(diff)
	}
	for _, f := range inv.Functions {
		if f.Name == "_printk" && (f.Partial == "" || f.Per != functions.PerRare) {
			t.Errorf("_printk: %+v", f)
		}
	}
	if diff := cmp.Diff(branch.Returns{"ret": 5}, inv.Returns); diff != "" {
		t.Error(diff)
	}
}

func TestWalkRefuses(t *testing.T) {
	code := image(t, []function{{"f", []any{ret}}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Walk(ctx, code, []Root{{Function: "f", Addr: base}}); err == nil {
		t.Error("walked after the context ended")
	}
	// Code that is not there is a partial function.
	inv, err := Walk(context.Background(), code, []Root{{Function: "nowhere", Addr: 0x1000, Per: functions.PerPoll}})
	if err != nil || len(inv.Functions) != 1 || inv.Functions[0].Partial == "" {
		t.Errorf("%+v %v", inv, err)
	}
}

// Functions that all call each other and are full of indirect branches: the walk ends at its
// limits, and says so.
func TestWalkLimits(t *testing.T) {
	const count, fill = 160, 500
	functionsOf := func(asm ...any) (out []function) {
		for i := range count {
			f := function{name: fmt.Sprintf("f%d", i)}
			for j := range fill {
				for _, a := range asm {
					if _, ok := a.(callTo); ok {
						a = callTo(fmt.Sprintf("f%d", (i*7+j)%count))
					}
					f.asm = append(f.asm, a)
				}
			}
			out = append(out, function{f.name, append(f.asm, ret)})
		}
		return out
	}
	for name, all := range map[string][]function{
		"calls": functionsOf(callTo("")), "sites": functionsOf("\xff\xd0", callTo("")),
	} {
		inv, err := Walk(t.Context(), image(t, all), []Root{{Function: "f0", Addr: base, Per: functions.PerPoll}})
		if err != nil {
			t.Fatal(err)
		}
		full := 0
		for _, f := range inv.Functions {
			if f.Partial == limits {
				full++
			}
		}
		// One function more than the limits may be read.
		if full == 0 || len(inv.Sites) > maxSites+fill {
			t.Errorf("%s: %d sites of %d functions, %d of them not read", name, len(inv.Sites), len(inv.Functions), full)
		}
	}
}

func FuzzWalk(f *testing.F) {
	table, err := ksym.Parse(strings.NewReader(fmt.Sprintf(
		"%x t f\n%x t f.cold\n%x t g\n%x t __x86_indirect_thunk_rax\n%x d data\n%x t end\n",
		base, base+0x80, base+0xc0, base+0xe0, base+0xf0, base+0x100)))
	if err != nil {
		f.Fatal(err)
	}
	types := testTypes(f)
	f.Add([]byte("\x48\x8b\x47\x08\xff\x50\x10\xc3"))
	f.Add([]byte("\x53\x48\x89\xfb\xe8\xb7\x00\x00\x00\x75\xf6\x0f\x85\x71\x00\x00\x00\xe9\xca\x00\x00\x00"))
	f.Add([]byte("\x48\x83\xec\x18\x48\x89\x7c\x24\x08\xeb\xf5\x0f\x0b\x66\x90\xff\x24\xc5\x00\x00\x00\x81"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code := make([]byte, 0x100)
		copy(code, b)
		inv, err := Walk(context.Background(), kernel.New(ktext.Bytes{Addr: base, Code: code}, table, types),
			[]Root{{Function: "f", Addr: base, Stage: functions.StageReceive, Per: functions.PerPoll}})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range inv.Sites {
			if (s.Pointer == "") != (s.Confidence == codeflow.Unknown) || s.Per == "" || s.Stage == "" {
				t.Errorf("incomplete: %+v", s)
			}
		}
	})
}

// What was walked before is a boundary, unless it is a root.
func TestWalkOn(t *testing.T) {
	k := image(t, []function{
		{"poll", []any{callTo("before"), callTo("next"), ret}},
		{"before", []any{callTo("behind"), "\x48\x89\xf8", load, called, ret}},
		{"next", []any{"\x48\x89\xf8", load, called, ret}},
		{"behind", []any{ret}},
	})
	known := map[uint64]bool{base + 1<<12: true}
	walk := func(roots ...Root) (functions, sites []string) {
		inv, err := WalkOn(t.Context(), k, roots, known)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range inv.Functions {
			functions = append(functions, f.Name+f.Partial)
		}
		slices.Sort(functions)
		for _, s := range inv.Sites {
			sites = append(sites, s.Function)
		}
		return functions, sites
	}
	poll := Root{Function: "poll", Addr: base, Stage: functions.StageReceive, Per: functions.PerPacket}
	fs, sites := walk(poll)
	want := []string{"beforenot followed: it was walked before", "next", "poll"}
	if diff := cmp.Diff(want, fs); diff != "" || len(sites) != 1 || sites[0] != "next" {
		t.Errorf("%s, %v", diff, sites)
	}
	before := Root{Function: "before", Addr: base + 1<<12, Stage: functions.StageReceive, Per: functions.PerPacket}
	if fs, sites = walk(poll, before); len(fs) != 4 || len(sites) != 2 {
		t.Errorf("%v, %v", fs, sites)
	}
}

// On arm64 a module may reach the kernel through veneers, which lie behind its last function: what they lead to is called, and they are no
// branches of that function.
func TestVeneers(t *testing.T) {
	code := make([]byte, 0x1010)
	put := func(off int, words ...uint32) {
		for i, w := range words {
			binary.LittleEndian.PutUint32(code[off+4*i:], w)
		}
	}
	put(0, 0xd503233f, 0x9400000f, 0xd50323bf, 0xd65f03c0) // paciasp; bl to the veneer; autiasp; ret
	put(0x40, 0xb0000010, 0x91000210, 0xd61f0200)          // adrp x16, 4096 on; add x16, x16, #0; br x16
	put(0x1000, 0xf9400408, 0xd63f0100, 0xd65f03c0)        // ldr x8, [x0, #8]; blr x8; ret
	table, err := ksym.New([]ksym.Symbol{{Addr: base, Type: 't', Name: "driver_poll", Module: "driver"},
		{Addr: base + 0x1000, Type: 'T', Name: "f"}, {Addr: base + 0x100c, Type: 'T', Name: "end"}})
	if err != nil {
		t.Fatal(err)
	}
	k := kernel.New(ktext.Bytes{Addr: base, Code: code}, table, testTypes(t))
	k.Arch = "arm64"
	inv, err := Walk(t.Context(), k, []Root{{Function: "driver_poll", Addr: base, Stage: functions.StageReceive, Per: functions.PerPoll}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range inv.Functions {
		got = append(got, f.Name+f.Partial)
	}
	for _, s := range inv.Sites {
		got = append(got, fmt.Sprintf("%s+%#x %s", s.Function, s.Offset, s.Per))
	}
	if diff := cmp.Diff([]string{"driver_poll", "f", "f+0x4 poll"}, got); diff != "" {
		t.Error(diff)
	}
}

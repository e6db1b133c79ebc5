package branch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The sequences of CFI, by their definitions: those of Linux 6.2 from the source of 6.12.118, those of
// 6.15 from that of 6.15, the others from that of 7.2.13, all in arch/x86/kernel/alternative.c. kCFI is
// what clang 16 makes with -fsanitize=kcfi -fpatchable-function-entry=11,11 -mretpoline, and kcfiUDB what Linux
// 7.3.4, built by clang 21, has in memory with cfi=kcfi.
const (
	hash        = "\x78\x56\x34\x12"
	kcfi        = "\x41\xba" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
	kcfiTight   = "\x41\xba" + hash + "\x45\x03\x53\xfc\x74\x02\x0f\x0b"
	kcfiUDB     = "\x41\xba" + hash + "\x45\x03\x53\xf1\x75\x01\xa8\xd6"
	kcfiOff     = "\xeb\x0c" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
	fineibt62   = "\x41\xba" + hash + "\x49\x83\xeb\x10\x0f\x1f\x40\x00"
	fineibt615  = "\x41\xba" + hash + "\x4d\x8d\x5b\xf0\x0f\x1f\x40\x00"
	fineibt72   = "\xb8" + hash + "\x4d\x8d\x5b\xf0\x0f\x1f\x44\x00\x00"
	paranoid615 = "\x41\xba" + hash + "\x45\x3b\x53\xf7\x4d\x8d\x5b\xf0"
	paranoid72  = "\xb8" + hash + "\x41\x3b\x43\xf5\x2e\x4d\x8d\x5b\xf0"

	jneBack   = "\x75\xfd"
	callR11   = "\x41\xff\xd3"
	csCallR11 = "\x2e\x2e\x2e\x41\xff\xd3"
	jmpR11    = "\x41\xff\xe3\xcc\xcc\xcc"
)

func TestChecks(t *testing.T) {
	for _, tt := range []struct {
		name, code, call string
		check            Check
		len              uint64
		instructions     int
		loads            int
	}{
		{"kCFI", kcfi, callR11, CheckKCFI, 14, 3, 1},
		{"kCFI without padding", kcfiTight, callR11, CheckKCFI, 14, 3, 1},
		{"kCFI, jump", kcfi, jmpR11, CheckKCFI, 14, 3, 1},
		{"kCFI, udb", kcfiUDB, callR11, CheckKCFIUDB, 14, 4, 1},
		{"cfi=off", kcfiOff, callR11, CheckOff, 14, 1, 0},
		{"FineIBT 6.2", fineibt62, callR11 + "\x66\x90", CheckFineIBT, 14, 3, 0},
		{"FineIBT 6.15", fineibt615, callR11, CheckFineIBT, 14, 3, 0},
		{"FineIBT 7.2", fineibt72, csCallR11, CheckFineIBT, 14, 3, 0},
		{"FineIBT 7.2, jump", fineibt72, jmpR11, CheckFineIBT, 14, 3, 0},
		{"paranoid 6.15", paranoid615 + jneBack, callR11 + "\x90", CheckParanoid, 16, 4, 1},
		{"paranoid 7.2", paranoid72 + jneBack, "\x2e\x41\xff\xd3", CheckParanoid, 16, 4, 1},
		{"paranoid 7.2, jump", paranoid72 + jneBack, jmpR11, CheckParanoid, 16, 4, 1},
		{"none", "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90", callR11, CheckNone, 0, 0, 0},
		{"one byte apart", kcfi[:13] + "\x0c", callR11, CheckNone, 0, 0, 0},
		{"another register", kcfi, "\xff\xd0", CheckNone, 0, 0, 0},
		{"cut short", kcfi[1:], callR11, CheckNone, 0, 0, 0},
	} {
		code := []byte("\x90" + tt.code + tt.call)
		if tt.name == "cut short" {
			code = code[1:]
		}
		var got []Branch
		for _, b := range Branches(code, 0xffffffff81000000, nil, nil, nil) {
			if b.Indirect() {
				got = append(got, b)
			}
		}
		if len(got) != 1 || got[0].Check != tt.check || got[0].CheckLen != tt.len {
			t.Errorf("%s: %+v", tt.name, got)
			continue
		}
		c := got[0].Check
		if c.Instructions() != tt.instructions || c.Loads() != tt.loads {
			t.Errorf("%s: %d instructions, %d loads", tt.name, c.Instructions(), c.Loads())
		}
		if c.Preamble() != (strings.HasPrefix(tt.name, "FineIBT") || strings.HasPrefix(tt.name, "paranoid")) {
			t.Errorf("%s: preamble %v", tt.name, c.Preamble())
		}
		sites, _ := Sites(code, 0xffffffff81000000, nil, nil)
		if len(sites) != 1 || sites[0].Check != tt.check || sites[0].CheckLen != tt.len || sites[0].Kind != SiteRegister {
			t.Errorf("%s: sites %+v", tt.name, sites)
		}
	}
}

// TestChecksThunk is a check in front of a call of a thunk: with its name, without one, and where
// there is nothing that reads what stands there.
func TestChecksThunk(t *testing.T) {
	const (
		base  = 0xffffffff8154bbf0
		thunk = 0xffffffffc0100061
	)
	named := func(addr uint64) (string, bool) {
		if addr == thunk {
			return "__x86_indirect_thunk_r11", true
		}
		return "", false
	}
	unnamed := func(uint64) (string, bool) { return "", false }
	its := func(addr uint64) []byte { return []byte("\x75\xfd\x41\xff\xe3\xcc") }
	for _, tt := range []struct {
		name, code, op string
		resolve        Resolver
		follow         Follow
		want           Branch
	}{
		{"kCFI", kcfi, "\x2e\xe8", named, nil, Branch{Class: ClassRetpoline, Check: CheckKCFI, Name: "__x86_indirect_thunk_r11"}},
		{"kCFI, jump", kcfi, "\x2e\xe9", named, nil,
			Branch{Class: ClassRetpoline, Jump: true, Check: CheckKCFI, Name: "__x86_indirect_thunk_r11"}},
		{"kCFI, a file without symbols", kcfi, "\x2e\xe8", nil, nil, Branch{Class: ClassRetpoline, Check: CheckKCFI}},
		{"kCFI, udb", kcfiUDB, "\x2e\xe8", named, nil,
			Branch{Class: ClassRetpoline, Check: CheckKCFIUDB, Name: "__x86_indirect_thunk_r11"}},
		{"cfi=off", kcfiOff, "\xe8", named, nil, Branch{Class: ClassRetpoline, Check: CheckOff, Name: "__x86_indirect_thunk_r11"}},
		{"FineIBT with retpolines", fineibt72, "\x2e\xe8", named, nil,
			Branch{Class: ClassRetpoline, Check: CheckFineIBT, Name: "__x86_indirect_thunk_r11"}},
		{"paranoid", paranoid72, "\x2e\xe8", unnamed, its, Branch{Class: ClassITS, Check: CheckParanoid}},
		{"paranoid 6.15", paranoid615, "\xe8", unnamed, its, Branch{Class: ClassITS, Check: CheckParanoid}},
		{"paranoid, jump", paranoid72, "\x2e\xe9", unnamed, its, Branch{Class: ClassITS, Jump: true, Check: CheckParanoid}},
		{"paranoid, nothing reads the thunk", paranoid72, "\x2e\xe8", nil, nil, Branch{Class: ClassITS, Check: CheckParanoid}},
	} {
		c := (&code{base: base}).raw(tt.code).rel(tt.op, thunk)
		tt.want.Addr, tt.want.Offset, tt.want.CheckLen = base+14, 14, 14
		tt.want.Register, tt.want.Target = "r11", thunk
		all := Branches(c.b, base, tt.resolve, nil, tt.follow)
		got := all[len(all)-1]
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if !got.Indirect() {
			t.Errorf("%s: not indirect", tt.name)
		}
	}
}

// TestCheckOffAlignment: the hash that cfi=off leaves behind its jump is no code. Read as code, this
// one is a call that swallows the check and the branch behind it.
func TestCheckOffAlignment(t *testing.T) {
	code := []byte("\xeb\x0c\x90\x90\x48\xe8" + kcfiOff[6:] + callR11 + "\xc3")
	var kinds []Kind
	for step := range Scan(code, 0) {
		kinds = append(kinds, step.Kind)
	}
	// jmp; add; je; ud2; call *%r11; ret
	if diff := cmp.Diff([]Kind{JumpDirect, Other, JumpCond, Trap, CallIndirect, Return}, kinds); diff != "" {
		t.Error(diff)
	}
	for inst := range Decode(code, 0x1000) {
		if inst.Kind == JumpDirect && (inst.Len != 6 || inst.Target != 0x100e || inst.String() != "jmp 0x100e") {
			t.Errorf("%d bytes to %#x: %s", inst.Len, inst.Target, inst)
		}
	}
	// Any other short jump has two bytes.
	for step := range Scan([]byte("\xeb\x0c\x90\x90\x48\xe8\x00\x00\x00\x00\x74\x02\x0f\x0b"), 0) {
		if step.Len != 2 {
			t.Errorf("%d bytes", step.Len)
		}
		break
	}
}

const (
	preamble62     = "\xf3\x0f\x1e\xfa\x41\x81\xea" + hash + "\x74\x03\x0f\x0b\x90"
	preamble615    = "\xf3\x0f\x1e\xfa\x41\x81\xea" + hash + "\x75\xf9\x0f\x1f\x00"
	preamble615One = "\xf3\x0f\x1e\xfa\x41\x81\xea" + hash + "\x49\x0f\x45\xfa\x75" // the function begins with f5
	preamble72     = "\xf3\x0f\x1e\xfa\x2d" + hash + "\x2e\x0f\x85\x03\x00\x00\x00"
	preamble72One  = "\xf3\x0f\x1e\xfa\x2d" + hash + "\x48\x0f\x45\xf8\x2e\x75\x03"
)

func TestPreambles(t *testing.T) {
	const (
		at   = 0xffffffff81000000
		args = 0xffffffff82000040
	)
	follow := func(addr uint64) []byte {
		if addr != args {
			return nil
		}
		// __bhi_args_2 of arch/x86/lib/bhi.S: jne; cmovne %rax,%rdi; cmovne %rax,%rsi; ret; int3
		return []byte("\x75\xee\x48\x0f\x45\xf8\x48\x0f\x45\xf0\xc3\xcc")
	}
	calls615 := string((&code{base: at}).raw(preamble615[:11]).rel("\xe8", args).b)
	calls72 := string((&code{base: at}).raw(preamble72[:9]).rel("\x2e\x2e\xe8", args).b)
	for name, tt := range map[string]struct {
		code   string
		follow Follow
		want   Preamble
	}{
		"6.2":                   {preamble62, nil, Preamble{false, 3}},
		"6.15":                  {preamble615, nil, Preamble{false, 4}},
		"6.15, one argument":    {preamble615One, nil, Preamble{true, 4}},
		"6.15, two arguments":   {calls615, follow, Preamble{true, 7}},
		"7.2":                   {preamble72, nil, Preamble{false, 3}},
		"7.2, one argument":     {preamble72One, nil, Preamble{true, 4}},
		"7.2, two arguments":    {calls72, follow, Preamble{true, 7}},
		"7.2, two, not read":    {calls72, nil, Preamble{Poisons: true}},
		"7.2, calls other code": {calls72, func(uint64) []byte { return []byte("\x55\xc3") }, Preamble{Poisons: true}},
	} {
		got, ok := NamePreamble([]byte(tt.code), at, tt.follow)
		if !ok || got != tt.want || len(tt.code) != PreambleLen {
			t.Errorf("%s: %+v, %v, of %d bytes", name, got, ok, len(tt.code))
		}
		if to := Landing([]byte(tt.code), at); to != at+PreambleLen {
			t.Errorf("%s: lands at %#x", name, to)
		}
	}
	for name, code := range map[string]string{
		"a function":      "\xf3\x0f\x1e\xfa\x55\x48\x89\xe5\x41\x57\x41\x56\x41\x55\x41\x54",
		"sealed":          "\x0f\x1f\x40\xd6" + preamble72[4:],
		"kCFI":            "\xb8" + hash + strings.Repeat("\x90", 11),
		"cut short":       preamble72[:15],
		"empty":           "",
		"another compare": "\xf3\x0f\x1e\xfa\x2d" + hash + "\x2e\x0f\x85\x04\x00\x00\x00",
	} {
		if got, ok := NamePreamble([]byte(code), at, nil); ok || Landing([]byte(code), at) != at {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestBarriers: ibhf of the BPF JIT (emit_spectre_bhb_barrier in arch/x86/net/bpf_jit_comp.c of Linux
// 7.2.13) is a fence, __bhi_args_N poisons arguments and clears nothing, and a jump to warn_thunk_thunk
// is how a return thunk that was not chosen returns (arch/x86/lib/retpoline.S).
func TestBarriers(t *testing.T) {
	const base = 0xffffffff81000000
	names := func(addr uint64) (string, bool) {
		name, ok := map[uint64]string{
			base:         "__x86_return_thunk",
			base + 0x100: "warn_thunk_thunk",
			base + 0x200: "__bhi_args_3",
			base + 0x300: "clear_bhb_loop",
		}[addr]
		return name, ok
	}
	c := (&code{base: base}).rel("\xe9", base+0x100).rel("\xe8", base+0x200).rel("\xe8", base+0x300).raw("\xf3\x48\x0f\x1e\xf8")
	want := []Branch{
		{Offset: 0, Class: ClassReturnThunk, Jump: true, Target: base + 0x100, Name: "warn_thunk_thunk"},
		{Offset: 5, Class: ClassPoison, Target: base + 0x200, Name: "__bhi_args_3"},
		{Offset: 10, Class: ClassBHI, Target: base + 0x300, Name: "clear_bhb_loop"},
	}
	for i := range want {
		want[i].Addr = base + want[i].Offset
	}
	if diff := cmp.Diff(want, Branches(c.b, base, names, nil, nil)); diff != "" {
		t.Error(diff)
	}
	if kind := NameReturnThunk(c.b, base, names); kind != ReturnUnpatched {
		t.Errorf("return thunk %q", kind)
	}
	if kind := NameReturnThunk(nil, base+0x100, names); kind != ReturnUnpatched {
		t.Errorf("warn_thunk_thunk is %q", kind)
	}
	var last Inst
	for inst := range Decode(c.b, base) {
		last = inst
	}
	if last.Kind != Fence || last.String() != "ibhf" {
		t.Errorf("%v is %d", last, last.Kind)
	}
	// Without REX.W it is another hint.
	for inst := range Decode([]byte("\xf3\x0f\x1e\xf8"), base) {
		if inst.Kind != Other || inst.String() == "ibhf" {
			t.Errorf("%v is %d", inst, inst.Kind)
		}
	}
}

// TestAnnotateCFI reads the notes of whole sequences.
func TestAnnotateCFI(t *testing.T) {
	const base = 0xffffffff81000000
	names := func(addr uint64) (string, bool) {
		if addr == base+0x1000 {
			return "__cfi_callee", true
		}
		return "", false
	}
	for _, tt := range []struct {
		addr uint64
		code string
		want []string
	}{
		{base, kcfi + callR11, []string{"negated", "loaded from its text", "equal", "trap", "indirect call: target in r11, predicted"}},
		{base, kcfiUDB + callR11, []string{"negated", "loaded from its text", "into the last byte of the test", "the trap of a wrong hash",
			"indirect call: target in r11, predicted"}},
		{base, kcfiOff + callR11, []string{"cfi=off", "never run", "never run", "never run", "indirect call"}},
		{base, fineibt72 + callR11, []string{"the hash", "16 bytes in front", "", "indirect call: target in r11, predicted by the CPU, " +
			"which is the preamble of the function"}},
		{base, paranoid72 + jneBack + callR11, []string{"the hash", "loaded from its text", "16 bytes in front", "traps", "indirect call"}},
		{base + 0x1000, preamble72, []string{"indirect branches may come here", "0 when", "traps where"}},
		{base + 0x1000, preamble72One, []string{"indirect branches may come here", "0 when", "clears the argument", "traps where"}},
		{base + 0x1000, "\xb8" + hash + strings.Repeat("\x90", 11), []string{"nothing runs it", "", "", "", "", "", "", "", "", "", "", ""}},
		{base, "\xf3\x48\x0f\x1e\xf8", []string{"predicts none behind it"}},
	} {
		lines := Annotate([]byte(tt.code), tt.addr, names, nil)
		if len(lines) != len(tt.want) {
			t.Errorf("% x: %d lines", tt.code, len(lines))
			continue
		}
		for i, want := range tt.want {
			if got := lines[i].Note; !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("% x: %s: %q, want %q", tt.code, lines[i].Text, got, want)
			}
		}
	}
}

package branch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBranches(t *testing.T) {
	const (
		base = 0xffffffff8154bbf0
		its  = 0xffffffffc0100060
		prog = 0xffffffffc0200000
		slot = 0xffffffff83000008
	)
	names := map[uint64]string{
		0xffffffff81000000: "xdp_return_frame",
		0xffffffff81000100: "bq_xmit_all.cold",
		0xffffffff81000200: "__SCT__might_resched",
		0xffffffff81000300: "bpf_dispatcher_xdp_func",
		0xffffffff81000400: "bpf_dispatcher_prepare",
		0xffffffff81000500: "clear_bhb_loop",
		0xffffffff81000600: "entry_untrain_ret",
		0xffffffff81000710: "counted",
		0xffffffff83000000: "pv_ops",
		prog:               "bpf_prog_6deef7357e7b4530_pass",
	}
	resolve := func(addr uint64) (string, bool) {
		if name, ok := names[addr]; ok {
			return name, true
		}
		return resolve(addr)
	}
	follow := func(addr uint64) []byte {
		switch addr {
		case its:
			return []byte{0xff, 0xe0, 0xcc, 0xcc}
		case 0xffffffff81000706:
			return []byte("\x65\x48\xc1\x3d\x07\x89\x90\x01\x05\x90")
		}
		return nil
	}
	c := &code{base: base}
	c.raw("\xf3\x0f\x1e\xfa").
		rel("\xe8", 0xffffffff81000000).         // 4 call a function
		rel("\xe9", 0xffffffff81000000).         // 9 tail call
		rel("\xe9", 0xffffffff81000100).         // 14 jmp its cold part
		rel("\x0f\x84", 0xffffffff81000000).     // 19 conditional tail call
		raw("\x74\x00").                         // 25 je within
		raw("\xeb\x00").                         // 27 jmp within
		rel("\xe8", at).                         // 29 call retpoline
		rel("\x0f\x85", at).                     // 34 jne retpoline
		rel("\xe8", 0xffffffff822051e0).         // 40 its by symbol
		rel("\xe8", its).                        // 45 its page
		rel("\xe8", 0xffffffff82204dc0).         // 50 call-depth thunk
		rel("\xe8", 0xffffffff81000706).         // 55 counted direct call
		rel("\xe8", 0xffffffff81000200).         // 60 static call trampoline
		rel("\xe8", 0xffffffff81000300).         // 65 dispatcher
		rel("\xe8", 0xffffffff81000400).         // 70 no dispatcher
		rel("\xe8", 0xffffffff81000500).         // 75 bhi
		rel("\xe8", 0xffffffff81000600).         // 80 untrain
		rel("\xe9", prog+16).                    // 85 BPF tail call
		raw("\x0f\xae\xe8\x0f\x1f\x00\xff\xd0"). // 90 lfence; nop; 96 call *rax
		raw("\x41\xff\xe3").                     // 98 jmp *r11
		raw("\xff\x24\xc5\x00\x00\x00\x81").     // 101 jmp *table(,rax,8)
		rel("\xff\x15", slot).                   // 108 call *slot(rip)
		rel("\xff\x15", 0xffffffff83000000).     // 114 call *pv_ops(rip)
		rel("\xe9", 0xffffffff82205660).         // 120 srso
		rel("\xe9", 0xffffffff822057e0).         // 125 its return
		raw("\x48\xcf\x48\xff\x28\xc3")          // 130 iretq, 132 ljmp *, 135 ret
	const rax = "__x86_indirect_thunk_rax"
	want := []Branch{
		{Offset: 4, Class: ClassDirect, Target: 0xffffffff81000000, Name: "xdp_return_frame"},
		{Offset: 9, Class: ClassTailCall, Jump: true, Target: 0xffffffff81000000, Name: "xdp_return_frame"},
		{Offset: 14, Class: ClassDirect, Jump: true, Target: 0xffffffff81000100, Name: "bq_xmit_all.cold"},
		{Offset: 19, Class: ClassTailCall, Jump: true, Conditional: true, Target: 0xffffffff81000000, Name: "xdp_return_frame"},
		{Offset: 25, Class: ClassConditional, Jump: true, Conditional: true, Target: base + 27},
		{Offset: 27, Class: ClassDirect, Jump: true, Target: base + 29},
		{Offset: 29, Class: ClassRetpoline, Target: at, Name: rax, Register: "rax"},
		{Offset: 34, Class: ClassRetpoline, Jump: true, Conditional: true, Target: at, Name: rax, Register: "rax"},
		{Offset: 40, Class: ClassITS, Target: 0xffffffff822051e0, Name: "__x86_indirect_its_thunk_rax", Register: "rax"},
		{Offset: 45, Class: ClassITS, Target: its, Register: "rax"},
		{Offset: 50, Class: ClassCallDepth, Target: 0xffffffff82204dc0, Name: "__x86_indirect_call_thunk_rax", Register: "rax"},
		{Offset: 55, Class: ClassCallDepth, Target: 0xffffffff81000706, Name: "counted"},
		{Offset: 60, Class: ClassStaticCall, Target: 0xffffffff81000200, Name: "__SCT__might_resched"},
		{Offset: 65, Class: ClassDispatcher, Target: 0xffffffff81000300, Name: "bpf_dispatcher_xdp_func"},
		{Offset: 70, Class: ClassDirect, Target: 0xffffffff81000400, Name: "bpf_dispatcher_prepare"},
		{Offset: 75, Class: ClassBHI, Target: 0xffffffff81000500, Name: "clear_bhb_loop"},
		{Offset: 80, Class: ClassUntrain, Target: 0xffffffff81000600, Name: "entry_untrain_ret"},
		{Offset: 85, Class: ClassTailCall, Jump: true, Target: prog + 16, Name: "bpf_prog_6deef7357e7b4530_pass"},
		{Offset: 96, Class: ClassLfence, Register: "rax"},
		{Offset: 98, Class: ClassRegister, Jump: true, Register: "r11"},
		{Offset: 101, Class: ClassMemory, Jump: true},
		{Offset: 108, Class: ClassMemory, Slot: slot},
		{Offset: 114, Class: ClassParavirt, Slot: 0xffffffff83000000, Name: "pv_ops"},
		{Offset: 120, Class: ClassSRSO, Jump: true, Target: 0xffffffff82205660, Name: "srso_return_thunk"},
		{Offset: 125, Class: ClassReturnThunk, Jump: true, Target: 0xffffffff822057e0, Name: "its_return_thunk"},
		{Offset: 130, Class: ClassFar, Jump: true},
		{Offset: 132, Class: ClassFar, Jump: true},
		{Offset: 135, Class: ClassReturn, Jump: true},
	}
	for i := range want {
		want[i].Addr = base + want[i].Offset
	}
	got := Branches(c.b, base, resolve, nil, follow)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	indirect, returns := 0, 0
	for _, b := range got {
		if b.Indirect() {
			indirect++
		}
		if b.Returns() {
			returns++
		}
	}
	if indirect != 10 || returns != 3 {
		t.Errorf("%d indirect, %d returns", indirect, returns)
	}
}

// TestBranchesFacts is a function of a file, not patched yet.
func TestBranchesFacts(t *testing.T) {
	const base = 0xffffffff81100000
	c := &code{base: base}
	c.raw("\x0f\x1f\x44\x00\x00"). // 0 static key, off
					raw("\xeb\x00").                 // 5 static key, on
					rel("\xe8", 0xffffffff81000000). // 7 static call
					raw("\x0f\x1f\x44\x00\x00").     // 12 static call of nothing
					rel("\xe8", at).                 // 17 retpoline site
					rel("\xe9", 0xffffffff822057f0). // 22 return site
					rel("\xff\x15", base).           // 27 paravirt
					rel("\xe8", 0xffffffff81000000). // 33 alternative
					raw("\x0f\x1f\x44\x00\x00").     // 38 alternative that brings a call
					raw("\x90\x74\x00")              // 43 alternative with a jump in it
	facts := &Facts{
		StaticKeys:     map[uint64]string{base: "jmp 0x1", base + 5: "jmp 0x2"},
		StaticCalls:    map[uint64]string{base + 7: "key", base + 12: "none"},
		RetpolineSites: map[uint64]string{base + 17: "retpoline"},
		ReturnSites:    map[uint64]string{base + 22: "return"},
		Paravirt:       map[uint64]string{base + 27: "pv_ops[3]"},
		Alternatives: map[uint64]string{base + 33: "call other if ERMS",
			base + 38: "call clear_bhb_loop if CLEAR_BHB_LOOP", base + 43: "nop if ALWAYS"},
		alternatives: map[uint64][]Alternative{base + 43: {{Len: 3}}},
	}
	got := Branches(c.b, base, resolve, facts, nil)
	want := []Branch{
		{Offset: 0, Class: ClassStaticKey, Jump: true, Nop: true, Fact: "jmp 0x1"},
		{Offset: 5, Class: ClassStaticKey, Jump: true, Target: base + 7, Fact: "jmp 0x2"},
		{Offset: 7, Class: ClassStaticCall, Target: 0xffffffff81000000, Fact: "key"},
		{Offset: 12, Class: ClassStaticCall, Nop: true, Fact: "none"},
		{Offset: 17, Class: ClassRetpoline, Target: at, Name: "__x86_indirect_thunk_rax", Register: "rax",
			Pending: pendingRetpoline(Branch{Register: "rax"})},
		{Offset: 22, Class: ClassReturnThunk, Jump: true, Target: 0xffffffff822057f0, Name: "__x86_return_thunk",
			Pending: "ret, or jmp to the return thunk that the CPU needs"},
		{Offset: 27, Class: ClassParavirt, Slot: base, Fact: "pv_ops[3]", Pending: "a direct call, or the operation itself"},
		{Offset: 33, Class: ClassAlternative, Target: 0xffffffff81000000, Pending: "call other if ERMS"},
		{Offset: 38, Class: ClassAlternative, Nop: true, Pending: "call clear_bhb_loop if CLEAR_BHB_LOOP"},
		{Offset: 44, Class: ClassAlternative, Jump: true, Conditional: true, Target: base + 46, Pending: "nop if ALWAYS"},
	}
	for i := range want {
		want[i].Addr = base + want[i].Offset
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBranchesBody is a kernel that calls its thunks without retpolines.
func TestBranchesBody(t *testing.T) {
	for body, want := range map[string]Class{
		"\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3": ClassRetpoline,
		"\xff\xe0\xcc":             ClassRegister,
		"\x0f\xae\xe8\xff\xe0\xcc": ClassLfence,
		"\xe9\x1b\x06\x00\x00\xcc": ClassITS,
	} {
		c := (&code{base: 0x1000}).rel("\xe8", at)
		got := Branches(c.b, 0x1000, resolve, nil, func(uint64) []byte { return []byte(body) })
		if len(got) != 1 || got[0].Class != want || got[0].Register != "rax" {
			t.Errorf("% x: %+v, want %s", body, got, want)
		}
	}
}

// TestBranchesParanoidITS is what Linux 6.15 and later make of an indirect call of clang with
// cfi=fineibt,paranoid where ITS needs a thunk: the end of the check, udb and jne, stands in the
// thunk, which is entered behind the udb (its_init_thunk, emit_paranoid_trampoline and
// __x86_indirect_paranoid_thunk_* in arch/x86/kernel/alternative.c and arch/x86/lib/retpoline.S
// of Linux 7.2.13). Thunks made at boot have no symbol, and their udb may be in one.
func TestBranchesParanoidITS(t *testing.T) {
	const (
		base = 0xffffffff8154bbf0
		page = 0xffffffffc0100060
	)
	for name, resolve := range map[string]Resolver{
		"no symbols":    nil,
		"its own":       resolve,
		"its udb's one": func(addr uint64) (string, bool) { return "page", addr == page },
	} {
		for _, thunk := range []string{"\xd6\x75\xfd\x41\xff\xe3\xcc", "\xd6\x75\xfd\xff\xe1\xcc\xcc"} {
			want := "r11"
			if thunk[3] == 0xff {
				want = "rcx"
			}
			follow := func(addr uint64) []byte {
				if addr != page+1 {
					return nil
				}
				return []byte(thunk[1:])
			}
			c := (&code{base: base}).
				raw("\xb8\x78\x56\x34\x12").     // 0 mov $hash,%eax
				raw("\x41\x3b\x43\xf5").         // 5 cmp -11(%r11),%eax
				raw("\x2e\x4d\x8d\x5b\xf0").     // 9 cs lea -16(%r11),%r11
				rel("\x2e\xe8", page+1).         // 14 cs call thunk+1
				raw("\xb8\x78\x56\x34\x12").     // 20
				raw("\x41\x3b\x43\xf5").         // 25
				raw("\x2e\x4d\x8d\x5b\xf0").     // 29
				rel("\xe9", page+1).             // 34 jmp thunk+1
				rel("\xe8", 0xffffffff822051de). // 39 call the static thunk
				raw("\xcc")
			var got []Branch
			for _, b := range Branches(c.b, base, resolve, nil, follow) {
				got = append(got, Branch{Offset: b.Offset, Class: b.Class, Jump: b.Jump, Register: b.Register})
			}
			static := Branch{Offset: 39, Class: ClassDirect}
			if name == "its own" {
				static = Branch{Offset: 39, Class: ClassITS, Register: "rax"}
			}
			all := []Branch{{Offset: 14, Class: ClassITS, Register: want}, {Offset: 34, Class: ClassITS, Jump: true, Register: want}, static}
			if diff := cmp.Diff(all, got); diff != "" {
				t.Errorf("%s, % x: %s", name, thunk, diff)
			}
			sites, _ := Sites(c.b, base, resolve, follow)
			if len(sites) < 2 || sites[0].Offset != 14 || sites[0].Kind != SiteITS || sites[0].Register != want {
				t.Errorf("%s, % x: sites %+v", name, thunk, sites)
			}
		}
	}
}

// A cold part jumps back into the middle of its function: that is no tail call, whatever
// stands there. A counting call to the padding in front of a function, which has a symbol
// of its own from Linux 6.2, is recognized.
func TestBranchesIntoTheMiddle(t *testing.T) {
	const (
		base  = 0xffffffff8154bbf0
		hot   = 0xffffffff81000000
		table = 0xffffffff83000000
	)
	resolve := func(addr uint64) (string, bool) {
		switch {
		case addr >= hot && addr < hot+0x100:
			return "bq_xmit_all", addr == hot
		case addr >= hot+0x1f0 && addr < hot+0x200:
			return "__pfx_counted", addr == hot+0x1f0
		case addr == hot+0x200:
			return "counted", true
		case addr >= table && addr < table+0x100:
			return "pv_ops", addr == table
		case addr >= table+0x100 && addr < table+0x130:
			return "pv_ops_lock", addr == table+0x100
		}
		return "", false
	}
	follow := func(addr uint64) []byte {
		if addr == hot+0x1f6 {
			return []byte("\x65\x48\xc1\x3d\x07\x89\x90\x01\x05\x90")
		}
		return []byte{0xff, 0xe0, 0xcc, 0xcc} // of an ITS thunk
	}
	c := (&code{base: base}).
		rel("\xe9", hot+0x26).       // 0 back to the function
		rel("\x0f\x84", hot+0x30).   // 5 back, if equal
		rel("\xe9", hot).            // 11 to its beginning
		rel("\xe8", hot+0x1f6).      // 16 a counted call
		rel("\xff\x15", table+16).   // 21 through a member of a variable
		rel("\xff\x15", table+0x110) // 27 through one of its own for locks
	want := []Branch{
		{Offset: 0, Class: ClassDirect, Jump: true, Target: hot + 0x26},
		{Offset: 5, Class: ClassConditional, Jump: true, Conditional: true, Target: hot + 0x30},
		{Offset: 11, Class: ClassTailCall, Jump: true, Target: hot, Name: "bq_xmit_all"},
		{Offset: 16, Class: ClassCallDepth, Target: hot + 0x1f6, Name: "counted"},
		{Offset: 21, Class: ClassParavirt, Slot: table + 16, Name: "pv_ops"},
		{Offset: 27, Class: ClassParavirt, Slot: table + 0x110, Name: "pv_ops_lock"},
	}
	for i := range want {
		want[i].Addr = base + want[i].Offset
	}
	if diff := cmp.Diff(want, Branches(c.b, base, resolve, nil, follow)); diff != "" {
		t.Error(diff)
	}
}

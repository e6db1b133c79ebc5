package branch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAnnotate has the thunks of arch/x86/lib/retpoline.S.
func TestAnnotate(t *testing.T) {
	depth := "\x65\x48\xc1\x25\x07\x89\x90\x01\x05\x74\x02\xc3\xcc" + // shlq $5; jz 1f; ret; int3
		strings.Repeat("\xe8\x01\x00\x00\x00\xcc", 16) +
		"\x48\x81\xc4\x80\x00\x00\x00\x65\x48\xc7\x05\x90\x88\x90\x01\xff\xff\xff\xff\xc3\xcc"
	for _, tt := range []struct {
		name string
		addr uint64
		code string
		// want are "text: note", empty for no note; "…" for any.
		want []string
	}{
		{"retpoline", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc\x90", []string{
			"call 0xffffffff82204bc6 <+0x6>: pushes the address of the trap: the return predictor (RSB) now says: return to the trap",
			"int3: the trap: speculation that follows the RSB stops here",
			"mov %rax,(%rsp): the real return address is overwritten by the target",
			"ret: goes to the target; speculates to the trap",
			"int3: stops straight-line speculation past the branch",
			"nop: ",
		}},
		{"retpoline of 4.15", at, "\xe8\x07\x00\x00\x00\xf3\x90\x0f\xae\xe8\xeb\xf9\x48\x89\x04\x24\xc3", []string{
			"…",
			"pause: the trap: speculation that follows the RSB spins from here",
			"lfence: and waits here until it is thrown away",
			"jmp 0xffffffff82204bc5 <+0x5>: round and round in the trap",
			"…",
			"ret: goes to the target; speculates to the trap",
		}},
		{"retpoline with return thunk", at, "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xe9\x91\x0a\x00\x00", []string{
			"…", "…", "…",
			"jmp srso_return_thunk: returns through the return thunk: goes to the target; what that speculates to is said there",
		}},
		{"call depth", 0xffffffff82204dc0, "\x65\x48\xc1\x3d\x07\x89\x90\x01\x05\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc", []string{
			"sarq $0x5,%gs:0x1908907(%rip): counts the call: the shift saturates after 12 nested ones",
			"…", "…", "…",
			"ret: goes to the target; speculates to the trap", "…",
		}},
		{"lfence", at, "\x0f\xae\xe8\xff\xe0\xcc", []string{
			"lfence: waits until the target in the register is known",
			"jmp *%rax: then jumps; a short window for a wrong prediction is left, which is why sysfs calls it vulnerable",
			"int3: stops straight-line speculation past the branch",
		}},
		{"plain", at, "\xff\xe0\xcc", []string{
			"jmp *%rax: an ordinary indirect jump: runs ahead to where the branch predictor says", "…"}},
		{"plain, in the room of a retpoline", at, "\xff\xe0\xeb\x02\xcc\xcc\x90", []string{
			"jmp *%rax: an ordinary indirect jump: runs ahead to where the branch predictor says",
			"jmp 0xffffffff82204bc6 <+0x6>: over the room that the retpoline would take; never executed", "…", "…", "…"}},
		{"its", 0xffffffff822051e0, "\xff\xe0\xcc", []string{
			"jmp *%rax: an ordinary indirect jump, but in the upper half of its 64-byte cache line, where ITS cannot choose its prediction", "…"}},
		{"srso return", 0xffffffff82205660, "\xe8\xdb\xff\xff\xff\x0f\x0b\x0f\x1f\x00", []string{
			"call srso_safe_ret: pushes the address of the trap behind it: the RSB now says: return to the trap",
			"ud2: the trap: what the kernel's returns speculate to; never executed",
			"nopl (%rax): ",
		}},
		{"srso safe ret", 0xffffffff82205640, "\x48\x8d\x64\x24\x08\xc3\xcc\xcc\x0f\xae\xe8\xe8\xf0\xff\xff\xff\x0f\x0b", []string{
			"lea 0x8(%rsp),%rsp: drops the trap's address from the stack: the caller's is on top again",
			"ret: returns to the caller; speculates to the trap that the RSB holds",
			"…",
			"int3: ends the movabs of srso_untrain_ret",
			"…",
			"call srso_safe_ret: runs the safe ret, which returns to the caller of srso_untrain_ret",
			"ud2: the trap of that call",
		}},
		{"retbleed", 0xffffffff822056c0, "\xc3\xcc\x0f\xae\xe8\xeb\xf9\xcc", []string{
			"ret: returns to the caller; what user space trained it to predict was evicted on kernel entry",
			"…", "…",
			"jmp retbleed_return_thunk: executes the ret once: from now on it is predicted as a return", "…",
		}},
		{"5.19", 0xffffffff822057f0, "\xc3\xcc\x0f\xae\xe8\xeb\xf9", []string{
			"ret: returns to the caller; what user space trained it to predict was evicted on kernel entry", "…", "…", "…"}},
		{"6.1", 0xffffffff822057f0, "\xc3\xcc", []string{
			"ret: returns to the caller, predicted by the RSB", "…"}},
		{"its return", 0xffffffff822057e0, "\xc3\xcc", []string{
			"ret: returns to the caller, from the upper half of its 64-byte cache line, where ITS cannot choose its prediction", "…"}},
		{"function", 0xffffffff81100000, "\xf3\x0f\x1e\xfa\x74\x02\xff\xd0\xff\x60\x08\xc3", []string{
			"endbr64: indirect branches may come here",
			"je 0xffffffff81100008 <+0x8>: ",
			"call *%rax: indirect call: target in rax, predicted by the CPU",
			"jmp *0x8(%rax): indirect jump: target read from memory, predicted by the CPU",
			"ret: return, predicted by the return stack (RSB)",
		}},
	} {
		lines := Annotate([]byte(tt.code), tt.addr, resolve, nil)
		n := 0
		for i, line := range lines {
			n += len(line.Bytes)
			got := line.Text + ": " + line.Note
			if i >= len(tt.want) || got != tt.want[i] && tt.want[i] != "…" {
				t.Errorf("%s: line %d: %q", tt.name, i, got)
			}
		}
		if len(lines) != len(tt.want) || n != len(tt.code) {
			t.Errorf("%s: %d lines of %d bytes", tt.name, len(lines), n)
		}
	}
	lines := Annotate([]byte(depth), 0xffffffff82205710, resolve, nil)
	for i, line := range lines {
		if line.Note == "" {
			t.Errorf("call depth: line %d, %s, has no note", i, line.Text)
		}
	}
	if n := len(lines); n != 4+32+4 || lines[n-2].Note != "returns to the caller; speculates to a trap" ||
		lines[4].Note != "puts the address of the trap behind it into the RSB" {
		t.Errorf("call depth: %d lines, %+v", n, lines[n-2])
	}
}

func TestAnnotateFacts(t *testing.T) {
	const base = 0xffffffff81100000
	facts := &Facts{Sealed: map[uint64]string{base: "endbr64"}, Alternatives: map[uint64]string{base + 4: "clac if SMAP"}}
	var notes []string
	for _, line := range Annotate([]byte("\xf3\x0f\x1e\xfa\x0f\x1f\x00\xc3"), base, nil, facts) {
		notes = append(notes, line.Note)
	}
	want := []string{"not patched yet: becomes a nop, nothing calls this indirectly",
		"not patched yet, becomes: clac if SMAP", "return, predicted by the return stack (RSB)"}
	if diff := cmp.Diff(want, notes); diff != "" {
		t.Error(diff)
	}
}

// TestAnnotateLive has a note for every instruction of the thunks of the
// running kernel.
func TestAnnotateLive(t *testing.T) {
	l, table := live(t)
	for _, name := range []string{"__x86_indirect_thunk_rax", "__x86_indirect_its_thunk_r11", "__x86_indirect_call_thunk_rax",
		"srso_return_thunk", "srso_safe_ret", "srso_alias_return_thunk", "srso_alias_safe_ret", "retbleed_return_thunk",
		"its_return_thunk", "call_depth_return_thunk", "clear_bhb_loop"} {
		s, ok := table.Lookup(name)
		if !ok {
			continue
		}
		code := make([]byte, min(s.Size, 256))
		if err := l.ReadAddr(code, s.Addr); err != nil {
			t.Fatal(err)
		}
		resolve := func(addr uint64) (string, bool) {
			if addr == s.Addr {
				return name, true
			}
			return names(table)(addr)
		}
		notes := 0
		for _, line := range Annotate(code, s.Addr, resolve, nil) {
			if line.Note != "" {
				notes++
			} else if !strings.Contains(line.Text, "nop") && !strings.HasPrefix(line.Text, "int3") && line.Text != "udb" {
				t.Errorf("%s: no note on %s", name, line.Text)
			}
		}
		if notes == 0 {
			t.Errorf("%s has no notes", name)
		}
	}
}

func TestNote(t *testing.T) {
	for _, tt := range []struct {
		b    Branch
		want string
	}{
		{Branch{Class: ClassDirect}, "direct call"},
		{Branch{Class: ClassDirect, Jump: true}, ""},
		{Branch{Class: ClassConditional, Jump: true, Conditional: true}, ""},
		{Branch{Class: ClassTailCall, Jump: true, Name: "f"}, "tail call: f returns to this function's caller"},
		{Branch{Class: ClassRetpoline, Register: "rax"}, "indirect call through a retpoline: target in rax"},
		{Branch{Class: ClassRetpoline, Register: "r11", Jump: true, Conditional: true},
			"indirect conditional jump through a retpoline: target in r11"},
		{Branch{Class: ClassITS, Register: "rax"}, "indirect call through an ITS thunk: target in rax"},
		{Branch{Class: ClassLfence, Register: "rax"}, "indirect call behind lfence: target in rax"},
		{Branch{Class: ClassCallDepth, Register: "rax"}, "indirect call through a retpoline that counts call depth: target in rax"},
		{Branch{Class: ClassCallDepth, Name: "f"}, "direct call by way of the counting in front of f"},
		{Branch{Class: ClassMemory, Name: "ops"}, "indirect call: target read from ops, predicted by the CPU"},
		{Branch{Class: ClassReturnThunk, Jump: true, Name: "its_return_thunk"},
			"return through its_return_thunk: a ret in the upper half of a cache line"},
		{Branch{Class: ClassStaticCall, Fact: "might_resched", Nop: true},
			"static call of might_resched: patched when its target changes; calls nothing now"},
		{Branch{Class: ClassStaticKey, Fact: "jmp 0x1, key k", Nop: true}, "static key, off; when on: jmp 0x1, key k"},
		{Branch{Class: ClassStaticKey, Fact: "jmp 0x1, key k"}, "static key, on: jmp 0x1, key k"},
		{Branch{Class: ClassParavirt, Fact: "pv_ops[7]", Pending: "a direct call"},
			"paravirtual operation pv_ops[7]; not patched yet, becomes: a direct call"},
		{Branch{Class: ClassAlternative, Pending: "nop if SMAP"}, "differs by CPU; not patched yet, becomes: nop if SMAP"},
		{Branch{Class: ClassFar, Jump: true}, "leaves the code segment or the kernel"},
	} {
		if got := tt.b.note(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.b, got, tt.want)
		}
	}
}

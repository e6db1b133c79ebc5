package progcode

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// start is where the machine code of tests begins.
const start = 0xffffffffc0001000

// jitted is machine code, piece by piece: the offset of each piece is kept.
type jitted struct{ code []byte }

func (j *jitted) add(hex ...byte) uint64 {
	at := start + uint64(len(j.code))
	j.code = append(j.code, hex...)
	return at
}

// call calls an address.
func (j *jitted) call(target uint64) uint64 {
	to := binary.LittleEndian.AppendUint32(nil, uint32(target-(start+uint64(len(j.code))+5)))
	return j.add(append([]byte{0xe8}, to...)...)
}

// paired are the pairs of a function in words: "2 call +0x0".
func paired(t *testing.T, insns asm.Instructions, code []byte, lines []lineInfo, base uint64) (out []string, unpaired int) {
	t.Helper()
	return pairedBy(t, nil, insns, code, lines, base)
}

// pairedBy is that with names for what the function jumps to.
func pairedBy(
	t *testing.T, resolve branch.Resolver, insns asm.Instructions, code []byte, lines []lineInfo, base uint64,
) (out []string, unpaired int) {
	t.Helper()
	x, err := newXlated(insns, nil, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	var branches []*branch.Branch
	for _, b := range branch.Branches(code, start, resolve, nil, nil) {
		if leaves(&b, start, start+uint64(len(code))) {
			branches = append(branches, &b)
		}
	}
	m := &matching{points: pointsOf(x, 0, start, uint64(len(code)), lines), addresses: []uint64{start}}
	known := func(insn int) bool { return insn == 2 }
	m.match(x, x.exits(0, base, known), jits["amd64"].events(branch.Scan(code, start), code, start, branches))
	for _, p := range m.pairs {
		words := []string{}
		if p.exit != nil {
			words = append(words, []string{"call", "function", "tail-call", "jump-table"}[p.exit.kind])
		}
		if p.native != nil {
			words = append(words, string(p.native.Class))
		}
		out = append(out, strings.Join(words, " "))
	}
	return out, m.unpaired
}

// The jump tables of Linux 6.19 are indirect jumps without the check of a tail call. One
// stretch that does not agree leaves the others as they are.
func TestMatch(t *testing.T) {
	t.Parallel()
	const base, helperAt = start - 0x100000, start - 0x8000
	number := int64(helperAt - base)
	call := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Constant: number}
	tail := call
	tail.Constant = tailCall
	table := asm.Instruction{OpCode: jumpTable, Dst: asm.R1}
	other := call
	other.Constant++
	check := []byte{0x48, 0x83, 0x38, 33}
	indirect := []byte{0xff, 0xe0}

	var j jitted
	j.call(helperAt)
	second := j.add(check...)
	j.add(indirect...)
	j.add(check...) // of an empty entry
	third := j.add(indirect...)
	fourth := j.call(helperAt)
	insns := asm.Instructions{call, tail, tail, table, other, asm.Return()}
	lines := []lineInfo{{raw: 1, addr: second}, {raw: 3, addr: third}, {raw: 4, addr: fourth}}
	want := []string{"call direct", "tail-call indirect-register", "tail-call", "jump-table indirect-register", "direct"}
	got, unpaired := paired(t, insns, j.code, lines, base)
	if diff := cmp.Diff(want, got); diff != "" || unpaired != 1 {
		t.Errorf("%d not paired\n%s", unpaired, diff)
	}
	// Without lines it is one stretch, which does not agree.
	if got, unpaired := paired(t, insns, j.code, nil, base); len(got) != 4 || unpaired != 1 {
		t.Errorf("%v, %d not paired", got, unpaired)
	}
	// Lines that are not of this code are not used.
	lines[2].addr = start + 1<<20
	if _, unpaired := paired(t, insns, j.code, lines, base); unpaired != 1 {
		t.Errorf("%d not paired", unpaired)
	}
	// Where the kernel hides what a helper's number is, the order alone counts.
	insns[4] = call
	if got, unpaired := paired(t, insns, j.code, nil, 0); len(got) != 5 || unpaired != 0 {
		t.Errorf("%v, %d not paired", got, unpaired)
	}
}

// The code of arm64: helpers called directly and through a constant in a register, tail calls, a helper that is put into
// the code, the way to a trampoline behind the end, which is none of the program's.
func TestMatchARM64(t *testing.T) {
	t.Parallel()
	const helperAt, cpuAt = start - 0x8000, start - 0x9000
	symbols, err := ksym.New([]ksym.Symbol{
		{Addr: helperAt, Type: 'T', Name: "bpf_ktime_get_ns"}, {Addr: cpuAt, Type: 'T', Name: "bpf_get_smp_processor_id"},
		{Addr: helperAt - 0x100000, Type: 'T', Name: "__bpf_call_base"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	add := func(words ...uint32) {
		for _, w := range words {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
	}
	bl := func(target uint64) uint32 {
		return 0x94000000 | uint32(target-start-uint64(len(code)))>>2&0x3ffffff
	}
	number := func(of uint64, shift uint32) uint32 { return uint32(of>>(16*shift)&0xffff)<<5 | shift<<21 | temporary }
	add(0xaa1e03e9) // mov x9, x30
	add(0xd503201f) // nop
	add(bl(start - 0x20000))
	add(0xd503201f)
	add(bl(helperAt))
	add(0x92800000|number(^uint64(helperAt), 0), 0xf2800000|number(helperAt, 1), 0xf2800000|number(helperAt, 2), 0xd63f0000|temporary<<5)
	add(0xd538d08a)                                    // mrs x10, tpidr_el1
	add(0x52800420|temporary, 0xf940035a, 0xeb0a035f)  // mov w10, #33; ldr x26, [x26]; cmp x26, x10
	add(0xd61f0000 | temporary<<5)                     // br x10
	add(0xd65f03c0)                                    // ret
	add(0x58000040|temporary, 0xd61f0000|temporary<<5) // ldr x10, #8; br x10
	add(0, 0)
	call := func(target uint64) asm.Instruction {
		return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Constant: int64(target - (helperAt - 0x100000))}
	}
	tail := call(0)
	tail.Constant = tailCall
	insns := asm.Instructions{call(helperAt), call(helperAt), call(cpuAt), tail, asm.Return()}
	x, err := newXlated(insns, nil, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	k := kernel.New(ktext.Bytes{}, symbols, nil)
	k.Arch = "arm64"
	c := &Code{Functions: []Function{{Name: "main", Addr: start, Code: code}}, Returns: branch.Returns{}, kernel: k}
	if err := c.readSites(x, nil); err != nil {
		t.Fatal(err)
	}
	doc := c.Record(host.Fingerprint{CallSites: host.ARM64CallSites})
	if Advise(doc, nil, nil); len(doc.Changes) != 1 || doc.Changes[0].What != "trampoline" { // a constant index changes nothing there
		t.Errorf("%+v", doc.Changes)
	}
	want := []string{"attached direct", "helper direct bpf_ktime_get_ns", "helper indirect bpf_ktime_get_ns", "tail-call indirect"}
	if diff := cmp.Diff(want, said(c)); diff != "" || c.Unpaired != 0 || c.Returns["ret"] != 1 {
		t.Errorf("%d not paired, returns %v\n%s", c.Unpaired, c.Returns, diff)
	}
}

// On arm64 a tail call whose table and index are known jumps through a register, as others do: the jump of a table behind it is
// the next one. Which of several tables that is by is not known.
func TestJumpTableARM64(t *testing.T) {
	t.Parallel()
	var code []byte
	for _, w := range []uint32{0x52800420 | temporary, 0xf940035a, 0xeb0a035f, // mov w10, #33; ldr x26, [x26]; cmp x26, x10
		0xd61f0000 | temporary<<5, 0xd61f0000 | 1<<5, 0xd65f03c0} { // br x10; br x1; ret
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	symbols, err := ksym.New([]ksym.Symbol{{Addr: start - 0x100000, Type: 'T', Name: "__bpf_call_base"}})
	if err != nil {
		t.Fatal(err)
	}
	tail := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Constant: tailCall}
	insns := asm.Instructions{asm.LoadMapPtr(asm.R2, 1), asm.Mov.Imm(asm.R3, 0), tail, {OpCode: jumpTable, Dst: asm.R1}, asm.Return()}
	for _, tt := range []struct {
		tables []Map
		want   string
	}{
		{[]Map{{ID: 2, Name: "jumps", Type: insnArray}}, "jump-table indirect jumps"},
		{[]Map{{ID: 2, Name: "jumps", Type: insnArray}, {ID: 3, Name: "others", Type: insnArray}}, "jump-table indirect"},
	} {
		x, err := newXlated(insns, nil, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		k := kernel.New(nil, symbols, nil)
		k.Arch = "arm64"
		c := &Code{Functions: []Function{{Name: "main", Addr: start, Code: code}}, Returns: branch.Returns{}, kernel: k,
			Maps: append([]Map{{ID: 1, Name: "progs", Type: ebpf.ProgramArray}}, tt.tables...)}
		if err := c.readSites(x, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"tail-call indirect progs[0]", tt.want}, said(c)); diff != "" || c.Unpaired != 0 {
			t.Errorf("%d not paired\n%s", c.Unpaired, diff)
		}
	}
}

// The JIT makes "goto *rN" of Linux 6.19 as the indirect jump of a tail call: emit_indirect_jump in
// arch/x86/net/bpf_jit_comp.c of Linux 7.2.13 has these forms. With cfi=fineibt,paranoid that of ITS goes 2 bytes
// in front of the thunk.
func TestJumpTableForms(t *testing.T) {
	t.Parallel()
	const thunk = start - 0x8000
	for _, tt := range []struct {
		name, symbol, text, class string
	}{
		{"plain", "", "\xff\xe2\xcc", "indirect-register"},
		{"lfence", "", "\x0f\xae\xe8\xff\xe2", "lfence"},
		{"retpoline", "__x86_indirect_thunk_rdx", "", "retpoline"},
		{"call depth", "__x86_indirect_jump_thunk_rdx", "", "call-depth"},
		{"ITS", "__x86_indirect_its_thunk_rdx", "", "its-thunk"},
		{"ITS, paranoid", "__x86_indirect_paranoid_thunk_rdx", "", "its-thunk"},
	} {
		var j jitted
		j.add([]byte(tt.text)...)
		if tt.symbol != "" {
			j.code = append(j.code, 0xe9)
			next := start + uint64(len(j.code)) + 4
			j.code = binary.LittleEndian.AppendUint32(j.code, uint32(thunk-next))
		}
		resolve := func(addr uint64) (string, bool) { return tt.symbol, tt.symbol != "" && addr == thunk }
		insns := asm.Instructions{{OpCode: jumpTable, Dst: asm.R3}, asm.Return()}
		got, unpaired := pairedBy(t, resolve, insns, j.code, nil, 0)
		if diff := cmp.Diff([]string{"jump-table " + tt.class}, got); diff != "" || unpaired != 0 {
			t.Errorf("%s: %d not paired\n%s", tt.name, unpaired, diff)
		}
	}
}

// What was attached to a program shows at the entry of its functions.
func TestAttached(t *testing.T) {
	t.Parallel()
	const trampoline, part = start - 0x10000, start - 0x20000
	symbols, err := ksym.New([]ksym.Symbol{
		{Addr: trampoline, Type: 't', Name: "bpf_trampoline_6442", Module: "bpf"},
		{Addr: part, Type: 't', Name: "bpf_prog_0123456789abcdef_part", Module: "bpf"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var traced jitted
	traced.add(0xf3, 0x0f, 0x1e, 0xfa) // endbr64
	traced.call(trampoline)
	traced.add(0xc3)
	replaced := []byte{0xe9}
	replaced = binary.LittleEndian.AppendUint32(replaced, uint32(0xffffffff&(part-(start+0x100+5))))
	c := &Code{
		Functions: []Function{{Name: "main", Addr: start, Code: traced.code}, {Name: "prog0", Addr: start + 0x100, Code: replaced}},
		Returns:   branch.Returns{}, kernel: kernel.New(nil, symbols, nil),
	}
	if err := c.readSites(nil, nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"attached direct bpf_trampoline_6442", "replaced direct part"}
	if diff := cmp.Diff(want, said(c)); diff != "" {
		t.Error(diff)
	}
	doc := c.Record(host.Fingerprint{})
	Advise(doc, nil, nil)
	if len(doc.Changes) != 1 || doc.Changes[0].What != "trampoline" {
		t.Errorf("%+v", doc.Changes)
	}
}

// FuzzFlow takes any bytes for BPF instructions.
func FuzzFlow(f *testing.F) {
	seed := func(insns ...asm.Instruction) {
		var b bytes.Buffer
		if err := asm.Instructions(insns).Marshal(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), uint8(1))
		f.Add(b.Bytes(), uint8(2))
	}
	seed(asm.Mov.Imm(asm.R0, 0), asm.Return())
	seed(asm.LoadMapPtr(asm.R1, 1), asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord), asm.LoadMem(asm.R2, asm.RFP, -8, asm.DWord),
		asm.Add.Imm(asm.R2, 272), asm.LoadMem(asm.R0, asm.R2, 0, asm.DWord), asm.FnMapLookupElem.Call(), asm.Return())
	seed(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: 1, Constant: 1, Offset: 1}, asm.Return(), asm.Return())
	f.Fuzz(func(t *testing.T, b []byte, functions uint8) {
		insns, err := asm.AppendInstructions(nil, bytes.NewReader(b), binary.LittleEndian, "linux")
		if err != nil || len(insns) == 0 || len(insns) > 4096 {
			return
		}
		x, err := newXlated(insns, nil, nil, int(functions))
		if err != nil {
			return
		}
		testutil.Allocates(t, 32<<20, func() {
			maps := []Map{{ID: 1, Type: ebpf.ArrayOfMaps}, {ID: 2, Type: ebpf.Hash}}
			fl := newFlow(x, maps, func(*asm.Instruction) string { return "__htab_map_lookup_elem" })
			if err := fl.run(); err != nil {
				return
			}
			for f := range x.starts {
				x.exits(f, 0, fl.known)
			}
		})
	})
}

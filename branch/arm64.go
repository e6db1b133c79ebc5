package branch

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"golang.org/x/arch/arm64/arm64asm"
)

// DecodeARM64 yields the instructions of arm64 code, the first byte of which
// is at addr. One that is not known is Bad where it may be a branch, or where the architecture has no instructions; of others
// it does not matter. What package arm64asm does not know has no name: vectors, pointer authentication and atomics have grown
// since that was written. The next one is 4 bytes on. The last one may be shorter, and is Bad.
func DecodeARM64(code []byte, addr uint64) iter.Seq[Inst] {
	return func(yield func(Inst) bool) {
		for len(code) > 0 {
			inst := Inst{Addr: addr, Len: min(4, len(code)), Kind: Bad, raw: "(bad)"}
			if len(code) >= 4 {
				inst = decodeARM64(binary.LittleEndian.Uint32(code), addr)
			}
			if !yield(inst) {
				return
			}
			code, addr = code[inst.Len:], addr+uint64(inst.Len)
		}
	}
}

func decodeARM64(w uint32, addr uint64) Inst {
	f := flowARM64(w)
	inst := Inst{Addr: addr, Len: 4, Kind: f.kind, arm64: w}
	switch f.kind {
	case CallDirect, JumpDirect, JumpCond:
		inst.Target = addr + f.rel
	case Other:
		if f.op == "" && !branchless(w) {
			inst.Kind = Bad
		}
	}
	if w == 0 { // udf #0
		inst.raw = "udf #0x0"
	}
	return inst
}

// branchless tells whether what a word has in bits 25 to 28 says that it is no branch (C4.1, "A64 instruction set encoding"). Of
// the group of branches these are what makes exceptions, and system instructions.
func branchless(w uint32) bool {
	switch w >> 25 & 15 {
	case 0b1010, 0b1011:
		return w>>24 == 0xd4 || w>>24 == 0xd5
	case 0b0000: // SME, or reserved
		return w>>31 != 0
	case 0b0001, 0b0011: // unallocated
		return false
	}
	return true
}

// ScanARM64 yields the instructions of arm64 code, the first byte of which is at addr, as [DecodeARM64] does, but with
// their branches only: no text, and Bad are just those that are cut off.
func ScanARM64(code []byte, addr uint64) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		for ; len(code) >= 4; code, addr = code[4:], addr+4 {
			if !yield(scanARM64(binary.LittleEndian.Uint32(code), addr)) {
				return
			}
		}
		if len(code) > 0 {
			yield(Step{Addr: addr, Len: len(code), Kind: Bad})
		}
	}
}

func scanARM64(w uint32, addr uint64) Step {
	f := flowARM64(w)
	s := Step{Addr: addr, Len: 4, Kind: f.kind}
	switch {
	case f.kind == CallDirect, f.kind == JumpDirect, f.kind == JumpCond:
		s.Target = addr + f.rel
	case f.kind == CallIndirect, f.kind == JumpIndirect:
		if f.reg < arm64Zero {
			s.reg = uint8(firstARM64 + f.reg)
		}
	case f.op != "" && f.kind == Other: // eret
		s.special = far
	case w == NopARM64, w&^0xc0 == 0xd503241f: // bti
		s.special = pad
	}
	return s
}

// arm64Zero is the number of the register that is zero.
const arm64Zero = 31

// flow is what an arm64 instruction does to the flow of control.
type flow struct {
	kind Kind
	// rel is the distance to a direct branch's target, in bytes.
	rel uint64
	// op is the mnemonic of an indirect branch, reg and with the registers
	// of its target and of the modifier of its pointer authentication, -1
	// for none.
	op        string
	reg, with int
	// signed is set when it authenticates the pointer.
	signed bool
}

// flowARM64 follows the Arm Architecture Reference Manual, C4.1.66, "Branches,
// exception generating and system instructions".
func flowARM64(w uint32) flow {
	f := flow{reg: -1, with: -1}
	switch {
	case w&0xfc000000 == 0x14000000: // b
		f.kind, f.rel = JumpDirect, offset(w, 0, 26)
	case w&0xfc000000 == 0x94000000: // bl
		f.kind, f.rel = CallDirect, offset(w, 0, 26)
	case w&0xff000000 == 0x54000000: // b.cond, bc.cond
		f.kind, f.rel = JumpCond, offset(w, 5, 19)
	case w&0x7e000000 == 0x34000000: // cbz, cbnz
		f.kind, f.rel = JumpCond, offset(w, 5, 19)
	case w&0x7e000000 == 0x36000000: // tbz, tbnz
		f.kind, f.rel = JumpCond, offset(w, 5, 14)
	case w&0xfe000000 == 0xd6000000: // branch to a register
		return registerARM64(w)
	case w&0xffe0001f == 0xd4200000, w>>16 == 0: // brk, udf
		f.kind = Trap
	case w == sb, w == csdb, w == clearBHB:
		f.kind = Fence
	}
	return f
}

// registerARM64 are br, blr, ret, eret and their forms with pointer
// authentication.
func registerARM64(w uint32) flow {
	f := flow{reg: int(w >> 5 & 31), with: -1}
	kinds := [...]struct {
		op   string
		kind Kind
	}{{"br", JumpIndirect}, {"blr", CallIndirect}, {"ret", Return}, {}, {"eret", Other}}
	n := w >> 21 & 7
	if int(n) >= len(kinds) || kinds[n].op == "" || w>>16&31 != 31 {
		return flow{reg: -1, with: -1}
	}
	f.op, f.kind = kinds[n].op, kinds[n].kind
	modified := w>>24&1 != 0 // braa, blraa: the modifier is a register
	key := ""
	switch w >> 10 & 63 {
	case 0:
		if modified || w&31 != 0 {
			return flow{reg: -1, with: -1}
		}
	case 2:
		key = "a"
	case 3:
		key = "b"
	default:
		return flow{reg: -1, with: -1}
	}
	if key != "" {
		f.signed = true
		f.op += "a" + key
		switch {
		case n >= 2: // retaa and eretaa name no register
			if modified || w&0x3ff != 0x3ff {
				return flow{reg: -1, with: -1}
			}
			f.reg = 30
		case modified:
			f.with = int(w & 31)
		case w&31 == 31:
			f.op += "z"
		default:
			return flow{reg: -1, with: -1}
		}
	}
	if n == 4 {
		if key == "" && f.reg != 31 {
			return flow{reg: -1, with: -1}
		}
		f.reg = -1
	}
	return f
}

// offset is the signed field of n bits from bit low, in bytes.
func offset(w uint32, low, n int) uint64 {
	return uint64(int64(int32(w<<(32-low-n))) >> (32 - n) * 4)
}

// hintARM64 names the hints that arm64asm has no names for, among them bti,
// which stands where indirect branches may go.
func hintARM64(w uint32) string {
	switch w {
	case 0xd503241f:
		return "bti"
	case btiC:
		return "bti c"
	case 0xd503249f:
		return "bti j"
	case 0xd50324df:
		return "bti jc"
	case 0xd503233f:
		return "paciasp"
	case 0xd503237f:
		return "pacibsp"
	case 0xd50323bf:
		return "autiasp"
	case 0xd50323ff:
		return "autibsp"
	case 0xd50320ff:
		return "xpaclri"
	case clearBHB:
		return "clearbhb"
	case csdb:
		return "csdb"
	case sb:
		return "sb"
	}
	return ""
}

// Endbr tells whether an indirect branch may go to the instruction where
// the kernel has the CPU check that: endbr64 on x86-64; bti, paciasp and
// pacibsp on arm64, which all but "bti j" are for calls.
func (i Inst) Endbr() bool {
	switch i.arm64 {
	case 0:
		return i.raw == "endbr64"
	case 0xd503241f, btiC, 0xd503249f, 0xd50324df, 0xd503233f, 0xd503237f:
		return true
	}
	return false
}

var conditionsARM64 = [16]string{"eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc",
	"hi", "ls", "ge", "lt", "gt", "le", "al", "nv"}

// textARM64 is the instruction in GNU syntax.
func (i Inst) textARM64(resolve Resolver) string {
	w := i.arm64
	if hint := hintARM64(w); hint != "" {
		return hint
	}
	target := resolve.name(i.Target)
	switch i.Kind {
	case CallDirect:
		return "bl " + target
	case JumpDirect:
		return "b " + target
	case JumpCond:
		return conditionARM64(w) + target
	}
	if f := flowARM64(w); f.op != "" {
		switch {
		case f.with >= 0:
			return fmt.Sprintf("%s %s, %s", f.op, xregister(f.reg), xregister(f.with))
		case f.kind == Other, f.kind == Return && f.reg == 30:
			return f.op
		}
		return f.op + " " + xregister(f.reg)
	}
	if w>>16 == 0 {
		return fmt.Sprintf("udf #%#x", w)
	}
	a, err := arm64asm.Decode(binary.LittleEndian.AppendUint32(nil, w))
	if err != nil {
		return fmt.Sprintf(".inst %#08x", w)
	}
	return strings.TrimSpace(arm64asm.GNUSyntax(a))
}

// conditionARM64 is a conditional jump up to its target.
func conditionARM64(w uint32) string {
	r := fmt.Sprintf("w%d, ", w&31)
	if w>>31 != 0 {
		r = fmt.Sprintf("x%d, ", w&31)
	}
	if w&31 == 31 {
		r = r[:1] + "zr, "
	}
	n := ""
	if w>>24&1 != 0 {
		n = "n"
	}
	switch {
	case w>>25 == 0x2a:
		op := "b."
		if w>>4&1 != 0 {
			op = "bc."
		}
		return op + conditionsARM64[w&15] + " "
	case w>>25&0x3f == 0x1a:
		return "cb" + n + "z " + r
	}
	return fmt.Sprintf("tb%sz %s#%d, ", n, r, w>>31<<5|w>>19&31)
}

func xregister(n int) string {
	if n == 31 {
		return "xzr"
	}
	return fmt.Sprintf("x%d", n)
}

// kcfiARM64 are the words of [CheckKCFIARM64], which a branch follows, and which of their bits are the same in all: ldur
// w16, [x8, #-4]; movk w17, #…; movk w17, #…, lsl #16; cmp w16, w17; b.eq over the trap; brk #0x8228.
var kcfiARM64 = []struct{ word, same uint32 }{
	{0xb8500000, 0xfff00c00}, {0x72800000, 0xffe00000}, {0x72a00000, 0xffe00000}, {0x6b00001f, 0xffe0fc1f},
	{0x54000040, 0xffffffff}, {0xd4300000, 0xfff0001f},
}

// checkedARM64 is the check of a branch to a register, which ends before.
func checkedARM64(before []byte, register int) (Check, uint64) {
	n := 4 * len(kcfiARM64)
	if len(before) < n {
		return CheckNone, 0
	}
	before = before[len(before)-n:]
	for i, w := range kcfiARM64 {
		if binary.LittleEndian.Uint32(before[4*i:])&w.same != w.word {
			return CheckNone, 0
		}
	}
	if int(binary.LittleEndian.Uint32(before)>>5&31) != register {
		return CheckNone, 0
	}
	return CheckKCFIARM64, uint64(n)
}

// ConstantARM64 is the number that the register of an indirect branch at an offset of code holds, where the instructions
// before it load one by movz or movn and movk; 0 for none. The JIT of BPF calls the kernel's functions so: helpers before
// Linux 6.12, or those that are more than 128 MB away.
func ConstantARM64(code []byte, offset uint64) uint64 {
	if offset+4 > uint64(len(code)) {
		return 0
	}
	register := int(binary.LittleEndian.Uint32(code[offset:]) >> 5 & 31)
	var value, known uint64
	for n := 0; n < 4 && offset >= 4; n++ {
		offset -= 4
		w := binary.LittleEndian.Uint32(code[offset:])
		shift := w >> 21 & 3 * 16
		part, mask := uint64(w>>5&0xffff)<<shift, uint64(0xffff)<<shift
		if int(w&31) != register {
			return 0
		}
		switch w & 0xff800000 {
		case 0xf2800000: // movk
			value |= part &^ known
			known |= mask
		case 0xd2800000: // movz
			return value | part&^known
		case 0x92800000: // movn
			return value | ^part&^known
		default:
			return 0
		}
	}
	return 0
}

// TrampolineARM64 tells the jump at an offset of a BPF program's code that ends each: "ldr x10, #8; br x10", the way to a
// trampoline that is far away (build_plt in arch/arm64/net/bpf_jit_comp.c, Linux 6.1). It runs where one is attached.
func TrampolineARM64(code []byte, offset uint64) bool {
	return offset >= 4 && offset+4 <= uint64(len(code)) && binary.LittleEndian.Uint32(code[offset:]) == 0xd61f0140 &&
		binary.LittleEndian.Uint32(code[offset-4:]) == 0x5800004a
}

// VeneerARM64 is where the veneer at addr jumps to, of which code has the first bytes, 28 of all. The kernel puts veneers behind a
// module's functions, for those that are called more than 128 MB away (get_plt_entry in arch/arm64/kernel/module-plts.c): "adrp x16;
// add x16, x16; br x16" since Linux 5.0, "movn x16; movk; movk; br x16" before. Linkers put the first, or one that loads what lies
// behind it: "ldr x16, #16; adr x17, #0; add x16, x16, x17; br x16" and a distance (GNU), "ldr x16, #8; br x16" and an address (LLVM).
// Each may stand behind "bti c". It returns false for other code.
func VeneerARM64(code []byte, addr uint64) (target uint64, ok bool) {
	if len(code) >= 4 && binary.LittleEndian.Uint32(code) == btiC {
		code, addr = code[4:], addr+4
	}
	const br = 0xd61f0200
	var w [4]uint32
	for i := range min(len(w), len(code)/4) {
		w[i] = binary.LittleEndian.Uint32(code[4*i:])
	}
	switch {
	case w[0]&0x9f00001f == 0x90000010 && w[1]&0xffc003ff == 0x91000210 && w[2] == br:
		return pageARM64(w[0], addr) + uint64(w[1]>>10&0xfff), true
	case w[0]&0xffe0001f == 0x92800010 && w[1]&0xffe0001f == 0xf2a00010 && w[2]&0xffe0001f == 0xf2c00010 && w[3] == br:
		return ConstantARM64(code, 12), true
	case w == [4]uint32{0x58000090, 0x10000011, 0x8b110210, br} && len(code) >= 24:
		return addr + 4 + binary.LittleEndian.Uint64(code[16:]), true
	case w[0] == 0x58000050 && w[1] == br && len(code) >= 16:
		return binary.LittleEndian.Uint64(code[8:]), true
	}
	return 0, false
}

// pageARM64 is the address that an adrp at addr makes.
func pageARM64(w uint32, addr uint64) uint64 {
	return addr&^0xfff + (offset(w, 5, 19)|uint64(w>>29&3))<<12
}

// DetourARM64 is the instruction that the jump at addr takes a detour for, to code at target that comes back behind the jump. Cortex-A53
// may load from a wrong address behind an adrp at the end of a page (erratum 843419): there the linker moves a load or store out of
// line, and the kernel the adrp of a module (module_emit_veneer_for_adrp in arch/arm64/kernel/module-plts.c). Code has the first 12
// bytes at target or more. It returns false for other code.
func DetourARM64(code []byte, target, addr uint64) (Inst, bool) {
	var w [3]uint32
	for i := range min(len(w), len(code)/4) {
		w[i] = binary.LittleEndian.Uint32(code[4*i:])
	}
	back := func(n int) bool {
		return w[n]&0xfc000000 == 0x14000000 && target+4*uint64(n)+offset(w[n], 0, 26) == addr+4
	}
	rd := w[0] & 31
	switch {
	case w[0]&0x3b000000 == 0x39000000 && back(1): // at a distance from a register
		return decodeARM64(w[0], addr), true
	case w[0]&0x9f000000 == 0x90000000 && w[1] == 0x91000000|rd<<5|rd && back(2):
		pages := uint32(pageARM64(w[0], target)>>12 - addr>>12)
		return decodeARM64(0x90000000|pages&3<<29|pages>>2&(1<<19-1)<<5|rd, addr), true
	}
	return Inst{}, false
}

// Instructions that do nothing, and that wait for another CPU.
const (
	NopARM64   = 0xd503201f
	YieldARM64 = 0xd503203f
)

// btiC stands where indirect calls may go, and jumps by x16 or x17.
const btiC = 0xd503245f

// Instructions against speculation. CPUs without FEAT_CLRBHB take the first one for a nop.
const (
	clearBHB = 0xd50322df
	csdb     = 0xd503229f
	sb       = 0xd50330ff
)

// Word is the instruction's word when it is one of arm64 that is not 0, else 0.
func (i Inst) Word() uint32 { return i.arm64 }

// SitesARM64 finds every indirect branch and return of the arm64 function that begins at addr, as [Sites] does.
func SitesARM64(code []byte, addr uint64) ([]Site, Returns) {
	var sites []Site
	returns := make(Returns)
	for _, b := range BranchesARM64(code, addr, nil, nil) {
		switch b.Class {
		case ClassReturn:
			returns["ret"]++
		case ClassRegister:
			sites = append(sites, Site{Offset: b.Offset, Kind: SiteRegister, Jump: b.Jump, Register: b.Register,
				Check: b.Check, CheckLen: b.CheckLen})
		}
	}
	return sites, returns
}

// BranchesARM64 classifies every call, jump and return of the arm64 function
// that begins at addr, as [Branches] does. There are no thunks on arm64:
// indirect branches are ClassRegister. Of facts it uses the static keys.
// resolve and facts may be nil.
func BranchesARM64(code []byte, addr uint64, resolve Resolver, facts *Facts) []Branch {
	var out []Branch
	for b := range EachBranchARM64(code, addr, resolve, facts) {
		out = append(out, *b)
	}
	return out
}

// EachBranchARM64 yields what [BranchesARM64] returns, one at a time and in memory that the next one takes.
func EachBranchARM64(code []byte, addr uint64, resolve Resolver, facts *Facts) iter.Seq[*Branch] {
	if facts == nil {
		facts = new(Facts)
	}
	return func(yield func(*Branch) bool) {
		var b Branch
		for off := 0; off+4 <= len(code); off += 4 {
			f := flowARM64(binary.LittleEndian.Uint32(code[off:]))
			if f.kind == Other && f.op == "" && len(facts.StaticKeys) == 0 {
				continue
			}
			b = branchARM64(f, code, off, addr, resolve, facts)
			if b.Class != "" && !yield(&b) {
				return
			}
		}
	}
}

// branchARM64 classifies the instruction at an offset of the function that begins at addr; one that is no branch
// has no class.
func branchARM64(f flow, code []byte, off int, addr uint64, resolve Resolver, facts *Facts) Branch {
	at, end := addr+uint64(off), addr+uint64(len(code))
	b := Branch{Addr: at, Offset: uint64(off), Signed: f.signed}
	switch f.kind {
	case CallDirect:
		b.Class, b.Target = ClassDirect, at+f.rel
	case JumpDirect:
		b.Class, b.Jump, b.Target = ClassDirect, true, at+f.rel
	case JumpCond:
		b.Class, b.Jump, b.Conditional, b.Target = ClassConditional, true, true, at+f.rel
	case CallIndirect:
		b.Class, b.Register = ClassRegister, xregister(f.reg)
		b.Check, b.CheckLen = checkedARM64(code[:off], f.reg)
	case JumpIndirect:
		b.Class, b.Jump, b.Register = ClassRegister, true, xregister(f.reg)
		b.Check, b.CheckLen = checkedARM64(code[:off], f.reg)
	case Return:
		b.Class, b.Jump = ClassReturn, true
	default:
		if f.op != "" { // eret
			b.Class, b.Jump = ClassFar, true
		}
	}
	if b.Target != 0 && (b.Target < addr || b.Target >= end) {
		b.Name = resolve.lookup(b.Target)
		switch {
		case b.Name == "":
		case strings.HasPrefix(b.Name, "bpf_dispatcher_") && strings.HasSuffix(b.Name, "_func"):
			b.Class = ClassDispatcher
		case b.Jump && !strings.HasSuffix(b.Name, ".cold"):
			b.Class = ClassTailCall
		}
	}
	if fact, ok := facts.StaticKeys[at]; ok {
		b.Fact, b.Jump, b.Nop = fact, true, b.Class == ""
		b.Class = ClassStaticKey
	}
	return b
}

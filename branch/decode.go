package branch

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// Kind is what an instruction does to the flow of control.
type Kind uint8

const (
	// Other falls through to the next instruction.
	Other Kind = iota
	// CallDirect and JumpDirect have their target in the instruction.
	CallDirect
	JumpDirect
	// JumpCond is a conditional direct jump.
	JumpCond
	// CallIndirect and JumpIndirect take their target from a register or
	// from memory.
	CallIndirect
	JumpIndirect
	// Return is a bare ret.
	Return
	// Fence is lfence, pause, ibhf or another instruction that is only there to
	// hold back speculation.
	Fence
	// Trap is int3 or ud2: not meant to be reached.
	Trap
	// Bad is a byte that does not decode.
	Bad
)

// Inst is one instruction.
type Inst struct {
	// Addr is the virtual address, Len the length in bytes.
	Addr uint64
	Len  int
	Kind Kind
	// Target is where a direct branch goes.
	Target uint64
	// Asm is the decoded instruction of x86-64. Its Op is 0 for Bad, and for
	// the few instructions x86asm does not know but whose length is known.
	Asm x86asm.Inst
	// raw is the text for those.
	raw string
	// arm64 is the instruction word when it is one of arm64, else 0.
	arm64 uint32
}

// String is the instruction in GNU syntax, "call *%rax". Direct branches
// have their target as a hexadecimal address.
func (i Inst) String() string { return i.Text(nil) }

// Text is the instruction in GNU syntax, with a direct branch's target named
// by resolve, which may be nil.
func (i Inst) Text(resolve Resolver) string {
	if i.raw != "" {
		return i.raw
	}
	if i.arm64 != 0 {
		return i.textARM64(resolve)
	}
	switch i.Kind {
	case CallDirect, JumpDirect, JumpCond:
		op := strings.ToLower(i.Asm.Op.String())
		return op + " " + resolve.name(i.Target)
	}
	text := x86asm.GNUSyntax(i.Asm, i.Addr, nil)
	if op, rest, _ := strings.Cut(text, " "); gnuNames[op] != "" {
		text = strings.TrimSpace(gnuNames[op] + " " + rest)
	}
	// x86asm names the index that a SIB byte has not.
	return address(strings.Replace(text, ",%riz)", ")", 1), i.Asm.DataSize)
}

// gnuNames are what the assembler calls instructions that x86asm calls
// otherwise.
var gnuNames = map[string]string{
	"movsxd": "movslq", "cdqe": "cltq", "cwde": "cwtl", "cbw": "cbtw", "cqo": "cqto", "cdq": "cltd", "cwd": "cwtd",
	"leaveq": "leave", "pushfq": "pushf", "popfq": "popf",
}

// address writes an immediate that is a kernel address as one:
// "$-0x7db1d620" as "$0xffffffff824e29e0". bits are the size of the operands.
func address(text string, bits int) string {
	before, rest, ok := strings.Cut(text, "$-0x")
	if !ok {
		return text
	}
	hex, after, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil || n < 1<<24 {
		return text
	}
	if after != "" {
		after = "," + after
	}
	if n = -n; bits == 32 {
		n = uint64(uint32(n))
	}
	return fmt.Sprintf("%s$%#x%s", before, n, after)
}

// Resolver names the symbol that an address lies in, and reports whether the
// symbol begins exactly there. The name is empty when there is no symbol. Code is
// named only where its symbol begins; a variable also by an address inside it.
type Resolver func(addr uint64) (string, bool)

// Follow gives the first bytes of the code at an address, 32 or what is there.
// It returns nil when there is no code.
type Follow func(addr uint64) []byte

// lookup is the symbol that begins at addr, or "".
func (r Resolver) lookup(addr uint64) string {
	if r == nil {
		return ""
	}
	name, ok := r(addr)
	if !ok {
		return ""
	}
	return name
}

// within is the symbol that addr lies in, or "".
func (r Resolver) within(addr uint64) string {
	if r == nil {
		return ""
	}
	name, _ := r(addr)
	return name
}

func (r Resolver) name(addr uint64) string {
	if name := r.lookup(addr); name != "" {
		return name
	}
	return fmt.Sprintf("%#x", addr)
}

// Decode yields the instructions of x86-64 code, the first byte of which is at
// addr. Lengths and kinds are those of [Scan], which is much faster and has no
// operands; x86asm gives the text. A byte that does not decode is yielded as a
// Bad instruction of length 1, so every byte belongs to exactly one instruction.
func Decode(code []byte, addr uint64) iter.Seq[Inst] {
	return func(yield func(Inst) bool) {
		for len(code) > 0 {
			inst := decode(code, addr)
			if !yield(inst) {
				return
			}
			code, addr = code[inst.Len:], addr+uint64(inst.Len)
		}
	}
}

func decode(code []byte, addr uint64) Inst {
	var step Step
	next(code, addr, &step)
	inst := Inst{Addr: addr, Len: step.Len, Kind: step.Kind, Target: step.Target}
	if step.Kind == Bad {
		inst.raw = "(bad)"
		return inst
	}
	code = code[:step.Len]
	if inst.raw = known(code); inst.raw != "" {
		return inst
	}
	a, err := x86asm.Decode(code, 64)
	// Op 0 with a nil error is a failure too (golang/go#35865).
	hash := step.Kind == JumpDirect && a.Len+hashLen == step.Len // see overHash
	if err != nil || a.Op == 0 || a.Len != step.Len && !hash {
		inst.raw = bytesText(code)
		return inst
	}
	for n, arg := range a.Args {
		// x86asm forgets the sign of 32-bit displacements.
		if mem, ok := arg.(x86asm.Mem); ok && mem.Disp > math.MaxInt32 && mem.Disp <= math.MaxUint32 {
			mem.Disp = int64(int32(mem.Disp))
			a.Args[n] = mem
		}
	}
	inst.Asm = a
	return inst
}

// bytesText is code that has a length but no name here, as the assembler
// takes it.
func bytesText(code []byte) string {
	text := []byte(".byte ")
	for i, b := range code {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, "%#02x", b)
	}
	return string(text)
}

// known is the text of instructions that x86asm decodes wrongly or not at
// all: endbr64 and endbr32, and the register forms of 0f 01 (vmcall, stac,
// clac, swapgs, …).
func known(code []byte) string {
	n := 0
	if code[0] == 0xf2 || code[0] == 0xf3 || code[0] == 0x66 {
		n = 1
	}
	op := code[n:]
	if string(code) == "\xf3\x48\x0f\x1e\xf8" {
		return "ibhf"
	}
	if len(op) == 1 && op[0] == 0xd6 {
		return "udb"
	}
	if len(op) != 3 || op[0] != 0x0f {
		return ""
	}
	if n == 1 && code[0] == 0xf3 && op[1] == 0x1e && op[2] == 0xfa {
		return "endbr64"
	}
	if n == 1 && code[0] == 0xf3 && op[1] == 0x1e && op[2] == 0xfb {
		return "endbr32"
	}
	if op[1] != 0x01 || op[2] < 0xc0 {
		return ""
	}
	if n == 0 {
		switch op[2] {
		case 0xc1:
			return "vmcall"
		case 0xc2:
			return "vmlaunch"
		case 0xc3:
			return "vmresume"
		case 0xc4:
			return "vmxoff"
		case 0xca:
			return "clac"
		case 0xcb:
			return "stac"
		case 0xcf:
			return "encls"
		case 0xd0:
			return "xgetbv"
		case 0xd1:
			return "xsetbv"
		case 0xd8:
			return "vmrun"
		case 0xd9:
			return "vmmcall"
		case 0xe8:
			return "serialize"
		case 0xee:
			return "rdpkru"
		case 0xef:
			return "wrpkru"
		case 0xf8:
			return "swapgs"
		case 0xf9:
			return "rdtscp"
		}
	}
	if code[0] == 0xf3 && op[2] == 0xd9 {
		return "vmgexit"
	}
	return bytesText(code)
}

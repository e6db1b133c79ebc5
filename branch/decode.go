package branch

import (
	"fmt"
	"iter"
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
	// Fence is lfence, pause or another instruction that is only there to
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
	// Asm is the decoded instruction. Its Op is 0 for Bad, and for the few
	// instructions x86asm does not know but whose length is known.
	Asm x86asm.Inst
	// raw is the text for those.
	raw string
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
	switch i.Kind {
	case CallDirect, JumpDirect, JumpCond:
		op := strings.ToLower(i.Asm.Op.String())
		return op + " " + resolve.name(i.Target)
	}
	return x86asm.GNUSyntax(i.Asm, i.Addr, nil)
}

// Resolver names the code at an address: the symbol that begins exactly
// there. It returns false when there is none.
type Resolver func(addr uint64) (string, bool)

func (r Resolver) lookup(addr uint64) string {
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

// Decode yields the instructions of code, the first byte of which is at
// addr. A byte that does not decode is yielded as a Bad instruction of
// length 1, so every byte belongs to exactly one instruction.
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
	if inst, ok := unknown(code, addr); ok {
		return inst
	}
	a, err := x86asm.Decode(code, 64)
	// Op 0 with a nil error is a failure too (golang/go#35865).
	if err != nil || a.Op == 0 || a.Len <= 0 || a.Len > len(code) {
		return Inst{Addr: addr, Len: 1, Kind: Bad, raw: "(bad)"}
	}
	inst := Inst{Addr: addr, Len: a.Len, Asm: a}
	rel, direct := a.Args[0].(x86asm.Rel)
	if direct {
		inst.Target = addr + uint64(a.Len) + uint64(int64(rel))
	}
	switch a.Op {
	case x86asm.CALL:
		inst.Kind = CallIndirect
		if direct {
			inst.Kind = CallDirect
		}
	case x86asm.JMP:
		inst.Kind = JumpIndirect
		if direct {
			inst.Kind = JumpDirect
		}
	case x86asm.LCALL, x86asm.LJMP:
		// Far branches change the code segment; no C function has one.
	case x86asm.RET, x86asm.LRET:
		inst.Kind = Return
	case x86asm.LFENCE, x86asm.PAUSE:
		inst.Kind = Fence
	case x86asm.INT, x86asm.UD2, x86asm.UD1:
		inst.Kind = Trap
	default:
		if direct {
			inst.Kind = JumpCond
		}
	}
	return inst
}

// unknown handles instructions that x86asm decodes wrongly or not at all and
// whose length is known: endbr64 and endbr32, and the register forms of
// 0f 01 (vmcall, stac, clac, swapgs, …), which are three bytes long.
func unknown(code []byte, addr uint64) (Inst, bool) {
	n := 0
	for n < len(code) && n < 1 && (code[n] == 0xf2 || code[n] == 0xf3 || code[n] == 0x66) {
		n++
	}
	op := code[n:]
	if n == 1 && code[0] == 0xf3 && len(op) >= 3 && op[0] == 0x0f && op[1] == 0x1e && (op[2] == 0xfa || op[2] == 0xfb) {
		text := "endbr64"
		if op[2] == 0xfb {
			text = "endbr32"
		}
		return Inst{Addr: addr, Len: 4, raw: text}, true
	}
	if len(op) >= 3 && op[0] == 0x0f && op[1] == 0x01 && op[2] >= 0xc0 {
		text := fmt.Sprintf("0f 01 %02x", op[2])
		switch op[2] {
		case 0xca:
			text = "clac"
		case 0xcb:
			text = "stac"
		case 0xf8:
			text = "swapgs"
		}
		return Inst{Addr: addr, Len: n + 3, raw: text}, true
	}
	return Inst{}, false
}

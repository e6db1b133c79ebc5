package filter

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"

	"github.com/unthunk/unthunk/xsk"
)

// Registers of the classic machine. R2 and R3 hold the frame's begin and end.
const (
	regA   = asm.R7
	regX   = asm.R8
	regTmp = asm.R4
	regAt  = asm.R5
)

// scratch is where M[0] lies on the stack; see xsk.ProgramOptions.
const scratch = -40

// farOffset is as far as a load reaches: the verifier's bound of an offset into
// a packet is 0xffff, that of an instruction's half.
const farOffset = 0x7000

// Claim translates classic BPF to what xsk.ProgramOptions.Claim takes. A load
// outside of the frame ends the program with no match, as in the kernel. Frames
// of several buffers are judged by the first.
func Claim(program []bpf.Instruction) (asm.Instructions, error) {
	t := translator{program: program}
	if err := t.reach(); err != nil {
		return nil, err
	}
	t.out = asm.Instructions{asm.Mov.Imm(regA, 0), asm.Mov.Imm(regX, 0)}
	if t.scratched {
		for i := range 16 {
			t.out = append(t.out, asm.StoreMem(asm.RFP, scratchAt(i), regA, asm.DWord))
		}
	}
	for i, ins := range program {
		if !t.reached[i] {
			continue
		}
		first := len(t.out)
		if err := t.one(i, ins); err != nil {
			return nil, fmt.Errorf("translate instruction %d, %v: %w", i, ins, err)
		}
		t.out[first] = t.out[first].WithSymbol(symbol(i))
	}
	return t.out, nil
}

type translator struct {
	program            []bpf.Instruction
	reached            []bool
	scratched, matches bool
	out                asm.Instructions
}

func symbol(i int) string { return fmt.Sprintf("classic_%d", i) }

func scratchAt(i int) int16 { return int16(scratch - 8*i) }

// successors of an instruction, none after a return.
func successors(i int, ins bpf.Instruction) []int {
	switch ins := ins.(type) {
	case bpf.Jump:
		return []int{i + 1 + int(ins.Skip)}
	case bpf.JumpIf:
		return []int{i + 1 + int(ins.SkipTrue), i + 1 + int(ins.SkipFalse)}
	case bpf.JumpIfX:
		return []int{i + 1 + int(ins.SkipTrue), i + 1 + int(ins.SkipFalse)}
	case bpf.RetA, bpf.RetConstant:
		return nil
	}
	return []int{i + 1}
}

// reach finds which instructions can be reached: the verifier refuses others.
func (t *translator) reach() error {
	n := len(t.program)
	if n == 0 || n > maxInstructions {
		return fmt.Errorf("classic BPF of %d instructions", n)
	}
	t.reached = make([]bool, n)
	t.reached[0] = true
	for i, ins := range t.program { // jumps go forward only
		if !t.reached[i] {
			continue
		}
		switch ins := ins.(type) {
		case bpf.LoadScratch, bpf.StoreScratch:
			t.scratched = true
		case bpf.RetA:
			t.matches = true
		case bpf.RetConstant:
			t.matches = t.matches || ins.Val != 0
		}
		for _, next := range successors(i, ins) {
			if next >= n {
				return fmt.Errorf("classic BPF ends without a return")
			}
			t.reached[next] = true
		}
	}
	if !t.matches {
		return fmt.Errorf("filter matches nothing")
	}
	return nil
}

var sizes = map[int]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word}

func (t *translator) emit(ins ...asm.Instruction) { t.out = append(t.out, ins...) }

// load loads size bytes at regAt + off into a register, after a check.
func (t *translator) load(to, at asm.Register, off uint32, size int) error {
	s, ok := sizes[size]
	if !ok || off > farOffset {
		return fmt.Errorf("a load of %d bytes at %d", size, off)
	}
	t.emit(
		asm.Mov.Reg(regTmp, at),
		asm.Add.Imm(regTmp, int32(off)+int32(size)),
		asm.JGT.Reg(regTmp, asm.R3, xsk.PassLabel),
		asm.LoadMem(to, at, int16(off), s),
	)
	if size > 1 {
		t.emit(asm.HostTo(asm.BE, to, s))
	}
	return nil
}

func (t *translator) one(i int, ins bpf.Instruction) error {
	switch ins := ins.(type) {
	case bpf.LoadConstant:
		to, err := register(ins.Dst)
		t.emit(asm.Mov.Imm32(to, int32(ins.Val)))
		return err
	case bpf.LoadScratch:
		to, err := register(ins.Dst)
		if err != nil || ins.N < 0 || ins.N > 15 {
			return fmt.Errorf("no such place")
		}
		t.emit(asm.LoadMem(to, asm.RFP, scratchAt(ins.N), asm.DWord))
	case bpf.StoreScratch:
		from, err := register(ins.Src)
		if err != nil || ins.N < 0 || ins.N > 15 {
			return fmt.Errorf("no such place")
		}
		t.emit(asm.StoreMem(asm.RFP, scratchAt(ins.N), from, asm.DWord))
	case bpf.LoadAbsolute:
		if ins.Off > farOffset {
			// No frame is so long; the kernel's own extensions lie there too.
			return fmt.Errorf("offset %#x", ins.Off)
		}
		return t.load(regA, asm.R2, ins.Off, ins.Size)
	case bpf.LoadIndirect:
		if ins.Off > farOffset {
			return fmt.Errorf("offset %#x", ins.Off)
		}
		t.emit(
			asm.JGT.Imm(regX, farOffset, xsk.PassLabel),
			asm.Mov.Reg(regAt, asm.R2),
			asm.Add.Reg(regAt, regX),
		)
		return t.load(regA, regAt, ins.Off, ins.Size)
	case bpf.LoadMemShift:
		if err := t.load(regX, asm.R2, ins.Off, 1); err != nil {
			return err
		}
		t.emit(asm.And.Imm(regX, 0xf), asm.LSh.Imm(regX, 2))
	case bpf.LoadExtension:
		if ins.Num != bpf.ExtLen {
			return fmt.Errorf("XDP has nothing like it")
		}
		t.emit(asm.Mov.Reg(regA, asm.R3), asm.Sub.Reg(regA, asm.R2), asm.Mov.Reg32(regA, regA))
	case bpf.ALUOpConstant:
		if (ins.Op == bpf.ALUOpDiv || ins.Op == bpf.ALUOpMod) && ins.Val == 0 {
			return fmt.Errorf("division by zero")
		}
		op, err := operation(ins.Op)
		if err != nil {
			return err
		}
		val := ins.Val
		if ins.Op == bpf.ALUOpShiftLeft || ins.Op == bpf.ALUOpShiftRight {
			val &= 31
		}
		t.emit(op.Imm32(regA, int32(val)))
	case bpf.ALUOpX:
		op, err := operation(ins.Op)
		if err != nil {
			return err
		}
		if ins.Op == bpf.ALUOpDiv || ins.Op == bpf.ALUOpMod {
			t.emit(asm.JEq.Imm(regX, 0, xsk.PassLabel))
		}
		t.emit(op.Reg32(regA, regX))
	case bpf.NegateA:
		t.emit(asm.Neg.Imm32(regA, 0))
	case bpf.TAX:
		t.emit(asm.Mov.Reg32(regX, regA))
	case bpf.TXA:
		t.emit(asm.Mov.Reg32(regA, regX))
	case bpf.Jump:
		t.emit(asm.Ja.Label(symbol(i + 1 + int(ins.Skip))))
	case bpf.JumpIf:
		return t.jump(i, ins.Cond, ins.SkipTrue, ins.SkipFalse, func(op asm.JumpOp, to string) asm.Instruction {
			return op.Imm32(regA, int32(ins.Val), to)
		})
	case bpf.JumpIfX:
		return t.jump(i, ins.Cond, ins.SkipTrue, ins.SkipFalse, func(op asm.JumpOp, to string) asm.Instruction {
			return op.Reg32(regA, regX, to)
		})
	case bpf.RetConstant:
		if ins.Val != 0 {
			t.emit(asm.Ja.Label(xsk.ClaimLabel))
		} else {
			t.emit(asm.Ja.Label(xsk.PassLabel))
		}
	case bpf.RetA:
		t.emit(asm.JEq.Imm32(regA, 0, xsk.PassLabel), asm.Ja.Label(xsk.ClaimLabel))
	default:
		return fmt.Errorf("it is not known")
	}
	return nil
}

func register(r bpf.Register) (asm.Register, error) {
	switch r {
	case bpf.RegA:
		return regA, nil
	case bpf.RegX:
		return regX, nil
	}
	return regA, fmt.Errorf("no such register")
}

func operation(op bpf.ALUOp) (asm.ALUOp, error) {
	switch op {
	case bpf.ALUOpAdd:
		return asm.Add, nil
	case bpf.ALUOpSub:
		return asm.Sub, nil
	case bpf.ALUOpMul:
		return asm.Mul, nil
	case bpf.ALUOpDiv:
		return asm.Div, nil
	case bpf.ALUOpMod:
		return asm.Mod, nil
	case bpf.ALUOpOr:
		return asm.Or, nil
	case bpf.ALUOpAnd:
		return asm.And, nil
	case bpf.ALUOpXor:
		return asm.Xor, nil
	case bpf.ALUOpShiftLeft:
		return asm.LSh, nil
	case bpf.ALUOpShiftRight:
		return asm.RSh, nil
	}
	return 0, fmt.Errorf("no such operation")
}

// jump goes one way when a test holds and the other when it does not.
func (t *translator) jump(i int, test bpf.JumpTest, yes, no uint8, make func(asm.JumpOp, string) asm.Instruction) error {
	to, other := symbol(i+1+int(yes)), symbol(i+1+int(no))
	switch test {
	case bpf.JumpEqual:
		t.emit(make(asm.JEq, to))
	case bpf.JumpNotEqual:
		t.emit(make(asm.JNE, to))
	case bpf.JumpGreaterThan:
		t.emit(make(asm.JGT, to))
	case bpf.JumpLessThan:
		t.emit(make(asm.JLT, to))
	case bpf.JumpGreaterOrEqual:
		t.emit(make(asm.JGE, to))
	case bpf.JumpLessOrEqual:
		t.emit(make(asm.JLE, to))
	case bpf.JumpBitsSet:
		t.emit(make(asm.JSet, to))
	case bpf.JumpBitsNotSet:
		to, other = other, to
		t.emit(make(asm.JSet, to))
	default:
		return fmt.Errorf("no such comparison")
	}
	t.emit(asm.Ja.Label(other))
	return nil
}

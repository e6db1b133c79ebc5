package codeflow

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
)

// register is the number of the 64-bit register that r is a part of.
func register(r x86asm.Reg) (int, bool) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return int(r - x86asm.RAX), true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return int(r - x86asm.EAX), true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return int(r - x86asm.AX), true
	case r >= x86asm.AL && r <= x86asm.BL:
		return int(r - x86asm.AL), true
	case r >= x86asm.AH && r <= x86asm.BH:
		return int(r - x86asm.AH), true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return int(r-x86asm.SPB) + regSP, true
	}
	return 0, false
}

func wide(r x86asm.Reg) bool { return r >= x86asm.RAX && r <= x86asm.R15 }
func half(r x86asm.Reg) bool { return r >= x86asm.EAX && r <= x86asm.R15L }

// address is what a memory operand refers to; indexed tells that an unknown
// index is part of it.
func (vs *Values) address(s *State, m x86asm.Mem, inst branch.Inst) (addr *Value, indexed bool) {
	next := inst.Addr + uint64(inst.Len)
	if m.Segment == x86asm.GS {
		switch {
		case m.Base == x86asm.RIP:
			return vs.intern(Value{op: opPerCPU, n: next + uint64(m.Disp)}), m.Index != 0
		case m.Base == 0 && m.Index == 0:
			return vs.intern(Value{op: opPerCPU, n: uint64(m.Disp)}), false
		case m.Index == 0:
			if r, ok := register(m.Base); ok {
				v := s.regs[r]
				if v != nil && v.op == opNumber {
					return vs.intern(Value{op: opPerCPU, n: v.n + uint64(m.Disp)}), false
				}
				return vs.add(v, m.Disp, false), false // a pointer to per-CPU data
			}
		}
		return nil, false
	}
	if m.Segment == x86asm.FS {
		return nil, false
	}
	if m.Base == x86asm.RIP {
		return vs.number(next + uint64(m.Disp)), m.Index != 0
	}
	var base, index *Value
	if m.Base != 0 {
		r, ok := register(m.Base)
		if !ok || !wide(m.Base) {
			return nil, false
		}
		base = s.regs[r]
	} else {
		base = vs.number(0)
	}
	if m.Index == 0 {
		return vs.add(base, m.Disp, false), false
	}
	if r, ok := register(m.Index); ok {
		index = s.regs[r]
	}
	scale := uint64(max(m.Scale, 1))
	switch {
	case index != nil && index.op == opNumber:
		return vs.add(base, m.Disp+int64(index.n*scale), false), false
	case index != nil && index.op == opCPU && base != nil && scale == 1:
		return vs.sum(vs.add(base, m.Disp, false), index), false
	case base != nil && base.op == opCPU && index != nil && scale == 1:
		return vs.sum(vs.add(index, m.Disp, false), base), false
	case scale == 1 && (base == nil || base.op == opNumber) && index != nil && index.elem != nil:
		// The pointer may be the index.
		disp := m.Disp
		if base != nil {
			return vs.add(index, disp+int64(base.n), false), false
		}
		base = index
	}
	if base == nil || base.op == opStack {
		return nil, false
	}
	if base.op == opNumber {
		if base.n+uint64(m.Disp) < 1<<20 {
			return nil, false // no address, only a displacement
		}
		return vs.add(base, m.Disp, false), true
	}
	return vs.add(base, m.Disp, true), true
}

// sum is a plus b.
func (vs *Values) sum(a, b *Value) *Value {
	switch {
	case a == nil || b == nil:
		return nil
	case a.op == opCPU:
		a, b = b, a
	}
	if b.op == opCPU {
		switch {
		case a.op == opNumber:
			return vs.intern(Value{op: opPerCPU, n: a.n})
		case a.op == opCPU:
			return nil
		}
		return a // a pointer to per-CPU data, made one of this CPU
	}
	switch {
	case b.op == opNumber:
		return vs.add(a, int64(b.n), false)
	case a.op == opNumber:
		return vs.add(b, int64(a.n), false)
	}
	return nil
}

// Operand is the value of an operand of inst before it runs.
func (vs *Values) Operand(s *State, arg x86asm.Arg, inst branch.Inst) *Value {
	switch a := arg.(type) {
	case x86asm.Reg:
		if r, ok := register(a); ok && wide(a) {
			return s.regs[r]
		}
		// The low half of a number is a number.
		if r, ok := register(a); ok && half(a) && s.regs[r] != nil && s.regs[r].op == opNumber {
			return vs.number(uint64(uint32(s.regs[r].n)))
		}
	case x86asm.Imm:
		return vs.number(uint64(a))
	case x86asm.Mem:
		if inst.Asm.MemBytes != 8 {
			return nil
		}
		addr, indexed := vs.address(s, a, inst)
		if addr != nil && addr.op == opStack && !indexed {
			return s.slot(addr.disp)
		}
		return vs.load(addr, indexed)
	}
	return nil
}

// StoredAt is what an instruction stores, 8 bytes, at a distance from a register, and what that register holds; false for
// other instructions. Without a state it only tells them apart.
func (vs *Values) StoredAt(s *State, inst branch.Inst, disp int64) (base, value *Value, ok bool) {
	if w := inst.Word(); w != 0 {
		rn, rt, ok := storedARM64(w, disp)
		if !ok || s == nil {
			return nil, nil, ok
		}
		return s.regs[rn], vs.get(s, rt), true
	}
	m, ok := inst.Asm.Args[0].(x86asm.Mem)
	if !ok || inst.Asm.Op != x86asm.MOV || inst.Asm.MemBytes != 8 || m.Disp != disp {
		return nil, nil, false
	}
	if s == nil {
		return nil, nil, true
	}
	return vs.Operand(s, m.Base, inst), vs.Operand(s, inst.Asm.Args[1], inst), true
}

// write sets an operand.
func (vs *Values) write(s *State, arg x86asm.Arg, inst branch.Inst, v *Value) {
	switch a := arg.(type) {
	case x86asm.Reg:
		r, ok := register(a)
		if !ok {
			return
		}
		switch {
		case wide(a):
		case half(a) && v != nil && v.op == opNumber:
			v = vs.number(uint64(uint32(v.n)))
		default:
			v = nil
		}
		s.regs[r] = v
	case x86asm.Mem:
		addr, indexed := vs.address(s, a, inst)
		switch {
		case addr != nil && addr.op == opStack && !indexed:
			s.store(addr.disp, inst.Asm.MemBytes, v)
		case addr == nil && onStack(s, a):
			// Some element of an array on the stack.
			r, _ := register(a.Base)
			s.forget(s.regs[r].disp+a.Disp, 1<<62)
		}
	}
}

func onStack(s *State, m x86asm.Mem) bool {
	r, ok := register(m.Base)
	return ok && wide(m.Base) && s.regs[r] != nil && s.regs[r].op == opStack
}

// step does one instruction to the state.
func (vs *Values) step(s *State, inst branch.Inst) {
	if inst.Word() != 0 {
		vs.stepARM64(s, inst)
		return
	}
	a := inst.Asm.Args
	switch inst.Kind {
	case branch.CallDirect, branch.CallIndirect:
		vs.call(s, inst)
		return
	case branch.JumpDirect, branch.JumpCond, branch.JumpIndirect, branch.Return, branch.Fence, branch.Trap, branch.Bad:
		return
	}
	switch inst.Asm.Op {
	case 0, x86asm.NOP, x86asm.CMP, x86asm.TEST, x86asm.BT,
		x86asm.PREFETCHT0, x86asm.PREFETCHT1, x86asm.PREFETCHT2, x86asm.PREFETCHNTA, x86asm.PREFETCHW:
	case x86asm.MOV:
		vs.write(s, a[0], inst, vs.Operand(s, a[1], inst))
	case x86asm.LEA:
		if m, ok := a[1].(x86asm.Mem); ok {
			addr, indexed := vs.address(s, m, inst)
			if indexed && addr != nil && (addr.op == opNumber || addr.op == opPerCPU) {
				addr = vs.intern(Value{op: opAdd, base: addr, indexed: true, elem: vs.element(addr)})
			}
			vs.write(s, a[0], inst, addr)
		}
	case x86asm.ADD, x86asm.SUB:
		v := vs.Operand(s, a[0], inst)
		b := vs.Operand(s, a[1], inst)
		switch {
		case v == nil || b == nil:
			v = nil
		case inst.Asm.Op == x86asm.SUB:
			if b.op == opNumber {
				v = vs.add(v, -int64(b.n), false)
			} else {
				v = nil
			}
		default:
			v = vs.sum(v, b)
		}
		vs.write(s, a[0], inst, v)
	case x86asm.XOR:
		var v *Value
		if a[0] == a[1] {
			v = vs.number(0)
		}
		vs.write(s, a[0], inst, v)
	case x86asm.AND:
		// Aligning the stack moves it down or not at all: code is the same for both, so for the latter.
		if align, ok := a[1].(x86asm.Imm); ok && a[0] == x86asm.RSP && align < 0 {
			break
		}
		vs.write(s, a[0], inst, nil)
	case x86asm.PUSH:
		v := vs.Operand(s, a[0], inst)
		if sp := s.regs[regSP]; sp != nil && sp.op == opStack {
			s.regs[regSP] = vs.add(sp, -8, false)
			s.store(sp.disp-8, 8, v)
		}
	case x86asm.POP:
		var v *Value
		if sp := s.regs[regSP]; sp != nil && sp.op == opStack {
			v = s.slot(sp.disp)
			s.regs[regSP] = vs.add(sp, 8, false)
		}
		vs.write(s, a[0], inst, v)
	case x86asm.LEAVE:
		bp := s.regs[regBP]
		s.regs[regSP], s.regs[regBP] = nil, nil
		if bp != nil && bp.op == opStack {
			s.regs[regBP] = s.slot(bp.disp)
			s.regs[regSP] = vs.add(bp, 8, false)
		}
	case x86asm.XCHG:
		x, y := vs.Operand(s, a[0], inst), vs.Operand(s, a[1], inst)
		vs.write(s, a[0], inst, y)
		vs.write(s, a[1], inst, x)
	case x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG,
		x86asm.CMOVGE, x86asm.CMOVL, x86asm.CMOVLE, x86asm.CMOVNE, x86asm.CMOVNO, x86asm.CMOVNP,
		x86asm.CMOVNS, x86asm.CMOVO, x86asm.CMOVP, x86asm.CMOVS:
		vs.write(s, a[0], inst, vs.join(vs.Operand(s, a[0], inst), vs.Operand(s, a[1], inst), inst.Addr))
	case x86asm.INC, x86asm.DEC:
		vs.write(s, a[0], inst, nil)
	case x86asm.MUL, x86asm.DIV, x86asm.IDIV, x86asm.CQO, x86asm.CDQ, x86asm.CWD, x86asm.RDTSC,
		x86asm.RDTSCP, x86asm.RDMSR, x86asm.CPUID, x86asm.CBW, x86asm.CWDE, x86asm.CDQE, x86asm.LAHF:
		s.regs[regAX], s.regs[regDX] = nil, nil
		if inst.Asm.Op == x86asm.CPUID {
			s.regs[regBX] = nil
		}
		if inst.Asm.Op == x86asm.CPUID || inst.Asm.Op == x86asm.RDTSCP {
			s.regs[regCX] = nil
		}
	case x86asm.CMPXCHG:
		s.regs[regAX] = nil
		vs.write(s, a[0], inst, nil)
	case x86asm.CMPXCHG16B, x86asm.CMPXCHG8B:
		s.regs[regAX], s.regs[regDX] = nil, nil
		vs.write(s, a[0], inst, nil)
	case x86asm.XADD:
		vs.write(s, a[0], inst, nil)
		vs.write(s, a[1], inst, nil)
	case x86asm.MOVSB, x86asm.MOVSW, x86asm.MOVSD, x86asm.MOVSQ, x86asm.STOSB, x86asm.STOSW,
		x86asm.STOSD, x86asm.STOSQ, x86asm.LODSB, x86asm.LODSW, x86asm.LODSD, x86asm.LODSQ,
		x86asm.CMPSB, x86asm.CMPSQ, x86asm.SCASB, x86asm.SCASQ:
		// They may write anywhere on from rdi.
		if di := s.regs[regDI]; di != nil && di.op == opStack {
			s.forget(di.disp, 1<<62)
		}
		s.regs[regCX], s.regs[regDI] = nil, nil
		switch inst.Asm.Op {
		case x86asm.STOSB, x86asm.STOSW, x86asm.STOSD, x86asm.STOSQ, x86asm.SCASB, x86asm.SCASQ: // these leave rsi
		case x86asm.LODSB, x86asm.LODSW, x86asm.LODSD, x86asm.LODSQ:
			s.regs[regAX], s.regs[regSI] = nil, nil
		default:
			s.regs[regSI] = nil
		}
	case x86asm.IMUL:
		if a[1] == nil {
			s.regs[regAX], s.regs[regDX] = nil, nil
		} else {
			vs.write(s, a[0], inst, nil)
		}
	default:
		if a[0] != nil {
			vs.write(s, a[0], inst, nil)
		}
	}
}

package xdppath

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
)

// Registers by x86 number.
const (
	regAX = iota
	regCX
	regDX
	regBX
	regSP
	regBP
	regSI
	regDI
	reg8
	reg9
	reg10
	reg11
	registers = 16
)

// arguments are the registers that hold a function's arguments.
var arguments = [6]int{regDI, regSI, regDX, regCX, reg8, reg9}

// clobbered are the registers that a call does not keep.
var clobbered = [...]int{regAX, regCX, regDX, regSI, regDI, reg8, reg9, reg10, reg11}

// slot is 8 bytes of the stack at an offset from the stack pointer at entry.
type slot struct {
	off int64
	val *value
}

// maxSlots bounds the stack that is followed in one function.
const maxSlots = 256

// state is what is known before an instruction.
type state struct {
	regs  [registers]*value
	slots []slot // by off
	seen  bool   // something is known
}

func (s *state) clone() state {
	c := *s
	c.slots = slices.Clone(s.slots)
	return c
}

func (s *state) slot(off int64) *value {
	i, ok := slices.BinarySearchFunc(s.slots, off, func(e slot, o int64) int { return cmp.Compare(e.off, o) })
	if !ok {
		return nil
	}
	return s.slots[i].val
}

// forget drops what overlaps [from, to).
func (s *state) forget(from, to int64) {
	s.slots = slices.DeleteFunc(s.slots, func(e slot) bool { return e.off < to && e.off+8 > from })
}

func (s *state) store(off int64, size int, v *value) {
	s.forget(off, off+int64(max(size, 1)))
	if v == nil || size != 8 || len(s.slots) >= maxSlots {
		return
	}
	i, _ := slices.BinarySearchFunc(s.slots, off, func(e slot, o int64) int { return cmp.Compare(e.off, o) })
	s.slots = slices.Insert(s.slots, i, slot{off, v})
}

// meet makes s what holds on both ways and tells whether that changed it.
// at is the number of the block where they meet.
func (w *walker) meet(s *state, t *state, at int) bool {
	if !s.seen {
		*s = t.clone()
		s.seen = true
		return true
	}
	changed := false
	for r := range s.regs {
		v := w.join(s.regs[r], t.regs[r], uint64(at)<<16|uint64(r))
		if v != s.regs[r] {
			s.regs[r], changed = v, true
		}
	}
	kept := s.slots[:0]
	for _, e := range s.slots {
		v := w.join(e.val, t.slot(e.off), uint64(at)<<16|uint64(uint16(e.off))|1<<15)
		if v != e.val {
			changed = true
		}
		if v != nil {
			kept = append(kept, slot{e.off, v})
		}
	}
	s.slots = kept
	return changed
}

// maxVisits bounds how often each block of a function is gone through. A
// value changes at most four times (known, joined, unsure, not known), and
// they change together.
const maxVisits = 24

// flow follows values through a function until nothing changes. It calls at
// for each reached instruction, in order of addresses within a block, with
// what is known before it; blocks that nothing leads to begin with nothing.
// It returns false when it gave up.
func (w *walker) flow(g *graph, entry state, at func(b, i int, s *state)) bool {
	if len(g.blocks) > 0 {
		w.start = g.insts[g.blocks[g.entry].first].Addr
	}
	order := g.order()
	place := make([]int, len(g.blocks))
	for i, b := range order {
		place[b] = i
	}
	in := make([]state, len(g.blocks))
	dirty := make([]bool, len(g.blocks)) // by place
	settled := true
	if len(order) > 0 {
		entry.seen = true
		in[order[0]] = entry
	}
	empty := state{seen: true}
	empty.regs[regSP] = nil
	for i, b := range order {
		dirty[i] = true
		if i > 0 && len(g.blocks[b].preds) == 0 {
			in[b] = empty.clone()
		}
	}
	visits := 0
	for i := 0; i < len(order); {
		b := order[i]
		if !dirty[i] {
			i++
			continue
		}
		dirty[i] = false
		if !in[b].seen {
			i++
			continue
		}
		if visits++; visits > maxVisits*len(order) {
			settled = false
			break
		}
		s := in[b].clone()
		for _, inst := range g.insts[g.blocks[b].first:g.blocks[b].end] {
			w.step(&s, inst)
		}
		back := i + 1
		for _, e := range g.blocks[b].succs {
			if w.meet(&in[e.to], &s, e.to) {
				dirty[place[e.to]] = true
				back = min(back, place[e.to])
			}
		}
		i = back
	}
	if !settled {
		// What is known is not what always holds: forget it.
		for b := range in {
			in[b] = empty.clone()
		}
	}
	for b := range g.blocks {
		s := in[b].clone()
		for i := g.blocks[b].first; i < g.blocks[b].end; i++ {
			at(b, i, &s)
			w.step(&s, g.insts[i])
		}
	}
	return settled
}

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

// address is what a memory operand refers to; many tells that an unknown
// index is part of it.
func (w *walker) address(s *state, m x86asm.Mem, inst branch.Inst) (addr *value, many bool) {
	next := inst.Addr + uint64(inst.Len)
	if m.Segment == x86asm.GS {
		switch {
		case m.Base == x86asm.RIP:
			return w.intern(value{op: opPerCPU, n: next + uint64(m.Disp)}), m.Index != 0
		case m.Base == 0 && m.Index == 0:
			return w.intern(value{op: opPerCPU, n: uint64(m.Disp)}), false
		case m.Index == 0:
			if r, ok := register(m.Base); ok {
				v := s.regs[r]
				if v != nil && v.op == opNumber {
					return w.intern(value{op: opPerCPU, n: v.n + uint64(m.Disp)}), false
				}
				return w.add(v, m.Disp, false), false // a pointer to per-CPU data
			}
		}
		return nil, false
	}
	if m.Segment == x86asm.FS {
		return nil, false
	}
	if m.Base == x86asm.RIP {
		return w.number(next + uint64(m.Disp)), m.Index != 0
	}
	var base, index *value
	if m.Base != 0 {
		r, ok := register(m.Base)
		if !ok || !wide(m.Base) {
			return nil, false
		}
		base = s.regs[r]
	} else {
		base = w.number(0)
	}
	if m.Index == 0 {
		return w.add(base, m.Disp, false), false
	}
	if r, ok := register(m.Index); ok {
		index = s.regs[r]
	}
	scale := uint64(max(m.Scale, 1))
	switch {
	case index != nil && index.op == opNumber:
		return w.add(base, m.Disp+int64(index.n*scale), false), false
	case index != nil && index.op == opCPU && base != nil && scale == 1:
		return w.sum(w.add(base, m.Disp, false), index), false
	case base != nil && base.op == opCPU && index != nil && scale == 1:
		return w.sum(w.add(index, m.Disp, false), base), false
	case scale == 1 && (base == nil || base.op == opNumber) && index != nil && index.elem != nil:
		// The pointer may be the index.
		disp := m.Disp
		if base != nil {
			return w.add(index, disp+int64(base.n), false), false
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
		return w.add(base, m.Disp, false), true
	}
	return w.add(base, m.Disp, true), true
}

// sum is a plus b.
func (w *walker) sum(a, b *value) *value {
	switch {
	case a == nil || b == nil:
		return nil
	case a.op == opCPU:
		a, b = b, a
	}
	if b.op == opCPU {
		switch {
		case a.op == opNumber:
			return w.intern(value{op: opPerCPU, n: a.n})
		case a.op == opCPU:
			return nil
		}
		return a // a pointer to per-CPU data, made one of this CPU
	}
	switch {
	case b.op == opNumber:
		return w.add(a, int64(b.n), false)
	case a.op == opNumber:
		return w.add(b, int64(a.n), false)
	}
	return nil
}

// read is the value of an operand.
func (w *walker) read(s *state, arg x86asm.Arg, inst branch.Inst) *value {
	switch a := arg.(type) {
	case x86asm.Reg:
		if r, ok := register(a); ok && wide(a) {
			return s.regs[r]
		}
		// The low half of a number is a number.
		if r, ok := register(a); ok && half(a) && s.regs[r] != nil && s.regs[r].op == opNumber {
			return w.number(uint64(uint32(s.regs[r].n)))
		}
	case x86asm.Imm:
		return w.number(uint64(a))
	case x86asm.Mem:
		if inst.Asm.MemBytes != 8 {
			return nil
		}
		addr, many := w.address(s, a, inst)
		if addr != nil && addr.op == opStack && !many {
			return s.slot(addr.disp)
		}
		return w.load(addr, many)
	}
	return nil
}

// write sets an operand.
func (w *walker) write(s *state, arg x86asm.Arg, inst branch.Inst, v *value) {
	switch a := arg.(type) {
	case x86asm.Reg:
		r, ok := register(a)
		if !ok {
			return
		}
		switch {
		case wide(a):
		case half(a) && v != nil && v.op == opNumber:
			v = w.number(uint64(uint32(v.n)))
		default:
			v = nil
		}
		s.regs[r] = v
	case x86asm.Mem:
		addr, many := w.address(s, a, inst)
		switch {
		case addr != nil && addr.op == opStack && !many:
			s.store(addr.disp, inst.Asm.MemBytes, v)
		case addr == nil && onStack(s, a):
			// Some element of an array on the stack.
			r, _ := register(a.Base)
			s.forget(s.regs[r].disp+a.Disp, 1<<62)
		}
	}
}

func onStack(s *state, m x86asm.Mem) bool {
	r, ok := register(m.Base)
	return ok && wide(m.Base) && s.regs[r] != nil && s.regs[r].op == opStack
}

// step does one instruction to the state.
func (w *walker) step(s *state, inst branch.Inst) {
	a := inst.Asm.Args
	switch inst.Kind {
	case branch.CallDirect, branch.CallIndirect:
		if !w.hook(inst) {
			w.call(s, inst)
		}
		return
	case branch.JumpDirect, branch.JumpCond, branch.JumpIndirect, branch.Return, branch.Fence, branch.Trap, branch.Bad:
		return
	}
	switch inst.Asm.Op {
	case 0, x86asm.NOP, x86asm.CMP, x86asm.TEST, x86asm.BT,
		x86asm.PREFETCHT0, x86asm.PREFETCHT1, x86asm.PREFETCHT2, x86asm.PREFETCHNTA, x86asm.PREFETCHW:
	case x86asm.MOV:
		w.write(s, a[0], inst, w.read(s, a[1], inst))
	case x86asm.LEA:
		if m, ok := a[1].(x86asm.Mem); ok {
			addr, many := w.address(s, m, inst)
			if many && addr != nil && (addr.op == opNumber || addr.op == opPerCPU) {
				addr = w.intern(value{op: opAdd, base: addr, many: true, elem: w.element(addr)})
			}
			w.write(s, a[0], inst, addr)
		}
	case x86asm.ADD, x86asm.SUB:
		v := w.read(s, a[0], inst)
		b := w.read(s, a[1], inst)
		switch {
		case v == nil || b == nil:
			v = nil
		case inst.Asm.Op == x86asm.SUB:
			if b.op == opNumber {
				v = w.add(v, -int64(b.n), false)
			} else {
				v = nil
			}
		default:
			v = w.sum(v, b)
		}
		w.write(s, a[0], inst, v)
	case x86asm.XOR:
		var v *value
		if a[0] == a[1] {
			v = w.number(0)
		}
		w.write(s, a[0], inst, v)
	case x86asm.AND:
		// Aligning the stack keeps what it points to, only not where.
		w.write(s, a[0], inst, nil)
	case x86asm.PUSH:
		v := w.read(s, a[0], inst)
		if sp := s.regs[regSP]; sp != nil && sp.op == opStack {
			s.regs[regSP] = w.add(sp, -8, false)
			s.store(sp.disp-8, 8, v)
		}
	case x86asm.POP:
		var v *value
		if sp := s.regs[regSP]; sp != nil && sp.op == opStack {
			v = s.slot(sp.disp)
			s.regs[regSP] = w.add(sp, 8, false)
		}
		w.write(s, a[0], inst, v)
	case x86asm.LEAVE:
		bp := s.regs[regBP]
		s.regs[regSP], s.regs[regBP] = nil, nil
		if bp != nil && bp.op == opStack {
			s.regs[regBP] = s.slot(bp.disp)
			s.regs[regSP] = w.add(bp, 8, false)
		}
	case x86asm.XCHG:
		x, y := w.read(s, a[0], inst), w.read(s, a[1], inst)
		w.write(s, a[0], inst, y)
		w.write(s, a[1], inst, x)
	case x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG,
		x86asm.CMOVGE, x86asm.CMOVL, x86asm.CMOVLE, x86asm.CMOVNE, x86asm.CMOVNO, x86asm.CMOVNP,
		x86asm.CMOVNS, x86asm.CMOVO, x86asm.CMOVP, x86asm.CMOVS:
		w.write(s, a[0], inst, w.join(w.read(s, a[0], inst), w.read(s, a[1], inst), inst.Addr))
	case x86asm.INC, x86asm.DEC:
		w.write(s, a[0], inst, nil)
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
		w.write(s, a[0], inst, nil)
	case x86asm.CMPXCHG16B, x86asm.CMPXCHG8B:
		s.regs[regAX], s.regs[regDX] = nil, nil
		w.write(s, a[0], inst, nil)
	case x86asm.XADD:
		w.write(s, a[0], inst, nil)
		w.write(s, a[1], inst, nil)
	case x86asm.MOVSB, x86asm.MOVSW, x86asm.MOVSD, x86asm.MOVSQ, x86asm.STOSB, x86asm.STOSW,
		x86asm.STOSD, x86asm.STOSQ, x86asm.LODSB, x86asm.LODSW, x86asm.LODSD, x86asm.LODSQ,
		x86asm.CMPSB, x86asm.CMPSQ, x86asm.SCASB, x86asm.SCASQ:
		// They may write anywhere on from rdi.
		if di := s.regs[regDI]; di != nil && di.op == opStack {
			s.forget(di.disp, 1<<62)
		}
		s.regs[regCX], s.regs[regSI], s.regs[regDI] = nil, nil, nil
		if op := inst.Asm.Op; op == x86asm.LODSB || op == x86asm.LODSW || op == x86asm.LODSD || op == x86asm.LODSQ {
			s.regs[regAX] = nil
		}
	case x86asm.IMUL:
		if a[1] == nil {
			s.regs[regAX], s.regs[regDX] = nil, nil
		} else {
			w.write(s, a[0], inst, nil)
		}
	default:
		if a[0] != nil {
			w.write(s, a[0], inst, nil)
		}
	}
}

// element is the type of what lies at a global address.
func (w *walker) element(addr *value) btf.Type {
	name, off, ok := w.variableAt(addr.n, addr.op == opPerCPU)
	if !ok {
		return nil
	}
	return w.types.at(w.types.variable(name), off, wantObject).typ
}

// hook tells whether a call is that of the function tracer or of a BPF
// trampoline at the entry of a function, which keeps all registers. It stands
// first, or after an endbr64.
func (w *walker) hook(inst branch.Inst) bool {
	if inst.Kind != branch.CallDirect || inst.Addr != w.start && inst.Addr != w.start+4 {
		return false
	}
	s, off, ok := w.kernel.Symbols.Find(inst.Target)
	return !ok || off != 0 || s.Name == "__fentry__" || s.Module == "bpf" || s.Module == "ftrace" ||
		strings.HasPrefix(s.Name, "ftrace_") || strings.HasPrefix(s.Name, "bpf_trampoline_")
}

// call forgets what a call may change and types what it returns.
func (w *walker) call(s *state, inst branch.Inst) {
	name := ""
	if inst.Kind == branch.CallDirect {
		name = w.symbol(inst.Target)
	}
	// A local whose address is given away may be written to.
	var p proto
	if name != "" {
		p = w.types.proto(name)
	}
	for i, r := range arguments {
		v := s.regs[r]
		if v == nil || v.op != opStack {
			continue
		}
		end := int64(1) << 62
		if p.typ != nil {
			if i >= len(p.typ.Params) {
				continue
			}
			if n := w.types.size(pointee(p.typ.Params[i].Type)); n > 0 && !scalar(pointee(p.typ.Params[i].Type)) {
				end = v.disp + n
			}
		}
		s.forget(v.disp, end)
	}
	var returned *value
	if p.typ != nil {
		if elem := pointee(p.typ.Return); elem != nil {
			returned = w.intern(value{op: opReturn, name: name, elem: elem, likely: !p.sure})
		}
	}
	for _, r := range clobbered {
		s.regs[r] = nil
	}
	s.regs[regAX] = returned
}

// entry is the state at the entry of a function: its arguments by its
// prototype, or as its first caller on the path gives them.
func (w *walker) entry(name string, given [6]*value) state {
	var s state
	s.regs[regSP] = w.intern(value{op: opStack})
	p := w.types.proto(name)
	r := 0
	if p.typ != nil {
		for i, param := range p.typ.Params {
			if r >= len(arguments) {
				break
			}
			words := 1
			if size := w.types.size(strip(param.Type)); size > 8 {
				if words = 2; size > 16 {
					continue // in memory
				}
			}
			elem := pointee(param.Type)
			v := value{op: opArgument, disp: int64(i), elem: elem, likely: !p.sure}
			if _, ok := elem.(*btf.FuncProto); ok {
				v.name = "argument " + param.Name + " of " + name
			}
			s.regs[arguments[r]] = w.intern(v)
			// A caller may know more: the member that a function pointer
			// comes from, or the type behind void *.
			if g := given[r]; g != nil && g.elem != nil && (v.name != "" && g.name != "" || elem == nil && words == 1 && isPointer(param.Type)) {
				s.regs[arguments[r]] = w.guess(g)
			}
			r += words
		}
		return s
	}
	for i, g := range given {
		if g != nil && g.elem != nil {
			s.regs[arguments[i]] = w.guess(g)
		}
	}
	return s
}

func isPointer(t btf.Type) bool {
	_, ok := strip(t).(*btf.Pointer)
	return ok
}

// guess is v as one caller gives it; others may give something else.
func (w *walker) guess(v *value) *value {
	c := *v
	c.likely = true
	return w.intern(c)
}

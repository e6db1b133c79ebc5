package codeflow

import (
	"github.com/unthunk/unthunk/branch"
)

// Registers of arm64 have their numbers; 31 is the stack pointer, or in other places of an instruction zero.
const (
	arm64SP   = 31
	arm64Zero = 31
)

// stepARM64 does one instruction of arm64 to the state: the Arm Architecture Reference Manual, C4.1, says which bits
// are what. What is not known writes its first register.
func (vs *Values) stepARM64(s *State, inst branch.Inst) {
	switch inst.Kind {
	case branch.CallDirect, branch.CallIndirect:
		vs.call(s, inst)
		return
	case branch.Other:
	default:
		return
	}
	w := inst.Word()
	switch w >> 25 & 15 {
	case 0b1000, 0b1001:
		vs.immediateARM64(s, w, inst.Addr)
	case 0b0101, 0b1101:
		vs.registerARM64(s, w, inst.Addr)
	case 0b0100, 0b0110, 0b1100, 0b1110:
		vs.memoryARM64(s, w, inst.Addr)
	case 0b1010, 0b1011:
		vs.systemARM64(s, w)
	default: // of vectors, some of which write a register
		s.set(bits(w, 0, 5), nil)
	}
}

// set writes a register of which 31 is zero.
func (s *State) set(r int, v *Value) {
	if r != arm64Zero {
		s.regs[r] = v
	}
}

// get reads a register of which 31 is zero.
func (vs *Values) get(s *State, r int) *Value {
	if r == arm64Zero {
		return vs.number(0)
	}
	return s.regs[r]
}

// sized is v in a register of 64 bits or, when wide is unset, of 32: only of a number the low half is known.
func (vs *Values) sized(v *Value, wide bool) *Value {
	switch {
	case wide || v == nil:
		return v
	case v.op == opNumber:
		return vs.number(uint64(uint32(v.n)))
	}
	return nil
}

// bits are n bits of w from bit low on.
func bits(w uint32, low, n int) int { return int(w >> low & (1<<n - 1)) }

// signedBits is [bits] with a sign.
func signedBits(w uint32, low, n int) int64 { return int64(int32(w<<(32-low-n))) >> (32 - n) }

// immediateARM64 does data processing with an immediate.
func (vs *Values) immediateARM64(s *State, w uint32, addr uint64) {
	rd, rn, wide := bits(w, 0, 5), bits(w, 5, 5), w>>31 != 0
	switch {
	case w&0x1f000000 == 0x10000000: // adr, adrp
		n := signedBits(w, 5, 19)<<2 | int64(bits(w, 29, 2))
		if wide {
			s.set(rd, vs.number(addr&^0xfff+uint64(n<<12)))
		} else {
			s.set(rd, vs.number(addr+uint64(n)))
		}
	case w&0x1f800000 == 0x11000000: // add, sub; with flags rd of 31 is zero, else the stack pointer
		n := int64(bits(w, 10, 12)) << (12 * bits(w, 22, 1))
		if w>>30&1 != 0 {
			n = -n
		}
		v := vs.sized(vs.add(s.regs[rn], n, false), wide)
		if w>>29&1 != 0 {
			s.set(rd, v)
		} else {
			s.regs[rd] = v
		}
	case w&0x1f800000 == 0x12000000: // and, orr, eor, ands
		if w>>29&3 == 3 {
			s.set(rd, nil)
		} else {
			s.regs[rd] = nil // aligning the stack keeps what it points to, only not where
		}
	case w&0x1f800000 == 0x12800000: // movn, movz, movk
		shift := 16 * bits(w, 21, 2)
		n := uint64(bits(w, 5, 16)) << shift
		switch bits(w, 29, 2) {
		case 0:
			s.set(rd, vs.sized(vs.number(^n), wide))
		case 2:
			s.set(rd, vs.number(n))
		default:
			if old := vs.get(s, rd); old != nil && old.op == opNumber {
				s.set(rd, vs.sized(vs.number(old.n&^(0xffff<<shift)|n), wide))
			} else {
				s.set(rd, nil)
			}
		}
	default:
		s.set(rd, nil)
	}
}

// registerARM64 does data processing with registers.
func (vs *Values) registerARM64(s *State, w uint32, addr uint64) {
	rd, rn, rm, wide := bits(w, 0, 5), bits(w, 5, 5), bits(w, 16, 5), w>>31 != 0
	switch {
	case w&0x7fe0ffe0 == 0x2a0003e0: // mov
		s.set(rd, vs.sized(vs.get(s, rm), wide))
	case w&0x1f200000 == 0x0b000000: // add, sub of a shifted register
		s.set(rd, vs.sized(vs.shifted(vs.get(s, rn), vs.get(s, rm), bits(w, 10, 6), w), wide))
	case w&0x1fe00000 == 0x0b200000: // add, sub of an extended register
		index := vs.get(s, rm)
		if bits(w, 13, 3)&3 != 3 {
			index = nil // extended from 32 bits
		}
		v := vs.sized(vs.shifted(s.regs[rn], index, bits(w, 10, 3), w&^(3<<22)), wide)
		if w>>29&1 != 0 {
			s.set(rd, v)
		} else {
			s.regs[rd] = v
		}
	case w&0x1fe00000 == 0x1a800000: // csel, and those that change the second
		var v *Value
		if w&0x40000c00 == 0 {
			v = vs.sized(vs.join(vs.get(s, rn), vs.get(s, rm), addr), wide)
		}
		s.set(rd, v)
	case w&0x3fe00000 == 0x3a400000: // ccmn, ccmp
	case w&0xffff0000 == 0xdac10000: // pointer authentication: the register points to the same
	default:
		s.set(rd, nil)
	}
}

// shifted is a plus or minus b, as bit 30 of w says, which is shifted to the left; other shifts are not known. When b is
// not known it may be what chooses an element of the table at a.
func (vs *Values) shifted(a, b *Value, shift int, w uint32) *Value {
	minus, left := w>>30&1 != 0, w>>22&3 == 0
	switch {
	case a != nil && b == nil && !minus && left && table(a, shift):
		return vs.add(a, 0, true)
	case a == nil || b == nil || shift != 0 && !left:
		return nil
	case b.op == opNumber:
		n := int64(b.n << shift)
		if minus {
			n = -n
		}
		return vs.add(a, n, false)
	case minus || shift != 0:
		return nil
	}
	return vs.sum(a, b)
}

// table tells whether a value to which an unknown one is added, shifted to the left, is the address of a table: of a
// variable, or what has a type when the other is a number of elements of more than one byte.
func table(v *Value, shift int) bool {
	switch v.op {
	case opNumber:
		return v.n >= 1<<20 // else a displacement
	case opPerCPU:
		return true
	case opStack, opCPU:
		return false
	}
	return shift != 0 && v.elem != nil
}

// memoryARM64 does loads, stores and atomics.
func (vs *Values) memoryARM64(s *State, w uint32, addr uint64) {
	rt, rn, size := bits(w, 0, 5), bits(w, 5, 5), 1<<bits(w, 30, 2)
	vector := w>>26&1 != 0
	switch {
	case w&0x3b000000 == 0x18000000: // ldr of what lies near the code
		if !vector {
			var v *Value
			if bits(w, 30, 2) == 1 {
				v = vs.load(vs.number(addr+uint64(signedBits(w, 5, 19)<<2)), false)
			}
			s.set(rt, v)
		}
	case w&0x3a000000 == 0x28000000: // ldp, stp
		vs.pairARM64(s, w)
	case w&0x3f000000 == 0x08000000: // exclusive, ordered, compare and swap
		vs.orderedARM64(s, w, size)
	case w&0x3b000000 == 0x39000000: // ldr, str at a distance
		at := vs.add(s.regs[rn], int64(bits(w, 10, 12))<<scaleARM64(w), false)
		vs.transfer(s, w, at, false)
	case w&0x3b200c00 == 0x38200800: // of a register
		at, indexed := vs.indexedARM64(s, w)
		vs.transfer(s, w, at, indexed)
	case w&0x3b200c00 == 0x38200000: // atomics, which give what was there
		s.set(rt, nil)
		if v := s.regs[rn]; v != nil && v.op == opStack {
			s.forget(v.disp, v.disp+8)
		}
	case w&0x3b200000 == 0x38000000: // at a signed distance, before or behind which the address is written back
		n := signedBits(w, 12, 9)
		base := s.regs[rn]
		at := vs.add(base, n, false)
		mode := bits(w, 10, 2)
		to := at
		if mode == 1 {
			to = base
		}
		vs.transfer(s, w, to, false)
		if mode&1 != 0 {
			s.regs[rn] = at
		}
	case w&0xbe800000 == 0x0c800000: // structures of vectors, behind which the address is written back
		s.regs[rn] = nil
	default:
		if !vector {
			s.set(rt, nil)
		}
	}
}

// scaleARM64 is the binary logarithm of how many bytes a load or store of one register moves: 4 of a vector's 16.
func scaleARM64(w uint32) int {
	if w&0xc4800000 == 0x04800000 {
		return 4
	}
	return bits(w, 30, 2)
}

// transfer loads or stores one register. Vectors hold no pointers, and prefetches do nothing.
func (vs *Values) transfer(s *State, w uint32, at *Value, indexed bool) {
	rt, size, opc := bits(w, 0, 5), bits(w, 30, 2), bits(w, 22, 2)
	vector := w>>26&1 != 0
	onStack := at != nil && at.op == opStack
	switch {
	case opc == 0 || vector && opc == 2: // a store
		var v *Value
		if !vector && size == 3 {
			v = vs.get(s, rt)
		}
		switch {
		case onStack && indexed:
			s.forget(at.disp, 1<<62) // some element of an array
		case onStack:
			s.store(at.disp, 1<<scaleARM64(w), v)
		}
	case vector, size == 3 && opc == 2:
	case size == 3 && opc == 1:
		s.set(rt, vs.loaded(s, at, indexed))
	default:
		s.set(rt, nil)
	}
}

// storedARM64 are the registers of an instruction that stores 8 bytes at a distance: str, stur, and one of stp's.
func storedARM64(w uint32, disp int64) (rn, rt int, ok bool) {
	rn, rt = bits(w, 5, 5), bits(w, 0, 5)
	switch {
	case w&0xffc00000 == 0xf9000000:
		return rn, rt, disp == int64(bits(w, 10, 12))<<3
	case w&0xffe00c00 == 0xf8000000:
		return rn, rt, disp == signedBits(w, 12, 9)
	case w&0xffc00000 == 0xa9000000:
		first := signedBits(w, 15, 7) * 8
		if disp == first+8 {
			return rn, bits(w, 10, 5), true
		}
		return rn, rt, disp == first
	}
	return 0, 0, false
}

// loaded is the 8 bytes at an address, on the stack too.
func (vs *Values) loaded(s *State, at *Value, indexed bool) *Value {
	if at != nil && at.op == opStack {
		if indexed {
			return nil
		}
		return s.slot(at.disp)
	}
	return vs.load(at, indexed)
}

// indexedARM64 is the address of a base and an index.
func (vs *Values) indexedARM64(s *State, w uint32) (at *Value, indexed bool) {
	base, index := s.regs[bits(w, 5, 5)], vs.get(s, bits(w, 16, 5))
	shift := 0
	if w>>12&1 != 0 {
		shift = scaleARM64(w)
	}
	if bits(w, 13, 3)&3 != 3 && (index == nil || index.op != opNumber) {
		index = nil // extended from 32 bits
	}
	switch {
	case base == nil && index != nil && index.elem != nil && shift == 0:
		return vs.add(index, 0, true), true // the pointer may be the index
	case base == nil:
		return nil, false
	case index != nil && index.op == opNumber:
		return vs.add(base, int64(index.n<<shift), false), false
	case shift == 0 && index != nil && (base.op == opCPU || index.op == opCPU):
		return vs.sum(base, index), false
	case base.op == opStack:
		return base, true
	}
	return vs.add(base, 0, true), true
}

// pairARM64 loads or stores two registers.
func (vs *Values) pairARM64(s *State, w uint32) {
	rt, rn, rt2 := bits(w, 0, 5), bits(w, 5, 5), bits(w, 10, 5)
	vector, load, opc := w>>26&1 != 0, w>>22&1 != 0, bits(w, 30, 2)
	size := int64(4)
	switch {
	case vector:
		size = 4 << opc
	case opc == 2:
		size = 8
	}
	base := s.regs[rn]
	moved := vs.add(base, signedBits(w, 15, 7)*size, false)
	at := moved
	mode := bits(w, 23, 2)
	if mode == 1 { // behind
		at = base
	}
	second := vs.add(at, size, false)
	switch {
	case load && vector:
	case load && size == 8:
		a, b := vs.loaded(s, at, false), vs.loaded(s, second, false)
		s.set(rt, a)
		s.set(rt2, b)
	case load:
		s.set(rt, nil)
		s.set(rt2, nil)
	case at != nil && at.op == opStack:
		var a, b *Value
		if !vector && size == 8 {
			a, b = vs.get(s, rt), vs.get(s, rt2)
		}
		s.store(at.disp, int(size), a)
		s.store(second.disp, int(size), b)
	}
	if mode&1 != 0 {
		s.regs[rn] = moved
	}
}

// orderedARM64 does loads and stores that are ordered or exclusive, and compare and swap.
func (vs *Values) orderedARM64(s *State, w uint32, size int) {
	rt, rn, status, second := bits(w, 0, 5), bits(w, 5, 5), bits(w, 16, 5), bits(w, 10, 5)
	ordered, load, pair := w>>23&1 != 0, w>>22&1 != 0, w>>21&1 != 0
	at := s.regs[rn]
	switch {
	case ordered && pair: // cas gives what was there
		s.set(status, nil)
	case pair && w>>31 == 0: // casp
		s.set(status, nil)
		s.set(status|1, nil)
	case load && size == 8 && !pair:
		s.set(rt, vs.loaded(s, at, false))
		return
	case load:
		s.set(rt, nil)
		if pair {
			s.set(second, nil)
		}
		return
	case !ordered:
		s.set(status, nil)
	}
	if at != nil && at.op == opStack {
		s.forget(at.disp, at.disp+16)
	}
}

// systemARM64 does system instructions: the registers that tell CPUs and tasks apart are known, a call of
// firmware keeps x18 and what is above it (SMC Calling Convention, 2.6).
func (vs *Values) systemARM64(s *State, w uint32) {
	rt := bits(w, 0, 5)
	switch {
	case w&0xffffffe0 == 0xd538d080, w&0xffffffe0 == 0xd53cd040: // mrs of tpidr_el1, tpidr_el2
		s.set(rt, vs.intern(Value{op: opCPU}))
	case w&0xffffffe0 == 0xd5384100: // mrs of sp_el0, the current task
		s.set(rt, vs.intern(Value{op: opReturn, name: "get_current", elem: vs.types.Struct("task_struct")}))
	case w&0xfff00000 == 0xd5300000, w&0xfff80000 == 0xd5280000: // mrs, sysl
		s.set(rt, nil)
	case w&0xff000000 == 0xd4000000: // svc, hvc, smc
		for r := range 18 {
			s.regs[r] = nil
		}
	}
}

package codeflow

import (
	"cmp"
	"slices"
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

// Arguments are the values of the six registers that hold a function's arguments, in
// their order.
type Arguments [6]*Value

// clobbered are the registers that a call does not keep.
var clobbered = [...]int{regAX, regCX, regDX, regSI, regDI, reg8, reg9, reg10, reg11}

var registerNames = [registers]string{
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
}

// slot is 8 bytes of the stack at an offset from the stack pointer at entry.
type slot struct {
	off int64
	val *Value
}

// maxSlots bounds the stack that is followed in one function.
const maxSlots = 256

// State is what is known before an instruction.
type State struct {
	regs  [registers]*Value
	slots []slot // by off
	seen  bool   // something is known
}

// Arguments are those values of the registers of arguments whose type is known.
func (s *State) Arguments() (out Arguments) {
	for i, r := range arguments {
		if v := s.regs[r]; v != nil && v.elem != nil {
			out[i] = v
		}
	}
	return out
}

// Register is the value of the 64-bit register called name, "rax".
func (s *State) Register(name string) *Value {
	r := slices.Index(registerNames[:], name)
	if r < 0 {
		return nil
	}
	return s.regs[r]
}

func (s *State) clone() State {
	c := *s
	c.slots = slices.Clone(s.slots)
	return c
}

func (s *State) slot(off int64) *Value {
	i, ok := slices.BinarySearchFunc(s.slots, off, func(e slot, o int64) int { return cmp.Compare(e.off, o) })
	if !ok {
		return nil
	}
	return s.slots[i].val
}

// forget drops what overlaps [from, to).
func (s *State) forget(from, to int64) {
	s.slots = slices.DeleteFunc(s.slots, func(e slot) bool { return e.off < to && e.off+8 > from })
}

func (s *State) store(off int64, size int, v *Value) {
	s.forget(off, off+int64(max(size, 1)))
	if v == nil || size != 8 || len(s.slots) >= maxSlots {
		return
	}
	i, _ := slices.BinarySearchFunc(s.slots, off, func(e slot, o int64) int { return cmp.Compare(e.off, o) })
	s.slots = slices.Insert(s.slots, i, slot{off, v})
}

// meet makes s what holds on both ways, the one of s and the one of t, and tells
// whether that changed s. at is the number of the block where the ways meet.
func (vs *Values) meet(s, t *State, at int) bool {
	if !s.seen {
		*s = t.clone()
		s.seen = true
		return true
	}
	changed := false
	for r := range s.regs {
		v := vs.join(s.regs[r], t.regs[r], uint64(at)<<16|uint64(r))
		if v != s.regs[r] {
			s.regs[r], changed = v, true
		}
	}
	kept := s.slots[:0]
	for _, e := range s.slots {
		v := vs.join(e.val, t.slot(e.off), uint64(at)<<16|uint64(uint16(e.off))|1<<15)
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

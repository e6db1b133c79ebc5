package codeflow

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
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
)

// registers is how many an architecture has at most.
const registers = 32

// calling is how functions of an architecture are called.
type calling struct {
	registers int
	// arguments are the registers that hold a function's arguments, clobbered those that a call does not keep.
	arguments, clobbered []int
	returned, stack      int
}

var callings = map[string]*calling{
	"amd64": {16, []int{regDI, regSI, regDX, regCX, reg8, reg9},
		[]int{regAX, regCX, regDX, regSI, regDI, reg8, reg9, reg10, reg11}, regAX, regSP},
	"arm64": {32, []int{0, 1, 2, 3, 4, 5, 6, 7},
		[]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 30}, 0, arm64SP},
}

// Arguments are the values of the registers that hold a function's arguments, in their order: six on
// x86-64, eight on arm64.
type Arguments [8]*Value

var registerNames = []string{
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

// Arguments are those values of the registers of arguments whose type is known, or that are a function.
func (vs *Values) Arguments(s *State) (out Arguments) {
	for i, r := range vs.calling.arguments {
		if v := s.regs[r]; v != nil && (v.elem != nil || vs.function(v) != "") {
			out[i] = v
		}
	}
	return out
}

// Argument is the value of the register of a function's argument, by its number from 0.
func (vs *Values) Argument(s *State, n int) *Value { return s.regs[vs.calling.arguments[n]] }

// Register is the value of the 64-bit register called name, "rax" or "x8".
func (s *State) Register(name string) *Value {
	if number, ok := strings.CutPrefix(name, "x"); ok {
		if r, err := strconv.ParseUint(number, 10, 8); err == nil && r < arm64SP {
			return s.regs[r]
		}
		return nil
	}
	r := slices.Index(registerNames, name)
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
	for r := range vs.calling.registers {
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

package profile

import (
	"encoding/binary"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
)

// entry is how a function came to run.
type entry struct {
	kind entryKind
	// site is the indirect branch it was entered by, of kind indirectly.
	site Frame
}

type entryKind uint8

const (
	unknown entryKind = iota
	directly
	indirectly
)

// reader reads the code of one round.
type reader struct {
	kernel  *kernel.Kernel
	entries map[[2]uint64]entry
	starts  map[uint64]uint64 // where the first instructions of a function end
}

func newReader(k *kernel.Kernel) *reader {
	return &reader{k, make(map[[2]uint64]entry), make(map[uint64]uint64)}
}

// framed tells whether a function of arm64 has a frame at addr, so that the frame pointer leads to its caller: behind the
// instruction that sets it, and before the one that gives the caller's back. A function without calls never has one.
func (r *reader) framed(addr uint64) bool {
	s, off, ok := r.kernel.Symbols.Find(addr)
	if !ok || off >= kernel.MaxFunction {
		return true
	}
	code, err := r.kernel.Read(s.Addr, off)
	if err != nil {
		return true
	}
	set, restored := false, false
	for ; len(code) >= 4; code = code[4:] {
		switch w := binary.LittleEndian.Uint32(code); {
		case w&0xffc003ff == 0x910003fd: // add x29, sp, #n
			set = true
		case w&0xffc07fff == 0xa8c07bfd, w&0xffc07fff == 0xa9407bfd: // ldp x29, x30, [sp], #n; ldp x29, x30, [sp, #n]
			restored = true
		case w == 0xd65f03c0, w&0xfc000000 == 0x14000000: // ret, b: what follows is reached on another way
			restored = false
		}
	}
	return set && !restored
}

// thunk tells whether an indirect thunk begins at addr.
func (r *reader) thunk(addr uint64) bool {
	s, off, ok := r.kernel.Symbols.Find(addr)
	if ok {
		return off == 0 && indirectThunk(s.Name)
	}
	// ITS thunks are made at boot and have no name.
	code := r.kernel.Follow(addr)
	return branch.NameIndirectThunk(code, addr, r.kernel.Symbols.Starts).Kind == branch.ThunkITS
}

func indirectThunk(name string) bool { return strings.HasPrefix(name, "__x86_indirect_") }

// returnThunk tells the functions that returns go through.
func returnThunk(name string) bool {
	return branch.ReturnThunk(name) || strings.HasPrefix(name, "srso_") || strings.HasPrefix(name, "retbleed_")
}

// entered is how the function that begins at start was entered by the call that
// returns to ret. A thunk counts as a function.
func (r *reader) entered(start, ret uint64) entry {
	key := [2]uint64{start, ret}
	e, ok := r.entries[key]
	if !ok {
		e = r.enteredBy(start, ret)
		r.entries[key] = e
	}
	return e
}

func (r *reader) enteredBy(start, ret uint64) entry {
	call, ok := r.callBefore(ret)
	switch {
	case !ok:
		return entry{}
	case call.Kind == branch.CallIndirect, r.thunk(call.Target):
		return r.through(call.Addr)
	case within(call.Target, start):
		return entry{kind: directly}
	case r.isProgram(start) && !r.dispatches(call.Target):
		return r.inside(call.Target, start)
	}
	return r.jumps(call.Target, start)
}

func (r *reader) isProgram(start uint64) bool {
	s, _, ok := r.kernel.Symbols.Find(start)
	return ok && isProgram(s.Name)
}

// isProgram tells BPF programs by their symbols: bpf_prog_, the tag in 16 hexadecimal
// digits, and mostly the name behind another _.
func isProgram(name string) bool {
	tag, ok := strings.CutPrefix(name, "bpf_prog_")
	return ok && len(tag) >= 16 && strings.Trim(tag[:16], "0123456789abcdef") == ""
}

// dispatches tells whether BPF programs are called by the code at addr.
func (r *reader) dispatches(addr uint64) bool {
	s, _, ok := r.kernel.Symbols.Find(addr)
	return ok && (strings.HasPrefix(s.Name, "bpf_dispatcher_") || strings.HasPrefix(s.Name, "__SCT__bpf_dispatcher_"))
}

// inside finds how the program at start is entered from the function at caller. The
// kernel's unwinder leaves a caller out where a program's frame does not stand, in
// its prologue and at its end, so the one it names called the one that is looked for.
func (r *reader) inside(caller, start uint64) (best entry) {
	s, _, ok := r.kernel.Symbols.Find(caller)
	if !ok {
		return entry{}
	}
	code, err := r.kernel.Code(s)
	if err != nil {
		return entry{}
	}
	for step := range r.kernel.Scan(code, s.Addr) {
		switch {
		case step.Kind == branch.CallDirect && within(step.Target, start):
			return entry{kind: directly}
		case step.Kind == branch.CallIndirect, step.Kind == branch.CallDirect && r.thunk(step.Target):
			best = r.through(step.Addr)
		case step.Kind == branch.CallDirect && r.dispatches(step.Target):
			if e := r.jumps(step.Target, start); e.kind != unknown {
				return e
			}
		}
	}
	return best
}

// within tells whether a branch to target enters the function at start: BPF tail
// calls go past its prologue.
func within(target, start uint64) bool { return target >= start && target < start+32 }

func (r *reader) through(branch uint64) entry {
	return entry{kind: indirectly, site: place(r.kernel.Symbols, branch, false)}
}

// callBefore decodes the function that ret lies in up to the call that returns
// there.
func (r *reader) callBefore(ret uint64) (branch.Step, bool) {
	s, off, ok := r.kernel.Symbols.Find(ret - 1)
	if !ok {
		return branch.Step{}, false
	}
	s.Size = off + 1
	code, err := r.kernel.Code(s)
	if err != nil {
		return branch.Step{}, false
	}
	var last branch.Step
	for step := range r.kernel.Scan(code, s.Addr) {
		last = step
	}
	call := last.Kind == branch.CallDirect || last.Kind == branch.CallIndirect
	return last, call && last.Addr+uint64(last.Len) == ret
}

// maxSteps bounds the instructions that jumps looks at: the BPF dispatcher with 48
// programs has 300.
const maxSteps = 2000

// jumps follows the jumps of the code at from, the BPF dispatcher or a function that
// ends in a tail call, until one enters the function at start. When none does, it is
// an indirect one.
func (r *reader) jumps(from, start uint64) entry {
	var indirect entry
	seen := map[uint64]bool{from: true}
	todo := []uint64{from}
	steps := 0
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		var code [256]byte
		if r.kernel.Text.ReadAddr(code[:], at) != nil {
			continue
		}
	walk:
		for step := range r.kernel.Scan(code[:], at) {
			if steps++; steps > maxSteps {
				return entry{}
			}
			if step.Addr+16 > at+uint64(len(code)) { // goes on there
				if !seen[step.Addr] {
					seen[step.Addr] = true
					todo = append(todo, step.Addr)
				}
				break
			}
			switch step.Kind {
			case branch.JumpDirect, branch.JumpCond:
				switch {
				case within(step.Target, start) && !r.thunk(start):
					return entry{kind: directly}
				case r.thunk(step.Target):
					indirect = r.through(step.Addr)
				case !seen[step.Target]:
					seen[step.Target] = true
					todo = append(todo, step.Target)
				}
				if step.Kind == branch.JumpDirect {
					break walk
				}
			case branch.JumpIndirect:
				indirect = r.through(step.Addr)
				break walk
			case branch.Return:
				break walk
			}
		}
	}
	return indirect
}

// returned tells whether addr, in the function at start, is where a call returns to,
// or the instruction behind that.
func (r *reader) returned(start, addr uint64) bool {
	if addr <= start || addr-start >= kernel.MaxFunction {
		return false
	}
	code, err := r.kernel.Read(start, addr-start)
	if err != nil {
		return false
	}
	var last, before branch.Kind
	for step := range r.kernel.Scan(code, start) {
		last, before = step.Kind, last
	}
	call := func(k branch.Kind) bool { return k == branch.CallDirect || k == branch.CallIndirect }
	return call(last) || call(before)
}

// targetEntryInstructions are the first of a function, on which the wait for a
// mispredicted branch to it shows.
const targetEntryInstructions = 4

// targetEntryEnd is where the first instructions of the function at start end: behind the
// fourth, or behind the first branch.
func (r *reader) targetEntryEnd(start uint64) uint64 {
	end, ok := r.starts[start]
	if ok {
		return end
	}
	end = start
	var code [64]byte
	if r.kernel.Text.ReadAddr(code[:], start) == nil {
		n := 0
		for step := range r.kernel.Scan(code[:], start) {
			end = step.Addr + uint64(step.Len)
			if n++; n == targetEntryInstructions || step.Kind != branch.Other {
				break
			}
		}
	}
	r.starts[start] = end
	return end
}

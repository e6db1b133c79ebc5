package progcode

import (
	"iter"
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/branch"
)

// A point is where a BPF instruction's machine code begins, as the kernel says it for each
// line of the source (bpf_prog_fill_jited_linfo in kernel/bpf/core.c).
type point struct {
	raw  int
	addr uint64
}

// exit is a BPF instruction that leaves its function other than by returning.
type exit struct {
	// insn is its number.
	insn int
	kind exitKind
	// target is the address of the helper that it calls, or the number of the function; 0
	// when the kernel does not say.
	target uint64
	// known is set for a tail call whose table and index are known: it jumps directly, or
	// not at all when that entry is empty. It is not set where the JIT makes no such jump.
	known bool
	// inlined is set for a helper that the JIT may have put into the code.
	inlined bool
}

type exitKind uint8

const (
	exitCall exitKind = iota
	exitFunction
	exitTailCall
	exitJumpTable
)

// A pair is one branch of the machine code, one BPF instruction, or both.
type pair struct {
	native *branch.Branch
	exit   *exit
	// raw is where it stands among the BPF instructions: that of the exit, else where the
	// stretch begins that the branch is in.
	raw int
}

// leaves tells whether a branch of the machine code leaves its function other than by
// returning or for what guards against speculation.
func leaves(b *branch.Branch, start, end uint64) bool {
	switch b.Class {
	case branch.ClassBHI, branch.ClassPoison, branch.ClassUntrain, branch.ClassFar:
		return false
	}
	if b.Returns() || b.Conditional {
		return false
	}
	return b.Indirect() || !b.Jump || b.Target < start || b.Target >= end
}

// matching pairs the machine code of a function with its BPF instructions.
type matching struct {
	// addresses are those of the program's functions.
	addresses []uint64
	// points are those of the function, in order; its first instruction is among them.
	points []point
	// pairs are in the order of the code. unpaired is how many stretches did not agree.
	pairs    []pair
	unpaired int
}

// An event is what the machine code has of an exit: a branch, or the check before a tail
// call, which is there whatever the table holds.
type event struct {
	addr   uint64
	branch *branch.Branch // nil for the check of a tail call
}

// jumps tells whether an event is a jump, as of a tail call.
func (e event) jumps() bool { return e.branch != nil && e.branch.Jump }

// events are those of a function, in order.
func (j *jit) events(steps iter.Seq[branch.Step], code []byte, start uint64, branches []*branch.Branch) (out []event) {
	for step := range steps {
		switch {
		case len(branches) > 0 && branches[0].Addr == step.Addr:
			out = append(out, event{step.Addr, branches[0]})
			branches = branches[1:]
		case j.counted(code, int(step.Addr-start), step.Len):
			out = append(out, event{addr: step.Addr})
		}
	}
	return out
}

// match pairs exits and events that lie between the same two points.
func (m *matching) match(x *xlated, exits []exit, events []event) {
	for p, from := range m.points {
		e, n := len(exits), len(events)
		if p+1 < len(m.points) {
			to := m.points[p+1]
			for e = 0; e < len(exits) && x.raw[exits[e].insn] < to.raw; {
				e++
			}
			for n = 0; n < len(events) && events[n].addr < to.addr; {
				n++
			}
		}
		first := len(m.pairs)
		if !m.stretch(x, exits[:e], events[:n]) {
			m.pairs = m.pairs[:first]
			m.unpaired++
			for _, ev := range events[:n] {
				if ev.branch != nil {
					m.pairs = append(m.pairs, pair{native: ev.branch, raw: from.raw})
				}
			}
		}
		exits, events = exits[e:], events[n:]
	}
}

// stretch pairs what lies between two points. It returns false when both do not agree.
func (m *matching) stretch(x *xlated, exits []exit, left []event) bool {
	for i := range exits {
		e := &exits[i]
		p := pair{exit: e, raw: x.raw[e.insn]}
		switch {
		case e.kind == exitTailCall:
			if len(left) == 0 || left[0].branch != nil {
				return false
			}
			// Without a jump the entry is empty. An indirect one may be the jump table's behind it.
			table := e.known && i+1 < len(exits) && exits[i+1].kind == exitJumpTable
			if left = left[1:]; len(left) > 0 && left[0].jumps() && !(table && left[0].branch.Indirect()) {
				p.native, left = left[0].branch, left[1:]
			}
		case len(left) > 0 && left[0].branch != nil && m.fits(e, left[0].branch):
			p.native, left = left[0].branch, left[1:]
		case e.inlined:
			continue
		default:
			return false
		}
		m.pairs = append(m.pairs, p)
	}
	return len(left) == 0
}

// fits tells whether a branch may be what the JIT made of an exit.
func (m *matching) fits(e *exit, b *branch.Branch) bool {
	switch e.kind {
	case exitCall:
		return calls(b) && (e.target == 0 || b.Target == e.target || b.Class == branch.ClassCallDepth)
	case exitFunction:
		return calls(b) && e.target < uint64(len(m.addresses)) &&
			(b.Target == m.addresses[e.target] || b.Class == branch.ClassCallDepth)
	case exitJumpTable:
		return b.Jump && b.Indirect()
	}
	return false
}

// calls tells a call of what is known: direct, or on arm64 through a register that holds a constant.
func calls(b *branch.Branch) bool {
	return !b.Jump && (!b.Indirect() || b.Class == branch.ClassRegister && b.Target != 0)
}

// exits are those of a function. base is the address that helpers' numbers are counted from,
// known tells a tail call whose table and index are known.
func (x *xlated) exits(function int, base uint64, known func(insn int) bool) (out []exit) {
	first := x.index[x.starts[function]]
	for i := first; i < len(x.insns) && x.raw[i] < x.end(function); i++ {
		ins := &x.insns[i]
		switch {
		case ins.OpCode == jumpTable:
			out = append(out, exit{insn: i, kind: exitJumpTable})
		case !isCall(ins):
		case ins.Src == callFunction:
			out = append(out, exit{insn: i, kind: exitFunction, target: uint64(ins.Constant)})
		case ins.Src == callHelper && ins.Constant == tailCall:
			out = append(out, exit{insn: i, kind: exitTailCall, known: known(i)})
		default:
			out = append(out, exit{insn: i, kind: exitCall, target: helper(ins, base)})
		}
	}
	return out
}

// helper is the address of the function that an instruction calls, 0 when that is not
// known: dumps have its distance from __bpf_call_base.
func helper(ins *asm.Instruction, base uint64) uint64 {
	if base == 0 || ins.Constant == 0 {
		return 0
	}
	return base + uint64(ins.Constant)
}

// pointsOf are the points of a function that begins at start, by the line infos of the
// program, which are in order.
func pointsOf(x *xlated, function int, start, size uint64, lines []lineInfo) []point {
	out := []point{{x.starts[function], start}}
	for _, l := range lines {
		if l.raw <= out[len(out)-1].raw || l.raw >= x.end(function) {
			continue
		}
		if l.addr < out[len(out)-1].addr || l.addr >= start+size {
			return out[:1] // not this code's: no points but the first
		}
		out = append(out, point{l.raw, l.addr})
	}
	return slices.Clip(out)
}

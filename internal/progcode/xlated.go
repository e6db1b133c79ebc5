package progcode

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// Sources of a call, in its source register (BPF_PSEUDO_CALL and others in
// include/uapi/linux/bpf.h).
const (
	callHelper   asm.Register = 0
	callFunction asm.Register = 1
	callKfunc    asm.Register = 2
)

// Sources of a load of 64 bits.
const (
	loadMap      asm.Register = 1
	loadFunction asm.Register = 4
)

// tailCall is the number of the helper that dumps have for a tail call
// (bpf_insn_prepare_dump in kernel/bpf/syscall.c).
const tailCall = 12

// jumpTable is "goto *rN" (BPF_JMP|BPF_JA|BPF_X, Linux 6.19).
const jumpTable = asm.OpCode(0x0d)

// xlated are the BPF instructions of a program as the verifier left them.
type xlated struct {
	insns asm.Instructions
	// raw is where each instruction begins, counted in 8 bytes; index its number there,
	// -1 in the middle of one.
	raw   []int
	index []int
	// starts are where functions begin, counted as raw; names are theirs, empty for none.
	starts []int
	names  []string
}

var errBroken = errors.New("its BPF instructions do not hold together")

// newXlated takes the instructions of a program and where its functions begin. Without
// starts, they are found by the calls: functions is how many there are.
func newXlated(insns asm.Instructions, starts []int, names []string, functions int) (*xlated, error) {
	x := &xlated{insns: insns, raw: make([]int, len(insns)), starts: starts, names: names}
	at := 0
	for i := range insns {
		x.raw[i] = at
		x.index = append(x.index, i)
		if at++; insns[i].OpCode.IsDWordLoad() {
			x.index = append(x.index, -1)
			at++
		}
	}
	if len(starts) == 0 {
		x.findStarts()
		x.names = make([]string, len(x.starts))
	}
	if len(x.starts) != functions {
		return nil, fmt.Errorf("%w: %d functions of %d were found", errBroken, len(x.starts), functions)
	}
	for _, start := range x.starts {
		if start < 0 || start >= len(x.index) || x.index[start] < 0 {
			return nil, fmt.Errorf("%w: a function begins at %d of %d", errBroken, start, len(x.index))
		}
	}
	if !slices.IsSorted(x.starts) || len(x.names) != len(x.starts) {
		return nil, fmt.Errorf("%w: its functions are out of order", errBroken)
	}
	return x, nil
}

// findStarts finds functions by what calls them: programs without BTF say nothing else. A
// call's offset has 16 bits; what is further away is not found.
func (x *xlated) findStarts() {
	x.starts = []int{0}
	for i := range x.insns {
		ins := &x.insns[i]
		switch {
		case isCall(ins) && ins.Src == callFunction:
			x.starts = append(x.starts, x.raw[i]+int(ins.Offset)+1)
		case ins.OpCode.IsDWordLoad() && ins.Src == loadFunction:
			x.starts = append(x.starts, x.raw[i]+int(int32(ins.Constant))+1)
		}
	}
	slices.Sort(x.starts)
	x.starts = slices.Compact(x.starts)
}

// function is the number of the function that an offset is in.
func (x *xlated) function(raw int) int {
	n, found := slices.BinarySearch(x.starts, raw)
	if found {
		return n
	}
	return n - 1
}

// end is where a function ends, counted as raw.
func (x *xlated) end(function int) int {
	if function+1 < len(x.starts) {
		return x.starts[function+1]
	}
	return len(x.index)
}

func isCall(ins *asm.Instruction) bool {
	return ins.OpCode.Class() == asm.JumpClass && ins.OpCode.JumpOp() == asm.Call
}

// targets are the offsets that an instruction may go to, next is set when the one behind it
// is among them. Those of a jump table are not known.
func (x *xlated) targets(i int) (jump int, next bool) {
	ins := &x.insns[i]
	after := x.raw[i] + 1
	switch op := ins.OpCode.JumpOp(); {
	case op == asm.InvalidJumpOp, op == asm.Call:
		return -1, true
	case op == asm.Exit || ins.OpCode == jumpTable:
		return -1, false
	case op == asm.Ja && ins.OpCode.Class() == asm.Jump32Class:
		return after + int(ins.Constant), false
	case op == asm.Ja:
		return after + int(ins.Offset), false
	default:
		return after + int(ins.Offset), true
	}
}

// blocks are the numbers of instructions at which a block begins, in order: the first of
// each function, where jumps lead, and what follows a jump.
func (x *xlated) blocks() ([]int, error) {
	leads := make([]bool, len(x.insns)+1)
	for _, start := range x.starts {
		leads[x.index[start]] = true
	}
	for i := range x.insns {
		jump, next := x.targets(i)
		if jump >= 0 || !next {
			leads[i+1] = true
		}
		if jump < 0 {
			continue
		}
		if jump >= len(x.index) || x.index[jump] < 0 {
			return nil, fmt.Errorf("%w: instruction %d jumps to %d", errBroken, x.raw[i], jump)
		}
		leads[x.index[jump]] = true
	}
	var out []int
	for i := range x.insns {
		if leads[i] {
			out = append(out, i)
		}
	}
	return out, nil
}

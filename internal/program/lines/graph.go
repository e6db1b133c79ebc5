package lines

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"
)

// registers is a set of the ten that a program may write.
type registers uint16

func (s registers) has(r asm.Register) bool { return s&(1<<r) != 0 }

func set(all ...asm.Register) (s registers) {
	for _, r := range all {
		if r <= asm.R9 {
			s |= 1 << r
		}
	}
	return s
}

// graph is how control goes through the instructions of a program with its functions.
type graph struct {
	ins asm.Instructions
	// target is the instruction that one may jump to, -1 for none; within its function.
	target []int
	// leader is set where a block begins.
	leader []bool
	// function is the first instruction of an instruction's function.
	function []int
}

func newGraph(ins asm.Instructions) (*graph, error) {
	n := len(ins)
	g := &graph{ins: ins, target: make([]int, n), leader: make([]bool, n), function: make([]int, n)}
	at := map[int64]int{} // instructions by their place, in units of 8 bytes
	places := make([]int64, n)
	place := int64(0)
	for i := range ins {
		at[place], places[i] = i, place
		place += int64(ins[i].Width())
	}
	begin := 0
	for i := range ins {
		if ins[i].Symbol() != "" || i == 0 {
			begin = i
			g.leader[i] = true
		}
		g.function[i] = begin
	}
	for i := range ins {
		g.target[i] = -1
		if !jumps(&ins[i]) {
			continue
		}
		if ins[i].Reference() != "" {
			return nil, fmt.Errorf("instruction %d jumps to a symbol", i)
		}
		if ins[i].OpCode.Class() == asm.JumpClass && ins[i].OpCode.JumpOp() == asm.Ja && ins[i].OpCode.Source() == asm.RegSource {
			return nil, errors.New("it jumps by a table (gotox), whose targets cannot be moved")
		}
		to, ok := at[places[i]+1+distance(&ins[i])]
		if !ok || g.function[to] != g.function[i] {
			return nil, fmt.Errorf("instruction %d jumps out of its function", i)
		}
		g.target[i], g.leader[to] = to, true
	}
	for i := 1; i < n; i++ {
		if jumps(&ins[i-1]) || isExit(&ins[i-1]) {
			g.leader[i] = true
		}
	}
	return g, nil
}

// isJump says whether an instruction is of the classes of jumps, which calls and exits are too.
func isJump(ins *asm.Instruction) bool {
	class := ins.OpCode.Class()
	return class == asm.JumpClass || class == asm.Jump32Class
}

func isExit(ins *asm.Instruction) bool {
	return ins.OpCode.Class() == asm.JumpClass && ins.OpCode.JumpOp() == asm.Exit
}

// jumps says whether an instruction may go on elsewhere within the function.
func jumps(ins *asm.Instruction) bool {
	op := ins.OpCode.JumpOp()
	return isJump(ins) && op != asm.Call && op != asm.Exit
}

// always says whether a jump never goes on behind itself.
func always(ins *asm.Instruction) bool { return jumps(ins) && ins.OpCode.JumpOp() == asm.Ja }

// isLong says whether the distance of a jump is in its constant (gotol, since Linux 6.6).
func isLong(ins *asm.Instruction) bool {
	return ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja
}

func distance(ins *asm.Instruction) int64 {
	if isLong(ins) {
		return ins.Constant
	}
	return int64(ins.Offset)
}

// functionAt is the name of the function that begins at an instruction.
func (g *graph) functionAt(i int) string { return g.ins[i].Symbol() }

// maxPasses is how often the instructions are gone through to follow what loops keep: each level
// of loops takes one pass, and a compiler's code a few.
const maxPasses = 64

// liveness says for each instruction which registers hold what may be read before it is
// written again.
func (g *graph) liveness() ([]registers, error) {
	live := make([]registers, len(g.ins)+1)
	passes := 0
	for changed := true; changed; passes++ {
		if passes == maxPasses {
			return nil, errors.New("its jumps are more entangled than those of loops")
		}
		changed = false
		for i := len(g.ins) - 1; i >= 0; i-- {
			ins := &g.ins[i]
			out := registers(0)
			if !isExit(ins) && !always(ins) {
				out = live[i+1]
			}
			if g.target[i] >= 0 {
				out |= live[g.target[i]]
			}
			reads, writes := effects(ins)
			if in := out&^writes | reads; in != live[i] {
				live[i], changed = in, true
			}
		}
	}
	return live, nil
}

// effects are the registers that an instruction reads and writes.
func effects(ins *asm.Instruction) (reads, writes registers) {
	dst, src := set(ins.Dst), set(ins.Src)
	switch class := ins.OpCode.Class(); class {
	case asm.LdClass:
		if ins.OpCode.Mode() == asm.ImmMode {
			return 0, dst
		}
		return src | set(asm.R6), set(asm.R0, asm.R1, asm.R2, asm.R3, asm.R4, asm.R5) // LD_ABS, LD_IND
	case asm.LdXClass:
		return src, dst
	case asm.StClass:
		return dst, 0
	case asm.StXClass:
		if ins.OpCode.Mode() != asm.AtomicMode {
			return dst | src, 0
		}
		// What is fetched goes to the source, or to R0 where it is compared with it. A
		// register that is written but counts as read stays as it is: that is safe.
		return dst | src | set(asm.R0), 0
	case asm.ALUClass, asm.ALU64Class:
		return effectsALU(ins, dst, src)
	}
	switch ins.OpCode.JumpOp() {
	case asm.Call:
		return set(asm.R1, asm.R2, asm.R3, asm.R4, asm.R5), set(asm.R0)
	case asm.Exit:
		return set(asm.R0), 0
	case asm.Ja, asm.JCOND:
		return 0, 0
	}
	if ins.OpCode.Source() == asm.RegSource {
		return dst | src, 0
	}
	return dst, 0
}

func effectsALU(ins *asm.Instruction, dst, src registers) (reads, writes registers) {
	switch op := ins.OpCode.ALUOp(); {
	case op == asm.Swap, op == asm.Neg:
		return dst, dst
	case op == asm.Mov && ins.OpCode.Source() == asm.RegSource:
		return src, dst
	case op == asm.Mov:
		return 0, dst
	case ins.OpCode.Source() == asm.RegSource:
		return dst | src, dst
	}
	return dst, dst
}

// stackUse is for each function, by its first instruction, how deep below the frame pointer
// it writes at most, in bytes and a multiple of 8.
func (g *graph) stackUse() map[int]int {
	depth := map[int]int64{}
	for i := range g.ins {
		ins, below := &g.ins[i], int64(0)
		switch class := ins.OpCode.Class(); class {
		case asm.StClass, asm.StXClass:
			if ins.Dst == asm.RFP {
				below = -int64(ins.Offset)
			}
		case asm.LdXClass:
			if ins.Src == asm.RFP {
				below = -int64(ins.Offset)
			}
		case asm.ALU64Class:
			// The address of what is on the stack: any number that it could be.
			if ins.OpCode.ALUOp() == asm.Add && ins.OpCode.Source() == asm.ImmSource && -ins.Constant <= maxStack {
				below = -ins.Constant
			}
		}
		depth[g.function[i]] = max(depth[g.function[i]], below)
	}
	use := map[int]int{}
	for f, d := range depth {
		use[f] = int(d+7) &^ 7
	}
	return use
}

// relocate makes jumps lead to where their targets went: starts is where each instruction
// went in out.
func (g *graph) relocate(out asm.Instructions, starts []int) error {
	places := make([]int64, len(out)+1)
	for i := range out {
		places[i+1] = places[i] + int64(out[i].Width())
	}
	for i, to := range g.target {
		if to < 0 {
			continue
		}
		// The instruction stands behind its counter; its target begins with one.
		at := starts[i+1] - 1
		by := places[starts[to]] - places[at] - 1
		switch {
		case isLong(&out[at]):
			out[at].Constant = by
		case by < math.MinInt16 || by > math.MaxInt16:
			return fmt.Errorf("instruction %d would jump over more than 32767 others", i)
		default:
			out[at].Offset = int16(by)
		}
	}
	return nil
}

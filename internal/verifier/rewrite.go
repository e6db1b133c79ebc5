package verifier

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// mostMoved bounds how often the kernel moves instructions of a program when it rewrites what it has verified: one place at a time,
// with all of the program behind it (bpf_patch_insn_data and verifier_remove_insns in kernel/bpf/verifier.c), and no signal is heard.
// 20 000 divisions among as many instructions, 4*10^8, took 5.7 s on a busy machine, and 32 765 branches with code that never runs, as
// many as are let through, 15.7 s. It has room for programs of 80 000 instructions as compilers make them.
const mostMoved = 1 << 31

// checkRewrite refuses programs that the kernel rewrites for too long.
func checkRewrite(spec *ebpf.CollectionSpec) error {
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		ins := spec.Programs[name].Instructions
		if places := rewritten(ins); places*len(ins) > mostMoved {
			return fmt.Errorf("load program %s: the kernel would move its %d instructions some %d times while it rewrites them, and hear "+
				"no signal meanwhile", name, len(ins), places)
		}
	}
	return nil
}

// rewritten is how many places of a program the kernel may rewrite: divisions by a register, calls, and jumps and branches of any
// length, as what is behind one may never run. The kernel takes that out, and then the jump, which leads to what follows by then.
func rewritten(ins asm.Instructions) (places int) {
	for i := range ins {
		op := ins[i].OpCode
		switch class := op.Class(); {
		case class.IsALU() && op.Source() == asm.RegSource && (op.ALUOp() == asm.Div || op.ALUOp() == asm.Mod ||
			op.ALUOp() == asm.SDiv || op.ALUOp() == asm.SMod):
			places++
		case class.IsJump() && op.JumpOp() != asm.Exit:
			places++
		}
	}
	return places
}

package progcode

import (
	"bytes"
	"encoding/binary"

	"github.com/unthunk/unthunk/branch"
)

// jit is what differs between architectures in what the JIT makes.
type jit struct {
	// entry is how far behind a function's start a trampoline or another program is patched in, in bytes.
	entry uint64
	// counted tells the instruction at an offset of code, of size bytes, that is the check of a tail call.
	counted func(code []byte, offset, size int) bool
	// refine changes a branch to what the code before it tells, and returns false for one that does not belong to the program.
	refine func(b *branch.Branch, code []byte) bool
	// inlines are helpers for which nothing may be called, though the BPF instruction is a call.
	inlines []string
	// direct tells that a tail call whose table and index are known jumps directly (bpf_arch_poke_desc_update).
	direct bool
}

// jits are those of the architectures whose code of programs can be read.
var jits = map[string]*jit{
	// At its first instruction, or behind the endbr64 there (emit_prologue in arch/x86/net/bpf_jit_comp.c).
	"amd64": {entry: 4, counted: countedAMD64, refine: func(*branch.Branch, []byte) bool { return true },
		direct: true},
	// At the nop behind "mov x9, x30", before which a bti may be (build_prologue in arch/arm64/net/bpf_jit_comp.c).
	"arm64": {entry: 8, counted: countedARM64, refine: refineARM64, inlines: []string{
		"bpf_get_smp_processor_id", "bpf_get_current_task", "bpf_get_current_task_btf", // bpf_jit_inlines_helper_call
	}},
}

// countedAMD64 tells the instruction that holds the count of tail calls against MAX_TAIL_CALL_CNT, 33
// (emit_bpf_tail_call_direct and _indirect in arch/x86/net/bpf_jit_comp.c): "cmpq $33, (%rax)" since Linux 6.11,
// before it "mov off(%rbp), %eax; cmp $33, %eax".
func countedAMD64(code []byte, offset, size int) bool {
	text := code[offset:][:size]
	if bytes.Equal(text, []byte{0x48, 0x83, 0x38, 33}) {
		return true
	}
	n := offset - 6
	return bytes.Equal(text, []byte{0x83, 0xf8, 33}) && n >= 0 && code[n] == 0x8b && code[n+1] == 0x85
}

// temporary is the register that the JIT of arm64 takes for numbers and addresses, TMP_REG_1.
const temporary = 10

// countedARM64 tells "mov w10, #33" (x10 up to Linux 6.11), with which the next instruction or the one behind it compares the count
// (emit_bpf_tail_call in arch/arm64/net/bpf_jit_comp.c). A program's own 33 is an immediate of its comparison.
func countedARM64(code []byte, offset, _ int) bool {
	const mov, compare = 0x52800420 | temporary, 0xeb00001f | temporary<<16
	word := func(n int) uint32 {
		if offset+n+4 > len(code) {
			return 0
		}
		return binary.LittleEndian.Uint32(code[offset+n:])
	}
	return word(0)&^(1<<31) == mov && (word(4)&^0x3e0 == compare || word(8)&^0x3e0 == compare)
}

// refineARM64 gives a call through a register that holds a constant its target: of a helper before Linux 6.12, or far away.
func refineARM64(b *branch.Branch, code []byte) bool {
	switch {
	case b.Class != branch.ClassRegister:
	case b.Jump:
		return !branch.TrampolineARM64(code, b.Offset)
	default:
		b.Target = branch.ConstantARM64(code, b.Offset)
	}
	return true
}

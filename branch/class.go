package branch

import "strings"

// Class is what a branch is, in the field's words.
type Class string

const (
	// ClassDirect has its target in the instruction.
	ClassDirect Class = "direct"
	// ClassConditional is a direct jump that may fall through.
	ClassConditional Class = "conditional"
	// ClassTailCall is a direct jump to another function, or of a BPF
	// program into another one.
	ClassTailCall Class = "tail-call"
	// ClassRegister is "call *%rax" or "jmp *%rax", predicted by the CPU.
	ClassRegister Class = "indirect-register"
	// ClassMemory is "call *8(%rax)" or "jmp *table(,%rax,8)".
	ClassMemory Class = "indirect-memory"
	// ClassLfence is an indirect branch that waits for its target:
	// "lfence; call *%rax", or through a thunk that does so.
	ClassLfence Class = "lfence"
	// ClassRetpoline goes through a retpoline thunk.
	ClassRetpoline Class = "retpoline"
	// ClassITS goes through an ITS thunk (Linux 6.15 and stable kernels of
	// May 2025).
	ClassITS Class = "its-thunk"
	// ClassCallDepth is counted for retbleed=stuff (Linux 6.2): an indirect
	// branch through __x86_indirect_call_thunk_* when Register is set,
	// otherwise a direct call by way of the counting in front of Name.
	ClassCallDepth Class = "call-depth"
	// ClassBHI calls the sequence that clears the branch history buffer
	// (Linux 6.9).
	ClassBHI Class = "bhi"
	// ClassPoison calls __bhi_args_N, as the FineIBT preamble of a function does with
	// cfi=bhi: it clears the registers of N arguments where the hash is wrong, not the
	// branch history (Linux 6.15).
	ClassPoison Class = "poison-args"
	// ClassUntrain calls the sequence that untrains the prediction of the
	// return thunk, on kernel entry (Linux 5.19).
	ClassUntrain Class = "untrain-ret"
	// ClassReturn is a bare ret.
	ClassReturn Class = "return"
	// ClassReturnThunk is a jump to a return thunk; Name says which.
	ClassReturnThunk Class = "return-thunk"
	// ClassSRSO is a jump to the return thunk against speculative return
	// stack overflow, which mispredicts every return on purpose (Linux 6.5).
	ClassSRSO Class = "srso"
	// ClassStaticCall is a call whose target the kernel patches when it
	// changes.
	ClassStaticCall Class = "static-call"
	// ClassStaticKey is a jump that the kernel patches in and out.
	ClassStaticKey Class = "static-key"
	// ClassDispatcher is a call of the BPF dispatcher, which compares its
	// way to a direct jump.
	ClassDispatcher Class = "dispatcher"
	// ClassParavirt is a call of a function in pv_ops, or in pv_ops_lock (Linux 7.2), that the kernel patches
	// at boot.
	ClassParavirt Class = "paravirt"
	// ClassAlternative is a branch that is there or goes where it goes on
	// some CPUs only, in code that was not patched for one.
	ClassAlternative Class = "alternative"
	// ClassFar leaves the code segment or the kernel: ljmp, lcall, lret,
	// iret, sysret, eret.
	ClassFar Class = "far"
)

// Branch is one call or jump of a function, or a place where the kernel puts
// one.
type Branch struct {
	// Addr is its virtual address, Offset that from the function's start.
	Addr   uint64
	Offset uint64
	// Class is what the branch is.
	Class Class
	// Jump is unset for calls.
	Jump bool
	// Conditional is set for jumps that may fall through.
	Conditional bool
	// Nop is set where no branch is now: a static key that is off, a
	// static call of nothing, an alternative that was not chosen.
	Nop bool
	// Target is where a direct branch goes, 0 for others.
	Target uint64
	// Name is the symbol of the target or of the thunk. Of an indirect
	// branch through a fixed address it is the symbol of that.
	Name string
	// Register is that of an indirect branch, "rax"; empty when its target
	// comes from memory.
	Register string
	// Check is how CFI tests the target of an indirect branch, CheckLen how many
	// bytes of code that has in front of the branch.
	Check    Check
	CheckLen uint64
	// Signed is set when an indirect branch or a return of arm64
	// authenticates its pointer: blraa, retaa.
	Signed bool
	// Slot is the fixed address that an indirect branch reads its target
	// from: "call *pv_ops+8(%rip)". 0 when it is not fixed.
	Slot uint64
	// Fact is what [Facts] say of the place: the static call's key.
	Fact string
	// Pending is what the kernel will put there where code was not
	// patched yet, "" otherwise.
	Pending string
}

// Indirect tells whether the branch takes its target from a register or from
// memory, through a thunk or not.
func (b Branch) Indirect() bool {
	switch b.Class {
	case ClassRegister, ClassMemory, ClassLfence, ClassRetpoline, ClassITS:
		return true
	case ClassCallDepth:
		return b.Register != ""
	case ClassParavirt:
		return b.Target == 0 && !b.Nop
	}
	return false
}

// Returns tells whether the branch returns from the function.
func (b Branch) Returns() bool {
	return b.Class == ClassReturn || b.Class == ClassReturnThunk || b.Class == ClassSRSO
}

// Facts is what a file or a live kernel says of addresses. The zero value
// says nothing. [Facts.AddSection] fills it; maps may be filled by hand.
type Facts struct {
	// StaticKeys are jumps and nops that a key switches, and where they
	// jump to; StaticCalls sites with their keys. They hold for live text
	// too.
	StaticKeys, StaticCalls map[uint64]string
	// Alternatives are where code is replaced at boot, and by what.
	Alternatives map[uint64]string
	// RetpolineSites are calls and jumps to indirect thunks, ReturnSites
	// jumps to the return thunk, Paravirt pv_ops calls: all to be patched
	// at boot.
	RetpolineSites, ReturnSites, Paravirt map[uint64]string
	// CallSites are direct calls that retbleed=stuff redirects (Linux 6.2),
	// Sealed the functions that lose their endbr because nothing calls
	// them indirectly (Linux 5.18).
	CallSites, Sealed map[uint64]string

	// alternatives are those that [Facts.AddSection] read, by address.
	alternatives map[uint64][]Alternative
}

// thunkClass is the class of a branch to the thunk of that name, "" when it is no
// thunk.
func thunkClass(name string) Class {
	name = strings.TrimPrefix(name, "__pi_")
	switch {
	case name == "":
		return ""
	case strings.HasPrefix(name, "__x86_indirect_"):
		switch rest := name[len("__x86_indirect_"):]; {
		case strings.HasPrefix(rest, "its_thunk_"), strings.HasPrefix(rest, "paranoid_thunk_"):
			return ClassITS
		case strings.HasPrefix(rest, "call_thunk_"), strings.HasPrefix(rest, "jump_thunk_"):
			return ClassCallDepth
		}
		return ClassRetpoline
	case strings.HasPrefix(name, "__SCT__"):
		return ClassStaticCall
	case strings.HasPrefix(name, "bpf_dispatcher_") && strings.HasSuffix(name, "_func"), name == "bpf_dispatcher_xdp":
		return ClassDispatcher
	case strings.HasPrefix(name, "clear_bhb_loop"):
		return ClassBHI
	case strings.HasPrefix(name, "__bhi_args"):
		return ClassPoison
	case strings.HasSuffix(name, "untrain_ret"):
		return ClassUntrain
	}
	return ""
}

// thunkRegister is the register in the name of an indirect thunk.
func thunkRegister(name string) string {
	i := strings.LastIndexByte(name, '_')
	if name[i+1:] == "array" { // the same address as the first thunk
		return registers[0]
	}
	for _, r := range registers {
		if name[i+1:] == r {
			return r
		}
	}
	return ""
}

// returnClass is the class of a jump to the return thunk of that name.
func returnClass(name string) Class {
	if strings.HasPrefix(name, "srso_") {
		return ClassSRSO
	}
	return ClassReturnThunk
}

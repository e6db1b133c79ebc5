package branch

import (
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// ThunkKind is what an indirect branch thunk does.
type ThunkKind string

const (
	// ThunkUnknown is code of no known shape.
	ThunkUnknown ThunkKind = "unknown"
	// ThunkRetpoline calls over a speculation trap, overwrites the return
	// address and returns: the branch is always mispredicted, on purpose.
	ThunkRetpoline ThunkKind = "retpoline"
	// ThunkCallDepth is a retpoline that counts call depth first, for
	// return stack stuffing (Linux 6.2, retbleed=stuff).
	ThunkCallDepth ThunkKind = "call-depth retpoline"
	// ThunkLfence waits for the target and jumps: "lfence; jmp *reg".
	ThunkLfence ThunkKind = "lfence; jmp"
	// ThunkPlain is "jmp *reg": an ordinary predicted branch behind one
	// direct one.
	ThunkPlain ThunkKind = "plain jmp"
	// ThunkITS is "jmp *reg" placed in the upper half of a cache line
	// against indirect target selection (Linux 6.15 and stable kernels of
	// May 2025). With cfi=fineibt,paranoid the end of the check, a jne to the
	// byte in front, is part of it.
	ThunkITS ThunkKind = "ITS thunk"
)

// Thunk is an indirect branch thunk as it is in memory.
type Thunk struct {
	Kind ThunkKind
	// Register is what it branches to: "rax". Empty when unknown.
	Register string
	// Capture is the speculation trap of a retpoline: "int3" or
	// "pause; lfence; jmp".
	Capture string
	// Return is how a retpoline returns: "ret", or the name of the return
	// thunk it jumps to. It is a hexadecimal address when that has no name.
	Return string
	// Lines are the instructions that run, in GNU syntax, and the trap.
	Lines []string
}

// NameIndirectThunk names the thunk that begins at addr. The code may run on
// past its end; 32 bytes are enough for every known shape. resolve may be
// nil: then a thunk for ITS reads as a plain jmp when it is not in the upper
// half of a 64-byte line, where every ITS thunk is.
func NameIndirectThunk(code []byte, addr uint64, resolve Resolver) Thunk {
	t := Thunk{Kind: ThunkUnknown}
	var insts []Inst
	counts := false
	for inst := range Decode(code[:min(len(code), 64)], addr) {
		if padding(inst) {
			continue
		}
		if countsDepth(inst) {
			counts = true
		} else {
			insts = append(insts, inst)
		}
		t.Lines = append(t.Lines, inst.Text(resolve))
		if len(insts) == 8 || inst.Kind == Return || inst.Kind == JumpIndirect ||
			inst.Kind == JumpDirect && len(insts) > 1 && insts[len(insts)-2].Kind != Fence {
			break
		}
	}
	if len(insts) == 0 {
		return t
	}
	switch first := insts[0]; {
	case jumpsToRegister(first):
		t.Kind, t.Register = ThunkPlain, register(first)
		if upperThunk(code, first, addr, resolve) {
			t.Kind = ThunkITS
		}
	case endsCheck(code) && len(insts) > 1 && jumpsToRegister(insts[1]):
		if upperThunk(code, insts[1], addr, resolve) {
			t.Kind, t.Register = ThunkITS, register(insts[1])
		}
	case first.Asm.Op == x86asm.LFENCE && len(insts) > 1 && jumpsToRegister(insts[1]):
		t.Kind, t.Register = ThunkLfence, register(insts[1])
	case first.Kind == JumpDirect && strings.HasPrefix(resolve.lookup(first.Target), "__x86_indirect_its_thunk_"):
		t.Kind = ThunkITS
	case first.Kind == CallDirect:
		retpoline(&t, insts, resolve)
		if counts && t.Kind == ThunkRetpoline {
			t.Kind = ThunkCallDepth
		}
	}
	return t
}

// retpoline fills t when insts are
//
//	call 1f; trap; 1: mov %reg,(%rsp); ret or jmp return thunk
func retpoline(t *Thunk, insts []Inst, resolve Resolver) {
	body := -1
	for i, inst := range insts {
		if i > 0 && inst.Addr == insts[0].Target {
			body = i
		}
	}
	if body < 2 || body+1 >= len(insts) {
		return
	}
	var trap []string
	for _, inst := range insts[1:body] {
		switch inst.Kind {
		case Trap, Fence:
		case JumpDirect:
			if inst.Target < insts[1].Addr || inst.Target >= insts[body].Addr {
				return
			}
		default:
			return
		}
		op := strings.ToLower(inst.Asm.Op.String())
		if inst.Kind == Trap {
			op = strings.Fields(inst.Text(nil))[0]
		}
		if len(trap) == 0 || trap[len(trap)-1] != op {
			trap = append(trap, op)
		}
	}
	mov, end := insts[body].Asm, insts[body+1]
	mem, ok := mov.Args[0].(x86asm.Mem)
	reg, isReg := mov.Args[1].(x86asm.Reg)
	if mov.Op != x86asm.MOV || !ok || !isReg || mem.Base != x86asm.RSP || mem.Disp != 0 || mem.Index != 0 {
		return
	}
	switch end.Kind {
	case Return:
		t.Return = "ret"
	case JumpDirect:
		t.Return = resolve.name(end.Target)
	default:
		return
	}
	t.Kind = ThunkRetpoline
	t.local(insts[0], insts[body], resolve)
	t.Register = strings.ToLower(reg.String())
	t.Capture = strings.Join(trap, "; ")
}

// local writes the call over the trap with the numeric label that the
// assembler source has.
func (t *Thunk) local(call, body Inst, resolve Resolver) {
	for i, line := range t.Lines {
		switch line {
		case call.Text(resolve):
			t.Lines[i] = "call 1f"
		case body.Text(resolve):
			t.Lines[i] = "1: " + line
		}
	}
}

// padding tells whether an instruction is only there to fill space.
func padding(i Inst) bool {
	return i.Asm.Op == x86asm.NOP || i.raw == "endbr64"
}

// countsDepth tells whether an instruction is the bookkeeping of call depth
// tracking: sarq or shlq $5 on a per-CPU variable.
func countsDepth(i Inst) bool {
	if i.Asm.Op != x86asm.SAR && i.Asm.Op != x86asm.SHL {
		return false
	}
	mem, ok := i.Asm.Args[0].(x86asm.Mem)
	imm, isImm := i.Asm.Args[1].(x86asm.Imm)
	return ok && isImm && imm == 5 && mem.Segment == x86asm.GS
}

func jumpsToRegister(i Inst) bool {
	return i.Kind == JumpIndirect && register(i) != ""
}

// register is the register an indirect branch takes its target from.
func register(i Inst) string {
	reg, ok := i.Asm.Args[0].(x86asm.Reg)
	if !ok {
		return ""
	}
	return strings.ToLower(reg.String())
}

// trapped tells whether int3 follows inst.
func trapped(code []byte, inst Inst, addr uint64) bool {
	end := inst.Addr - addr + uint64(inst.Len)
	return end < uint64(len(code)) && code[end] == 0xcc
}

// upperThunk tells whether "jmp *reg" is the jump of the ITS thunk at addr: by its symbol, or
// without one by where it stands.
func upperThunk(code []byte, jmp Inst, addr uint64, resolve Resolver) bool {
	name := resolve.lookup(addr)
	return thunkClass(name) == ClassITS || name == "" && jmp.Addr&63 >= 32 && trapped(code, jmp, addr)
}

// endsCheck tells the end of a paranoid FineIBT check: a jne to the byte in front, which is a udb
// in an ITS thunk and a lock prefix of the jne at a call site.
func endsCheck(code []byte) bool { return len(code) > 1 && code[0] == 0x75 && code[1] == 0xfd }

// ReturnKind is how functions return.
type ReturnKind string

const (
	// ReturnUnknown is code of no known shape.
	ReturnUnknown ReturnKind = "unknown"
	// ReturnPlain is ret, predicted by the return stack.
	ReturnPlain ReturnKind = "plain ret"
	// ReturnRetbleed is ret at an address whose prediction is untrained on
	// kernel entry (Zen 1 and 2, Linux 5.19).
	ReturnRetbleed ReturnKind = "untrained return thunk"
	// ReturnSRSO calls a safe ret that drops its own return address, so
	// every return of the kernel is mispredicted on purpose (Zen 1 to 4,
	// Linux 6.5).
	ReturnSRSO ReturnKind = "SRSO safe ret"
	// ReturnITS is ret in the upper half of a cache line (Linux 6.15).
	ReturnITS ReturnKind = "ITS return thunk"
	// ReturnUnpatched warns and returns: it is left where the kernel missed a return
	// when it put the return thunk that it chose (Linux 6.9).
	ReturnUnpatched ReturnKind = "unpatched return thunk"
	// ReturnCallDepth counts call depth and refills the return stack now
	// and then (Linux 6.2).
	ReturnCallDepth ReturnKind = "call-depth return thunk"
)

// NameReturnThunk names the return thunk that begins at addr. Two of them
// are the same instructions, so it goes by symbol first and by shape where
// there is none, or where the symbol is __x86_return_thunk, whose body up to
// Linux 6.5 was patched in place.
func NameReturnThunk(code []byte, addr uint64, resolve Resolver) ReturnKind {
	switch resolve.lookup(addr) {
	case "srso_return_thunk", "srso_alias_return_thunk":
		return ReturnSRSO
	case "retbleed_return_thunk", "zen_return_thunk":
		return ReturnRetbleed
	case "its_return_thunk":
		return ReturnITS
	case "call_depth_return_thunk":
		return ReturnCallDepth
	case warnThunk:
		return ReturnUnpatched
	}
	var insts []Inst
	for inst := range Decode(code[:min(len(code), 32)], addr) {
		if !padding(inst) {
			insts = append(insts, inst)
		}
		if len(insts) == 4 {
			break
		}
	}
	if len(insts) == 0 {
		return ReturnUnknown
	}
	switch first := insts[0]; {
	case first.Kind == Return:
		if len(insts) > 3 && insts[2].Asm.Op == x86asm.LFENCE && insts[3].Kind == JumpDirect {
			return ReturnRetbleed
		}
		return ReturnPlain
	case countsDepth(first):
		return ReturnCallDepth
	case first.Kind == CallDirect && strings.HasPrefix(resolve.lookup(first.Target), "srso_"):
		return ReturnSRSO
	case first.Kind == JumpDirect && ReturnThunk(resolve.lookup(first.Target)):
		return NameReturnThunk(nil, first.Target, resolve)
	case first.Kind == JumpDirect && resolve.lookup(first.Target) == "__ret":
		return ReturnPlain
	}
	return ReturnUnknown
}

// warnThunk is where __x86_return_thunk jumps to when another return thunk was chosen.
const warnThunk = "warn_thunk_thunk"

// ReturnThunk tells whether name is that of a return thunk.
func ReturnThunk(name string) bool {
	return strings.HasSuffix(name, "_return_thunk") || name == warnThunk
}

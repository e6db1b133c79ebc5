package branch

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Check is how control flow integrity (CFI) tests the target of an indirect branch before
// the branch is taken. Those of x86-64 test r11, the register that clang calls through.
type Check string

const (
	// CheckNone is an indirect branch to any address.
	CheckNone Check = ""
	// CheckKCFI compares the hash of the called prototype with the one in front of the
	// function, which it loads from the text (CONFIG_CFI_CLANG since Linux 6.1, CONFIG_CFI
	// later; clang 16).
	CheckKCFI Check = "kcfi"
	// CheckKCFIUDB is what a kernel with FineIBT makes of that when it boots with cfi=kcfi: its trap is the last
	// byte of a test, so the branch to it is seldom taken (cfi_enable_callers in alternative.c of Linux 7.3).
	CheckKCFIUDB Check = "kcfi-udb"
	// CheckKCFIARM64 is that of arm64: the hash is made by two movk and compared with the one that
	// an ldur loads (CONFIG_CFI_CLANG since Linux 6.1; LowerKCFI_CHECK of LLVM's AArch64AsmPrinter.cpp).
	CheckKCFIARM64 Check = "kcfi-arm64"
	// CheckOff is that with a jump over it: cfi=off.
	CheckOff Check = "kcfi-off"
	// CheckFineIBT passes the hash on: the function compares it, in its preamble 16 bytes in
	// front of its start, where the branch goes to (Linux 6.2, CPUs with IBT).
	CheckFineIBT Check = "fineibt"
	// CheckParanoid does that and compares the hash at the caller too, with the one in the
	// preamble (Linux 6.15, CPUs with IBT and without FRED).
	CheckParanoid Check = "fineibt-paranoid"
)

// Preamble tells whether the register holds the address of the function's preamble, not that
// of the function.
func (c Check) Preamble() bool { return c == CheckFineIBT || c == CheckParanoid }

// Instructions is how many run before the branch.
func (c Check) Instructions() int {
	switch c {
	case CheckOff:
		return 1 // jmp
	case CheckKCFI: // mov, add, je
		return 3
	case CheckKCFIARM64: // ldur, movk, movk, cmp, b.eq
		return 5
	case CheckFineIBT: // mov, lea, nop
		return 3
	case CheckKCFIUDB, CheckParanoid: // mov, add, jne, test; mov, cmp, lea, jne
		return 4
	}
	return 0
}

// Loads is how many of them read the text in front of the called function.
func (c Check) Loads() int {
	switch c {
	case CheckKCFI, CheckKCFIUDB, CheckKCFIARM64, CheckParanoid:
		return 1
	}
	return 0
}

// checkedRegister is the register of every check.
const checkedRegister = "r11"

// A shape is machine code in which -1 stands for any byte.
type shape []int16

func (s shape) fits(code []byte) bool {
	if len(code) < len(s) {
		return false
	}
	for i, b := range s {
		if b >= 0 && code[i] != byte(b) {
			return false
		}
	}
	return true
}

// checks are what stands in front of a branch (arch/x86/kernel/alternative.c). That of
// [CheckParanoid] is 2 bytes shorter in front of an ITS thunk, which has its end.
var checks = []struct {
	check Check
	shape
}{
	// mov $-hash,%r10d; add disp(%r11),%r10d; je 1f; ud2; 1:
	{CheckKCFI, shape{0x41, 0xba, -1, -1, -1, -1, 0x45, 0x03, 0x53, -1, 0x74, 2, 0x0f, 0x0b}},
	// mov $-hash,%r10d; add disp(%r11),%r10d; jne into the test; test $0xd6,%al
	{CheckKCFIUDB, shape{0x41, 0xba, -1, -1, -1, -1, 0x45, 0x03, 0x53, -1, 0x75, 1, 0xa8, 0xd6}},
	{CheckOff, shape{0xeb, 12, -1, -1, -1, -1, 0x45, 0x03, 0x53, -1, 0x74, 2, 0x0f, 0x0b}},
	// Linux 6.2: mov $hash,%r10d; sub $16,%r11; nopl 0(%rax)
	{CheckFineIBT, shape{0x41, 0xba, -1, -1, -1, -1, 0x49, 0x83, 0xeb, 16, 0x0f, 0x1f, 0x40, 0}},
	// Linux 6.15: mov $hash,%r10d; lea -16(%r11),%r11; nopl 0(%rax)
	{CheckFineIBT, shape{0x41, 0xba, -1, -1, -1, -1, 0x4d, 0x8d, 0x5b, 0xf0, 0x0f, 0x1f, 0x40, 0}},
	// Linux 7.2: mov $hash,%eax; lea -16(%r11),%r11; nopl 0(%rax,%rax)
	{CheckFineIBT, shape{0xb8, -1, -1, -1, -1, 0x4d, 0x8d, 0x5b, 0xf0, 0x0f, 0x1f, 0x44, 0, 0}},
	// Linux 6.15: mov $hash,%r10d; cmp -9(%r11),%r10d; lea -16(%r11),%r11; jne -3
	{CheckParanoid, shape{0x41, 0xba, -1, -1, -1, -1, 0x45, 0x3b, 0x53, 0xf7, 0x4d, 0x8d, 0x5b, 0xf0, 0x75, 0xfd}},
	{CheckParanoid, shape{0x41, 0xba, -1, -1, -1, -1, 0x45, 0x3b, 0x53, 0xf7, 0x4d, 0x8d, 0x5b, 0xf0}},
	// Linux 7.2: mov $hash,%eax; cmp -11(%r11),%eax; cs lea -16(%r11),%r11; jne -3
	{CheckParanoid, shape{0xb8, -1, -1, -1, -1, 0x41, 0x3b, 0x43, 0xf5, 0x2e, 0x4d, 0x8d, 0x5b, 0xf0, 0x75, 0xfd}},
	{CheckParanoid, shape{0xb8, -1, -1, -1, -1, 0x41, 0x3b, 0x43, 0xf5, 0x2e, 0x4d, 0x8d, 0x5b, 0xf0}},
}

// checkBefore finds the check at the end of code, which is followed by a branch, and how many
// bytes it has.
func checkBefore(code []byte) (Check, int) {
	if len(code) < 14 {
		return CheckNone, 0
	}
	switch code[len(code)-1] { // the last byte of each, to be fast
	case 0x0b, 0xd6, 0, 0xf0, 0xfd:
	default:
		return CheckNone, 0
	}
	for _, c := range checks {
		if n := len(c.shape); len(code) >= n && c.fits(code[len(code)-n:]) {
			return c.check, n
		}
	}
	return CheckNone, 0
}

// hashLen is how many bytes a hash has.
const hashLen = 4

// overHash tells the jump of [CheckOff]. The kernel writes its 2 bytes over the opcode of a mov,
// whose hash stays behind them: [Scan] takes that for a part of the jump, as it is no code.
func overHash(code *[16]byte) bool {
	return code[1] == 12 && code[6] == 0x45 && code[7] == 0x03 && code[8] == 0x53 &&
		code[10] == 0x74 && code[11] == 2 && code[12] == 0x0f && code[13] == 0x0b
}

// Live yields the instructions of insts without those of checks that cfi=off jumps over: nothing else
// leads there.
func Live(insts iter.Seq[Inst]) iter.Seq[Inst] {
	return func(yield func(Inst) bool) {
		var dead, until uint64 // [dead, until) is jumped over
		for inst := range insts {
			if inst.Addr-dead < until-dead {
				continue
			}
			if inst.Kind == JumpDirect && inst.Asm.Len == 2 && inst.Len > 2 { // see overHash
				dead, until = inst.Addr+uint64(inst.Len), inst.Target
			}
			if !yield(inst) {
				return
			}
		}
	}
}

// PreambleLen is how many bytes a function's preamble has for FineIBT. The function follows.
const PreambleLen = 16

// Preamble is what stands in front of a function for FineIBT. An indirect call runs it, a
// direct one does not.
type Preamble struct {
	// Poisons is set when it clears the registers of arguments where the hash is wrong, against
	// branch history injection (cfi=bhi, Linux 6.15).
	Poisons bool
	// Instructions is how many run; 0 when that is not known.
	Instructions int
}

// preambles are its forms (arch/x86/kernel/alternative.c). calls is set for those that go on
// elsewhere, in __bhi_args_N, by a call whose target is in their last 4 bytes.
var preambles = []struct {
	Preamble
	calls bool
	shape
}{
	// Linux 6.2: endbr64; sub $hash,%r10d; je function; ud2; nop
	{Preamble{false, 3}, false, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x81, 0xea, -1, -1, -1, -1, 0x74, 3, 0x0f, 0x0b, 0x90}},
	// Linux 6.15: endbr64; sub $hash,%r10d; jne into the sub; nopl (%rax)
	{Preamble{false, 4}, false, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x81, 0xea, -1, -1, -1, -1, 0x75, 0xf9, 0x0f, 0x1f, 0}},
	// endbr64; sub $hash,%r10d; cmovne %r10,%rdi; jne into the sub, which ends in the function
	{Preamble{true, 4}, false, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x81, 0xea, -1, -1, -1, -1, 0x49, 0x0f, 0x45, 0xfa, 0x75}},
	// endbr64; sub $hash,%r10d; call __bhi_args_N
	{Preamble{Poisons: true}, true, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x81, 0xea, -1, -1, -1, -1, 0xe8, -1, -1, -1, -1}},
	// Linux 7.2: endbr64; sub $hash,%eax; jne,pn function+3
	{Preamble{false, 3}, false, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x2d, -1, -1, -1, -1, 0x2e, 0x0f, 0x85, 3, 0, 0, 0}},
	// endbr64; sub $hash,%eax; cmovne %rax,%rdi; jne,pn function+3
	{Preamble{true, 4}, false, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x2d, -1, -1, -1, -1, 0x48, 0x0f, 0x45, 0xf8, 0x2e, 0x75, 3}},
	// endbr64; sub $hash,%eax; cs cs call __bhi_args_N
	{Preamble{Poisons: true}, true, shape{0xf3, 0x0f, 0x1e, 0xfa, 0x2d, -1, -1, -1, -1, 0x2e, 0x2e, 0xe8, -1, -1, -1, -1}},
}

// NamePreamble names the preamble that begins at addr. It returns false when there is none.
// follow reads what the preamble calls; it may be nil.
func NamePreamble(code []byte, addr uint64, follow Follow) (Preamble, bool) {
	for _, p := range preambles {
		if !p.fits(code) {
			continue
		}
		if p.calls && follow != nil {
			target := addr + PreambleLen + uint64(int32(binary.LittleEndian.Uint32(code[12:])))
			if n := poisoned(follow(target)); n > 0 {
				p.Instructions = 3 + n
			}
		}
		return p.Preamble, true
	}
	return Preamble{}, false
}

// poisoned is how many instructions of __bhi_args_N run (arch/x86/lib/bhi.S): a jne, a cmovne
// for each argument, ret. It is 0 for other code.
func poisoned(code []byte) int {
	if len(code) == 0 || code[0] != 0x75 {
		return 0
	}
	n := 0
	for step := range Scan(code, 0) {
		n++
		if step.Kind == Return {
			return n
		}
		text := code[step.Addr:][:step.Len]
		if n > 1 && (step.Len != 4 || !bytes.Equal(text[1:3], []byte{0x0f, 0x45})) {
			return 0
		}
	}
	return 0
}

// Landing is the address of the function that an indirect branch to addr enters: addr, or
// [PreambleLen] behind it where code, which is what stands at addr, is the preamble of FineIBT.
func Landing(code []byte, addr uint64) uint64 {
	if _, ok := NamePreamble(code, addr, nil); ok {
		return addr + PreambleLen
	}
	return addr
}

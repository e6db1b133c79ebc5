// Package branch turns machine code into branches and names what each one is:
// direct, indirect, through a retpoline, through a return thunk, a static call,
// a static key, code that the kernel has yet to patch.
//
// [Scan] finds lengths and branches of x86-64 fast, [Decode] the text too;
// [Branches] classifies the branches of one function, [Sites] only its indirect
// ones; [Annotate] is a disassembly with notes. [DecodeARM64] and
// [BranchesARM64] do so for arm64. [Facts] hold what sections of a kernel image
// or a module say of addresses.
//
// It is pure. Bytes come from wherever the caller has them; names of
// addresses come through a [Resolver].
//
// Thunk shapes are those of arch/x86/lib/retpoline.S from Linux 4.15 to 7.2, those of CFI those of
// arch/x86/kernel/alternative.c from 6.2 to 7.2.
package branch

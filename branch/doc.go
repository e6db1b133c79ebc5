// Package branch turns x86-64 machine code into branches and names what each
// one is: direct, indirect, through a retpoline, through a return thunk.
//
// It is pure. Bytes come from wherever the caller has them; names of
// addresses come through a [Resolver].
//
// Thunk shapes are those of arch/x86/lib/retpoline.S from Linux 4.15 to 6.18.
package branch

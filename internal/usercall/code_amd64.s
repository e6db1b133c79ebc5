#include "textflag.h"

// The functions that are called. Each adds its number to BX. They stand in cache
// lines of their own.

TEXT f0<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $1, BX
	RET

TEXT f1<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $2, BX
	RET

TEXT f2<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $3, BX
	RET

TEXT f3<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $4, BX
	RET

TEXT f4<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $5, BX
	RET

TEXT f5<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $6, BX
	RET

TEXT f6<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $7, BX
	RET

TEXT f7<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	ADDQ $8, BX
	RET

// The retpoline of today's kernels (arch/x86/lib/retpoline.S): the return is
// predicted to go back into the trap, and goes to AX.
//
//	call 1f; int3; 1: mov %rax,(%rsp); ret; int3
TEXT retpoline<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	BYTE $0xe8; LONG $1
	BYTE $0xcc
	BYTE $0x48; BYTE $0x89; BYTE $0x04; BYTE $0x24
	RET
	BYTE $0xcc

TEXT lfence<>(SB), NOSPLIT|NOFRAME, $0-0
	PCALIGN $64
	LFENCE
	JMP AX

// func callDirect(targets *uintptr, n int) uint64
TEXT ·callDirect(SB), NOSPLIT, $16-24
	MOVQ targets+0(FP), SI
	MOVQ n+8(FP), CX
	XORQ BX, BX
	PCALIGN $64

loop:
	MOVQ (SI), AX
	ADDQ $8, SI
	CALL f0<>(SB)
	DECQ CX
	JNZ  loop
	MOVQ BX, ret+16(FP)
	RET

// func callIndirect(targets *uintptr, n int) uint64
TEXT ·callIndirect(SB), NOSPLIT, $16-24
	MOVQ targets+0(FP), SI
	MOVQ n+8(FP), CX
	XORQ BX, BX
	PCALIGN $64

loop:
	MOVQ (SI), AX
	ADDQ $8, SI
	CALL AX
	DECQ CX
	JNZ  loop
	MOVQ BX, ret+16(FP)
	RET

// func callRetpoline(targets *uintptr, n int) uint64
TEXT ·callRetpoline(SB), NOSPLIT, $16-24
	MOVQ targets+0(FP), SI
	MOVQ n+8(FP), CX
	XORQ BX, BX
	PCALIGN $64

loop:
	MOVQ (SI), AX
	ADDQ $8, SI
	CALL retpoline<>(SB)
	DECQ CX
	JNZ  loop
	MOVQ BX, ret+16(FP)
	RET

// func callLfence(targets *uintptr, n int) uint64
TEXT ·callLfence(SB), NOSPLIT, $16-24
	MOVQ targets+0(FP), SI
	MOVQ n+8(FP), CX
	XORQ BX, BX
	PCALIGN $64

loop:
	MOVQ (SI), AX
	ADDQ $8, SI
	CALL lfence<>(SB)
	DECQ CX
	JNZ  loop
	MOVQ BX, ret+16(FP)
	RET

// func addresses(to *[14]uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-8
	MOVQ to+0(FP), DI
	LEAQ f0<>(SB), AX
	MOVQ AX, 0(DI)
	LEAQ f1<>(SB), AX
	MOVQ AX, 8(DI)
	LEAQ f2<>(SB), AX
	MOVQ AX, 16(DI)
	LEAQ f3<>(SB), AX
	MOVQ AX, 24(DI)
	LEAQ f4<>(SB), AX
	MOVQ AX, 32(DI)
	LEAQ f5<>(SB), AX
	MOVQ AX, 40(DI)
	LEAQ f6<>(SB), AX
	MOVQ AX, 48(DI)
	LEAQ f7<>(SB), AX
	MOVQ AX, 56(DI)
	LEAQ ·callDirect(SB), AX
	MOVQ AX, 64(DI)
	LEAQ ·callIndirect(SB), AX
	MOVQ AX, 72(DI)
	LEAQ ·callRetpoline(SB), AX
	MOVQ AX, 80(DI)
	LEAQ ·callLfence(SB), AX
	MOVQ AX, 88(DI)
	LEAQ retpoline<>(SB), AX
	MOVQ AX, 96(DI)
	LEAQ lfence<>(SB), AX
	MOVQ AX, 104(DI)
	RET

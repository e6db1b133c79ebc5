#include "textflag.h"

// func read() uint64
TEXT ·read(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·multiply(SB), NOSPLIT, $0-16
	MOVQ n+0(FP), CX
	MOVQ $3, AX

loop:
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	IMULQ AX, AX
	SUBQ $10, CX
	JG   loop
	MOVQ AX, ret+8(FP)
	RET

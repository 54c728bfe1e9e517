#include "textflag.h"

// The interpreter of a program: it is copied into the image and never runs in
// this process. R12 is the current step; its layout is that of type step.
TEXT interpret<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	$0x800000, R12 // dataBase
	MOVQ	(R12), R12
loop:
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	SYSCALL
	MOVQ	AX, 88(R12)
	TESTQ	AX, AX
	JMI	negative
	JEQ	zero
	MOVQ	72(R12), R12
	JMP	loop
negative:
	MOVQ	56(R12), R12
	JMP	loop
zero:
	MOVQ	64(R12), R12
	JMP	loop
	// codeEnd
	LONG	$0x70696e69
	LONG	$0x666f7274

// func interpreterStart() uintptr
TEXT ·interpreterStart(SB), NOSPLIT, $0-8
	LEAQ	interpret<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

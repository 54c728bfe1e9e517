#include "textflag.h"

// The interpreter of a program: it is copied into the image and never runs in
// this process. R19 is the current step; its layout is that of type step.
TEXT interpret<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVD	$0x800000, R19 // dataBase
	MOVD	(R19), R19
loop:
	MOVD	0(R19), R8
	MOVD	8(R19), R0
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	MOVD	48(R19), R5
	SVC
	MOVD	R0, 88(R19)
	CMP	$0, R0
	BLT	negative
	BEQ	zero
	MOVD	72(R19), R19
	B	loop
negative:
	MOVD	56(R19), R19
	B	loop
zero:
	MOVD	64(R19), R19
	B	loop
	// codeEnd
	WORD	$0x70696e69
	WORD	$0x666f7274

// func interpreterStart() uintptr
TEXT ·interpreterStart(SB), NOSPLIT, $0-8
	MOVD	$interpret<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

#include "textflag.h"

// func mark(name string, kind, id uintptr)
//
// The 5-byte NOP is an instruction that uprobes emulate. See doc.go.
TEXT ·mark(SB), NOSPLIT|NOFRAME, $0-32
	BYTE $0x0f; BYTE $0x1f; BYTE $0x44; BYTE $0x00; BYTE $0x00
	RET

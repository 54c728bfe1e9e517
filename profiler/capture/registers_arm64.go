package capture

import "github.com/initprof/initprof/profiler/unwind"

// takeRegisters reads arm64's struct user_pt_regs: x0 … x30, sp, pc.
func takeRegisters(s *unwind.Stack, regs []uint64) {
	copy(s.Registers[:], regs[:32])
	s.PC = regs[32]
}

package capture

import "github.com/initprof/initprof/profiler/unwind"

// takeRegisters reads the beginning of x86-64's struct pt_regs: r15 r14 r13 r12
// bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss.
func takeRegisters(s *unwind.Stack, regs []uint64) {
	for i, number := range [...]int{15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5} {
		s.Registers[number] = regs[i]
	}
	s.PC, s.Registers[7] = regs[16], regs[19]
}

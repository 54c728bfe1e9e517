package probe

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

func TestCostOf(t *testing.T) {
	tests := []struct {
		arch, code, text string
		want             Cost
	}{
		{"amd64", "55", "push %rbp", Emulated},
		{"amd64", "4157", "push %r15", Emulated},
		{"amd64", "4855", "rex.W push %rbp", Stepped},
		{"amd64", "6655", "push %bp", Stepped},
		{"amd64", "ff7508", "push 8(%rbp)", Stepped},
		{"amd64", "6a00", "push $0", Stepped},
		{"amd64", "90", "nop", Emulated},
		{"amd64", "6690", "xchg %ax,%ax", Emulated},
		{"amd64", "4190", "xchg %eax,%r8d", Stepped},
		{"amd64", "0f1f440000", "nopl 0(%rax,%rax)", EmulatedNewer},
		{"amd64", "2e0f1f00", "cs nop", Refused},
		{"amd64", "e836daffff", "call", Emulated},
		{"amd64", "66e80000", "callw", Refused},
		{"amd64", "eb10", "jmp", Emulated},
		{"amd64", "e900000000", "jmp", Emulated},
		{"amd64", "7408", "je", Emulated},
		{"amd64", "0f84c0000000", "je", Emulated},
		{"amd64", "41ffe3", "jmp *%r11", Stepped},
		{"amd64", "c3", "ret", Stepped},
		{"amd64", "f30f1efa", "endbr64", Stepped},
		{"amd64", "4889e5", "mov %rsp,%rbp", Stepped},
		{"amd64", "4883ec10", "sub $16,%rsp", Stepped},
		{"amd64", "488d0500000000", "lea 0(%rip),%rax", Stepped},
		{"amd64", "f00fb10f", "lock cmpxchg", Refused},
		{"amd64", "cc", "int3", Refused},
		{"amd64", "0f0b", "ud2", Refused},
		{"amd64", "0f05", "syscall", Refused},
		{"amd64", "", "nothing", UnknownCost},
		{"amd64", "66", "a prefix alone", UnknownCost},
		{"arm64", "14000001", "b", Emulated},
		{"arm64", "97ffe79d", "bl", Emulated},
		{"arm64", "540000a0", "b.eq", Emulated},
		{"arm64", "b4000160", "cbz x0", Emulated},
		{"arm64", "35000041", "cbnz w1", Emulated},
		{"arm64", "36180044", "tbz w4, #3", Emulated},
		{"arm64", "37180044", "tbnz w4, #3", Emulated},
		{"arm64", "d61f0200", "br x16", Emulated},
		{"arm64", "d63f0080", "blr x4", Emulated},
		{"arm64", "d65f03c0", "ret", Emulated},
		{"arm64", "10000000", "adr x0", Emulated},
		{"arm64", "f00001e0", "adrp x0", Emulated},
		{"arm64", "d503201f", "nop", EmulatedNewer},
		{"arm64", "d503233f", "paciasp", Stepped},
		{"arm64", "d50323bf", "autiasp", Refused},
		{"arm64", "d503245f", "bti c", Stepped},
		{"arm64", "d503203f", "yield", Refused},
		{"arm64", "d65f0bff", "retaa", Refused},
		{"arm64", "d69f03e0", "eret", Refused},
		{"arm64", "d4000001", "svc #0", Refused},
		{"arm64", "d4200000", "brk #0", Refused},
		{"arm64", "58000040", "ldr x0, literal", Refused},
		{"arm64", "98000040", "ldrsw x0, literal", Refused},
		{"arm64", "5c000040", "ldr d0, literal", Refused},
		{"arm64", "885f7c20", "ldxr w0, [x1]", Refused},
		{"arm64", "c8027c20", "stxr w2, x0, [x1]", Refused},
		{"arm64", "88dffc20", "ldar w0, [x1]", Refused},
		{"arm64", "a9b87bfd", "stp x29, x30, [sp, #-128]!", Stepped},
		{"arm64", "910003fd", "mov x29, sp", Stepped},
		{"arm64", "d10043ff", "sub sp, sp, #16", Stepped},
		{"arm64", "d53bd040", "mrs x0, tpidr_el0", Stepped},
		{"riscv64", "13000000", "nop", UnknownCost},
	}
	for _, tt := range tests {
		if got := CostOf(tt.arch, machineCode(t, tt.arch, tt.code)); got != tt.want {
			t.Errorf("CostOf(%s, %s): %s is %v, want %v", tt.arch, tt.code, tt.text, got, tt.want)
		}
	}
}

func TestCheapPoint(t *testing.T) {
	tests := []struct {
		arch, code, text string
		args, offset     int
		cost             Cost
	}{
		{"amd64", "55 4889e5", "push at the entry", 2, 0, Emulated},
		{"amd64", "f30f1efa 55", "behind endbr64", 2, 4, Emulated},
		{"amd64", "48397f28 7408 c3", "call_init: cmp, je", 4, 4, Emulated},
		{"amd64", "f6875403000008 7405 c3", "_dl_relocate_object: testb, je", 4, 7, Emulated},
		{"amd64", "4889f0 4809d0 7458 55", "SSL_CTX_load_verify_locations: mov and or into rax, je", 3, 6, Emulated},
		{"amd64", "31c0 803c0700 7405 48ffc0 ebf5 c3", "strlen: a loop begins behind the xor", 1, 0, Stepped},
		{"amd64", "31c0 803c0700 7405 48ffc0 ebf3 c3", "the loop takes the entry in, which may be hit again anyhow", 1, 6, Emulated},
		{"arm64", "d2800001 f100041f 54ffffe0", "a loop begins behind the mov", 1, 0, Stepped},
		{"amd64", "4889f2 7458", "mov into rdx, an argument beyond the two in use", 2, 3, Emulated},
		{"amd64", "4889f2 7458", "mov into rdx, the third argument", 3, 0, Stepped},
		{"amd64", "4989f0 7458", "mov into r8 of four arguments", 4, 3, Emulated},
		{"amd64", "4889f3 7458", "mov into rbx, which is the caller's", 3, 0, Stepped},
		{"amd64", "488906 7458", "mov into memory", 3, 0, Stepped},
		{"amd64", "4889e5 55", "a mov changes a register", 2, 0, Stepped},
		{"amd64", "808754030000ff 7405", "addb writes memory", 2, 0, Stepped},
		{"amd64", "4883ec08 55", "the stack pointer moves", 2, 0, Stepped},
		{"arm64", "d503245f 7946c804 36180044", "bti, ldrh w4, tbz", 4, 8, Emulated},
		{"arm64", "d503245f 7946c803 36180043", "the load takes the fourth argument", 4, 0, Stepped},
		{"arm64", "d503233f 14000001", "behind paciasp the return address is signed", 2, 0, Stepped},
		{"arm64", "a9b87bfd 910003fd", "stp", 2, 0, Stepped},
		{"arm64", "f100041f 540000a0", "cmp x0, #1; b.eq", 1, 4, Emulated},
	}
	for _, tt := range tests {
		code := machineCode(t, tt.arch, tt.code)
		if offset, cost := CheapPoint(tt.arch, code, tt.args); offset != tt.offset || cost != tt.cost {
			t.Errorf("%s: CheapPoint = %d, %v, want %d, %v", tt.text, offset, cost, tt.offset, tt.cost)
		}
	}
}

// FuzzCheapPoint: a point lies in the code, and never behind an instruction
// whose cost is told as emulated wrongly.
func FuzzCheapPoint(f *testing.F) {
	f.Add([]byte{0xf3, 0x0f, 0x1e, 0xfa, 0x55}, true)
	f.Add([]byte{0x5f, 0x24, 0x03, 0xd5, 4, 0xc8, 0x46, 0x79, 0x44, 0, 0x18, 0x36}, false)
	f.Fuzz(func(t *testing.T, code []byte, amd64 bool) {
		arch := "arm64"
		if amd64 {
			arch = "amd64"
		}
		offset, cost := CheapPoint(arch, code, 4)
		if offset < 0 || offset > len(code) || cost != CostOf(arch, code[offset:]) {
			t.Errorf("CheapPoint(%s, %x) = %d, %v", arch, code, offset, cost)
		}
	})
}

// machineCode reads hexadecimal bytes, or 32-bit words on arm64.
func machineCode(t *testing.T, arch, text string) []byte {
	t.Helper()
	var code []byte
	for word := range strings.FieldsSeq(text) {
		b, err := hex.DecodeString(word)
		if err != nil {
			t.Fatal(err)
		}
		if arch == "arm64" {
			b = binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(b))
		}
		code = append(code, b...)
	}
	return code
}

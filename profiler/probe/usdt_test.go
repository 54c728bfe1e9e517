package probe

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/testdata/subjects"
)

// usdtProgram has probes with arguments of every form that an assembler knows.
const usdtProgram = `
#define NOTE(name, arguments) asm volatile("990: nop\n" \
	".pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n" \
	"991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b, _.stapsdt.base, 0\n" \
	".asciz \"initprof\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n994: .balign 4\n.popsection\n" \
	".ifndef _.stapsdt.base\n.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
	".weak _.stapsdt.base\n.hidden _.stapsdt.base\n_.stapsdt.base: .space 1\n.size _.stapsdt.base,1\n.popsection\n.endif")
__attribute__((noinline)) void reach(const char *name, long n) { NOTE("checkpoint", ARGUMENTS); }
int main(void) { NOTE("plain", ""); reach("x", 1); return 0; }
`

// readelf lists the same probes at the same addresses.
func TestUSDTIsThatOfReadelf(t *testing.T) {
	for _, c := range []struct {
		compiler, arguments string
		want                []Argument
	}{
		{"gcc", "8@%rdi -4@%esi 8@$7 -8@-24(%rbp) 1@(%rax)", []Argument{
			{Size: 8, Register: "rdi"},
			{Size: 4, Signed: true, Register: "esi"},
			{Size: 8, Offset: 7},
			{Size: 8, Signed: true, Register: "rbp", Memory: true, Offset: -24},
			{Size: 1, Register: "rax", Memory: true},
		}},
		{"aarch64-linux-gnu-gcc", "8@x0 -4@w1 8@7 -8@[sp, 24] 2@[x29]", []Argument{
			{Size: 8, Register: "x0"},
			{Size: 4, Signed: true, Register: "w1"},
			{Size: 8, Offset: 7},
			{Size: 8, Signed: true, Register: "sp", Memory: true, Offset: 24},
			{Size: 2, Register: "x29", Memory: true},
		}},
	} {
		f, path := compile(t, c.compiler, usdtProgram, `-DARGUMENTS="`+c.arguments+`"`)
		got, want := parse(t, f), readelf(t, path)
		if !slices.Equal(texts(got), want) || len(want) != 2 {
			t.Errorf("%s: probes %q, readelf says %q", c.compiler, texts(got), want)
		}
		i := slices.IndexFunc(got, func(p USDT) bool { return p.Name == CheckpointName })
		if i < 0 || !slices.Equal(got[i].Arguments, c.want) {
			t.Errorf("%s: arguments %+v, want %+v", c.compiler, got, c.want)
		}
		// The probe is a nop of the function that it stands in.
		code, err := elfObject{File: f, named: true}.ReadAddress(got[i].Address, 4)
		nop := map[string][]byte{"gcc": {0x90}, "aarch64-linux-gnu-gcc": {0x1f, 0x20, 0x03, 0xd5}}[c.compiler]
		if err != nil || !bytes.HasPrefix(code, nop) {
			t.Errorf("%s: %x at the probe", c.compiler, code)
		}
	}
}

// The Rust subject's checkpoints pass through one probe, stripped or not.
func TestUSDTOfRust(t *testing.T) {
	for _, name := range []string{subjects.RustExtension, subjects.RustStripped} {
		f, err := os.Open(subjects.Build(t, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		object, err := symbolize.OpenObject(f)
		if err != nil {
			t.Fatal(err)
		}
		probes, err := ParseUSDT(object.SDTNotes())
		if err != nil {
			t.Fatal(err)
		}
		registers := map[string][2]string{"amd64": {"rdi", "rsi"}, "arm64": {"x0", "x1"}}[runtime.GOARCH]
		if len(probes) != 1 || probes[0].Provider != CheckpointProvider || probes[0].Name != CheckpointName ||
			len(probes[0].Arguments) != 2 || probes[0].Arguments[0].Register != registers[0] || probes[0].Arguments[1].Register != registers[1] {
			t.Errorf("%s: %+v", name, probes)
		}
	}
}

// A program that was laid out anew after its notes were written (prelink) has
// its probes moved by as much as the byte of .stapsdt.base.
func TestUSDTMovesWithItsBase(t *testing.T) {
	f, _ := compile(t, "gcc", usdtProgram, `-DARGUMENTS=""`)
	notes, err := f.Section(".note.stapsdt").Data()
	if err != nil {
		t.Fatal(err)
	}
	base := f.Section(".stapsdt.base").Addr
	here, err1 := ParseUSDT(notes, base)
	moved, err2 := ParseUSDT(notes, base+0x1000)
	none, err3 := ParseUSDT(notes, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for i := range here {
		if moved[i].Address != here[i].Address+0x1000 || none[i].Address != here[i].Address {
			t.Errorf("%#x, moved %#x, without a base %#x", here[i].Address, moved[i].Address, none[i].Address)
		}
	}
}

func TestUSDTRefuses(t *testing.T) {
	for _, text := range []string{"8", "@%rdi", "3@%rdi", "8@", "8@%rip", "8@8(%rax,%rdx,8)", "8@name+4(%rip)", "8@[x0", "8@[x0, x1]", "8@8(%rax"} {
		if a, err := parseArgument(text); !errors.Is(err, ErrUSDT) {
			t.Errorf("%q is %+v", text, a)
		}
	}
	note := append([]byte{8, 0, 0, 0, 40, 0, 0, 0, 3, 0, 0, 0}, "stapsdt\x00"...)
	for _, notes := range [][]byte{note, note[:11], append(note, make([]byte, 39)...), append(bytes.Clone(note), bytes.Repeat([]byte{'x'}, 40)...)} {
		if probes, err := ParseUSDT(notes, 0); !errors.Is(err, ErrUSDT) {
			t.Errorf("%d bytes: %+v", len(notes), probes)
		}
	}
}

func parse(t *testing.T, f *elf.File) []USDT {
	t.Helper()
	notes, err := f.Section(".note.stapsdt").Data()
	if err != nil {
		t.Fatal(err)
	}
	probes, err := ParseUSDT(notes, f.Section(".stapsdt.base").Addr)
	if err != nil {
		t.Fatal(err)
	}
	return probes
}

func texts(probes []USDT) (list []string) {
	for _, p := range probes {
		list = append(list, fmt.Sprintf("%s:%s %#x", p.Provider, p.Name, p.Address))
	}
	return list
}

func readelf(t *testing.T, path string) (list []string) {
	t.Helper()
	out, err := exec.Command("readelf", "-n", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var provider, name string
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Provider":
			provider = value
		case "Name":
			name = value
		case "Location": // its value goes on with the base
			var address uint64
			if _, err := fmt.Sscanf(value, "0x%x", &address); err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s:%s %#x", provider, name, address))
		}
	}
	return list
}

func FuzzUSDT(f *testing.F) {
	f.Add([]byte{}, uint64(0))
	f.Add(append([]byte{8, 0, 0, 0, 33, 0, 0, 0, 3, 0, 0, 0}, "stapsdt\x0012345678abcdefgh\x00\x00\x00\x00\x00\x00\x00\x00a\x00b\x008@%rdi\x00"...), uint64(9))
	f.Fuzz(func(t *testing.T, notes []byte, base uint64) {
		probes, err := ParseUSDT(notes, base)
		if err != nil && !errors.Is(err, ErrUSDT) {
			t.Error(err)
		}
		if len(probes) > maxUSDT {
			t.Error(len(probes))
		}
	})
}

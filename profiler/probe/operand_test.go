package probe

import "testing"

func TestOperands(t *testing.T) {
	for _, c := range []struct {
		arch string
		a    Argument
		want uint32
	}{
		{"amd64", Argument{Size: 8, Register: "rdi"}, 14 | 3<<7},
		{"amd64", Argument{Size: 8, Register: "r9"}, 8 | 3<<7},
		{"amd64", Argument{Size: 4, Signed: true, Register: "r12d"}, 3 | 2<<7 | 1<<9},
		{"amd64", Argument{Size: 4, Register: "eax"}, 10 | 2<<7},
		{"amd64", Argument{Size: 1, Register: "sil"}, 13},
		{"amd64", Argument{Size: 1, Register: "dl"}, 12},
		{"amd64", Argument{Size: 8, Register: "rbp", Memory: true, Offset: -24}, 4 | 1<<5 | 3<<7 | 0xffe8<<16},
		{"amd64", Argument{Size: 8, Offset: 12}, 2<<5 | 3<<7 | 12<<16},
		{"arm64", Argument{Size: 8, Register: "x1"}, 1 | 3<<7},
		{"arm64", Argument{Size: 4, Register: "w30"}, 30 | 2<<7},
		{"arm64", Argument{Size: 8, Register: "sp", Memory: true, Offset: 16}, 31 | 1<<5 | 3<<7 | 16<<16},
	} {
		if got, err := c.a.pack(c.arch); err != nil || got != c.want {
			t.Errorf("%s %+v: %#x, %v, want %#x", c.arch, c.a, got, err, c.want)
		}
	}
	for _, c := range []struct {
		arch string
		a    Argument
	}{
		{"amd64", Argument{Size: 8, Register: "xmm0"}},
		{"amd64", Argument{Size: 8, Register: "x0"}},
		{"arm64", Argument{Size: 8, Register: "x31"}},
		{"arm64", Argument{Size: 8, Register: "d0"}},
		{"amd64", Argument{Size: 8, Register: "rsp", Memory: true, Offset: 1 << 20}},
	} {
		if got, err := c.a.pack(c.arch); err == nil {
			t.Errorf("%s %+v: %#x, want an error", c.arch, c.a, got)
		}
	}
}

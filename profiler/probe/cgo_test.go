package probe

import (
	"encoding/hex"
	"testing"
)

// Where g lies is read from the code that loads it, as Go's linker and the
// system's wrote it into programs of Go 1.22 and 1.26, and never guessed.
func TestPlaceOfG(t *testing.T) {
	for _, c := range []struct {
		name, code string
		find       func([]byte) int32
		want       int32
	}{
		{"amd64", "554889e564488b3c25f8ffffff4883ff00", gInAMD64, -8},
		{"amd64, PIE", "554889e5488b4424104889e248c7c1f8ffffff64488b394883ff00", gInAMD64, -8},
		{"amd64, from the GOT", "554889e5488b0d1122334464488b394883ff00", gInAMD64, 0},
		{"arm64", "3b0b00b0600380394000b4b440d03bd51b0280d21c687bf8c0035fd6", gInARM64, 16},
		{"arm64, PIE", "3b0b00b06003803940d03bd51b00a0d21b0280f21c687bf8c0035fd6", gInARM64, 16},
		{"arm64, from the GOT", "3b0b00b06003803940d03bd57b0000907b0340f91c687bf8", gInARM64, 0},
		{"cut short", "64488b3c25f8", gInAMD64, 0},
		{"none", "", gInARM64, 0},
	} {
		code, err := hex.DecodeString(c.code)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.find(code); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

package protobuf

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestFields holds the bytes against those of the encoding guide and of protoc.
func TestFields(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"varint":       {AppendVarint(nil, 1, 150), "089601"}, // the guide's example
		"zero":         {AppendVarint(nil, 1, 0), ""},
		"text":         {AppendText(nil, 2, "testing"), "120774657374696e67"}, // the guide's example
		"empty":        {AppendText(nil, 2, ""), ""},
		"empty bytes":  {AppendBytes(nil, 2, ""), "1200"},
		"double":       {AppendDouble(nil, 3, 1), "19000000000000f03f"},
		"high field":   {AppendVarint(nil, 16, 1), "800101"},
		"entry":        {AppendEntry(nil, 10, "a", "b"), "52060a0161120162"},
		"double entry": {AppendDoubleEntry(nil, 11, "a", 1), "5a0c0a016111000000000000f03f"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	long := AppendEntry(nil, 1, strings.Repeat("k", 200), strings.Repeat("v", 20000))
	if want := 1 + 3 + 1 + 2 + 200 + 1 + 3 + 20000; len(long) != want {
		t.Errorf("a long entry has %d bytes, want %d", len(long), want)
	}
}

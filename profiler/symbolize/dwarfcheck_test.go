package symbolize

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A section that says that it unpacks to a terabyte costs its object the lines,
// and neither its names nor the memory.
func TestPackedSectionsAreBounded(t *testing.T) {
	full := buildC(t, "chain.c", "-pie", "-gz=zlib")
	o := openObject(t, full)
	s := o.file.Section(".debug_info")
	b, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint64{1 << 20, 1 << 28, 1 << 40, 1<<64 - 1} {
		binary.LittleEndian.PutUint64(b[s.Offset+8:], size) // ch_size of Elf64_Chdr
		path := filepath.Join(t.TempDir(), "claims")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		hostile := openObject(t, path)
		address, _, ok := hostile.LookupFunc("local_leaf")
		if !ok {
			t.Fatal("no symbol")
		}
		frames := hostile.Frames(address)
		if len(frames) != 1 || frames[0].Function != "local_leaf" {
			t.Errorf("%d: %v", size, frames)
		}
		if size > 1<<20 && (hostile.Err() == nil || frames[0].Line != 0) {
			t.Errorf("%d: %v, error %v", size, frames, hostile.Err())
		}
	}
}

// Units that read one long table of abbreviations from each of its places would
// take the square of its length.
func TestAbbreviationsThatOverlapAreRefused(t *testing.T) {
	table := bytes.Repeat([]byte{1, 0x11, 0, 0, 0}, 4000) // a compile unit without attributes, again and again
	table = append(table, 0)
	units := func(step, n int) (info []byte) {
		for i := range n {
			unit := make([]byte, 11)
			binary.LittleEndian.PutUint32(unit, 7)
			binary.LittleEndian.PutUint16(unit[4:], 4)
			binary.LittleEndian.PutUint32(unit[6:], uint32(i*step))
			unit[10] = 8
			info = append(info, unit...)
		}
		return info
	}
	if err := checkUnits(units(0, 4000), table); err != nil {
		t.Errorf("a table that all units share: %v", err)
	}
	if err := checkUnits(units(5, 4000), table); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("a table that each unit reads from another place: %v", err)
	}
	if err := checkUnits(append(units(0, 3), 0xff, 0, 0, 0), table); err == nil {
		t.Error("a unit that reaches beyond the section was accepted")
	}
}

// A line table says how many files follow before they do.
func TestLineTablesAreBounded(t *testing.T) {
	o := openObject(t, buildC(t, "chain.c", "-gdwarf-5", "-no-pie"))
	line, err := o.debugBytes(o.debugSection("line"))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkLines(line, 0); err != nil {
		t.Error(err)
	}
	// Behind the opcode lengths: one format of two numbers, then the count.
	at := 4 + 2 + 2 + 4 + 5 + 1 + 12
	if line[at] != 1 {
		t.Fatalf("%d formats", line[at])
	}
	hostile := append(bytes.Clone(line[:at+3]), 0xff, 0xff, 0xff, 0xff, 0x7f)
	hostile = append(hostile, line[at+4:]...)
	if err := checkLines(hostile, 0); err == nil {
		t.Error("2^35 directories were accepted")
	}
	for n := range line {
		_ = checkLines(line[:n], 0)
		_ = checkLines(line, int64(n))
	}
}

// Some kilobytes of xz can hold gigabytes.
func TestXZBombsAreRefused(t *testing.T) {
	cmd := exec.Command(needTool(t, "xz"), "-1", "--stdout")
	cmd.Stdin = io.LimitReader(zeros{}, maxDebugData+1)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpackXZ(packed); err == nil || len(packed) > 1<<20 {
		t.Errorf("%d bytes that unpack to %d: %v", len(packed), maxDebugData+1, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

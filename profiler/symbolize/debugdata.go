package symbolize

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// Bounds on .gnu_debugdata, unpacked: the mini debug info of a library of 100
// MB has some 5 MB. The dictionary is allocated at once, so it is bounded apart.
const (
	maxDebugData  = 64 << 20
	maxDictionary = 64 << 20
)

// addDebugData adds the functions of .gnu_debugdata: an ELF object compressed
// by xz, with a .symtab of the functions that .dynsym lacks, as distributions of
// the Fedora family put into every program and library ("MiniDebugInfo").
func (o *Object) addDebugData(t *symbolTable) {
	s := o.section(".gnu_debugdata", elf.SHT_NULL)
	if s == nil || o.mini {
		return
	}
	packed, err := o.readFile(s.Offset, min(s.FileSize, maxDebugData))
	if err == nil {
		var b []byte
		if b, err = unpackXZ(packed); err == nil {
			err = o.addMini(t, b)
		}
	}
	if err != nil {
		o.fault(fmt.Errorf("section .gnu_debugdata: %w", err))
	}
}

func (o *Object) addMini(t *symbolTable, b []byte) error {
	mini, err := OpenObject(readerAt(b))
	if err != nil {
		return err
	}
	mini.mini = true // it holds no further one
	for _, s := range mini.file.Sections {
		if s.Type != elf.SHT_SYMTAB || s.Link == 0 || int(s.Link) >= len(mini.file.Sections) || len(t.strings) >= 8 {
			continue
		}
		symbols, err := mini.sectionBytes(s)
		if err != nil {
			return err
		}
		names, err := mini.sectionBytes(mini.file.Sections[s.Link])
		if err != nil {
			return err
		}
		o.held.Add(int64(len(symbols) + len(names)))
		t.add(symbols, names)
	}
	return nil
}

var errXZ = errors.New("malformed xz stream")

// unpackXZ unpacks a stream of the .xz format, whose blocks have the one filter
// LZMA2, without verifying its checksums. It walks the blocks itself because
// the dictionary's size, up to 4 GB, is the stream's to choose.
func unpackXZ(b []byte) ([]byte, error) {
	const header = 12
	if len(b) < header+8 || !bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")) {
		return nil, errXZ
	}
	checks := [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64} // size by type
	check := checks[b[7]&15]
	b = b[header:]
	var out bytes.Buffer
	for len(b) > 0 && b[0] != 0 { // 0 begins the index
		size := (int(b[0]) + 1) * 4
		if size > len(b) {
			return nil, errXZ
		}
		dictionary, err := xzDictionary(b[1 : size-4])
		if err != nil {
			return nil, err
		}
		block := bytes.NewReader(b[size:])
		before := block.Len()
		r, err := lzma.Reader2Config{DictCap: dictionary}.NewReader2(block)
		if err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		if _, err := io.Copy(&out, io.LimitReader(r, int64(maxDebugData-out.Len())+1)); err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		if out.Len() > maxDebugData {
			return nil, fmt.Errorf("xz: more than %d bytes", maxDebugData)
		}
		used := size + before - block.Len()
		used = (used+3)&^3 + check
		if used > len(b) {
			return nil, errXZ
		}
		b = b[used:]
	}
	return out.Bytes(), nil
}

// xzDictionary reads a block header behind its size: flags, optional sizes, and
// the filters, of which there must be one, LZMA2 (0x21).
func xzDictionary(h []byte) (int, error) {
	if len(h) == 0 {
		return 0, errXZ
	}
	flags := h[0]
	h = h[1:]
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&bit == 0 {
			continue
		}
		n := 0
		for n < len(h) && n < 9 && h[n]&0x80 != 0 {
			n++
		}
		if n >= len(h) {
			return 0, errXZ
		}
		h = h[n+1:]
	}
	if flags&3 != 0 || len(h) < 3 || h[0] != 0x21 || h[1] != 1 {
		return 0, fmt.Errorf("%w: filters other than LZMA2", errXZ)
	}
	n, err := lzma.DecodeDictCap(h[2])
	if err != nil || n > maxDictionary {
		return 0, fmt.Errorf("%w: dictionary of %d bytes", errXZ, n)
	}
	return int(max(n, lzma.MinDictCap)), nil
}

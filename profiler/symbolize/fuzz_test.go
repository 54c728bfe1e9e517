package symbolize

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzObject reads arbitrary objects and names addresses of theirs.
func FuzzObject(f *testing.F) {
	// Seeds are built, not stored: a small C library, whole and stripped, and
	// the parts of a Go program that fit.
	library := buildC(f, "chain.c", "-pie", "-g0")
	for _, flags := range [][]string{{"-pie"}, {"-pie", "-gz=zlib"}} {
		if b, err := os.ReadFile(buildC(f, "chain.c", flags...)); err == nil {
			f.Add(b)
		}
	}
	if b, err := os.ReadFile(library); err == nil {
		f.Add(b)
	}
	stripped := filepath.Join(f.TempDir(), "stripped")
	output(f, "objcopy", "--strip-all", library, stripped)
	if b, err := os.ReadFile(stripped); err == nil {
		f.Add(b)
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := OpenObject(readerAt(b))
		if err != nil {
			return
		}
		o.Language()
		c := newCursor(o)
		for i, fn := range o.Functions() {
			if i > 50 {
				break
			}
			c.frames(fn.Address)
			c.frames(fn.Address + fn.Size/2)
			_, _ = o.FileOffset(fn.Address)
		}
		o.LookupFunc("main")
		_ = o.HasSymbols()
		_ = SymbolsMatch(o, o)
		_ = o.Err()
	})
}

// FuzzPclntab reads arbitrary pclntabs. A whole Go program is too large to
// mutate: the table stands in a small object made for it, with its first
// functions' real bytes as seed.
func FuzzPclntab(f *testing.F) {
	path := buildGo(f, goBuild{program: "goprog", flags: []string{"-ldflags=-s -w"}})
	o := openObject(f, path)
	table := o.goTable()
	if table == nil {
		f.Fatal(o.Err())
	}
	f.Add(miniature(table, 40), uint32(0))
	f.Add(miniature(table, 3), uint32(7))
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		host := &Object{r: readerAt(b), file: o.file, code: []codeRange{{0x401000, 0x401000 + 1<<32}}}
		host.segments = []Segment{{Offset: 0, FileSize: uint64(len(b)), Address: 0x1000, MemSize: uint64(len(b))}}
		host.work.left.Store(maxWork)
		table, err := newGoTable(host, b, 0x1000)
		if err != nil {
			return
		}
		table.inline = 0x1000 + uint64(at)%4096
		host.goOnce.Do(func() { host.goTab = table })
		host.symbolsOnce.Do(func() { host.symbols = &symbolTable{} })
		c := newCursor(host)
		for i := range min(table.funcs, 64) {
			if f, ok := table.function(i); ok {
				c.frames(f.entry)
				c.frames(f.entry + uint64(at)%(f.end-f.entry+1))
			}
		}
		c.frames(table.textStart + uint64(at))
		if c.broken {
			t.Error("a table made it panic")
		}
	})
}

// FuzzDWARF reads arbitrary sections of debug information, with those of small
// programs in both versions as seeds, and names addresses by them.
func FuzzDWARF(f *testing.F) {
	var code codeRange
	for _, flags := range [][]string{{"-gdwarf-4"}, {"-gdwarf-5"}, {"-gdwarf-5", "-gsplit-dwarf"}} {
		o := openObject(f, buildC(f, "chain.c", append(flags, "-no-pie")...))
		content := map[string][]byte{}
		for _, name := range dwarfSections {
			if s := o.debugSection(name); s != nil {
				b, err := o.debugBytes(s)
				if err != nil {
					f.Fatal(err)
				}
				content[name] = b
			}
		}
		for _, c := range o.code {
			if c.end-c.start > code.end-code.start {
				code = c
			}
		}
		f.Add(content["abbrev"], content["info"], content["line"], content["line_str"], content["ranges"], content["rnglists"],
			content["str"], content["str_offsets"], content["addr"])
	}
	f.Fuzz(func(t *testing.T, abbrev, info, line, lineStr, ranges, rnglists, str, strOffsets, addr []byte) {
		o := &Object{r: readerAt(nil), code: []codeRange{code}}
		o.work.left.Store(maxWork / 100)
		o.dwarfOnce.Do(func() {
			defer func() { _ = recover() }() // as Object.dwarf does: debug/dwarf makes no promise
			o.dwarfInfo, _ = newDWARF(o, map[string][]byte{
				"abbrev": abbrev, "info": info, "line": line, "line_str": lineStr, "ranges": ranges, "rnglists": rnglists,
				"str": str, "str_offsets": strOffsets, "addr": addr,
			})
		})
		o.goOnce.Do(func() {})
		o.symbolsOnce.Do(func() { o.symbols = &symbolTable{} })
		c := newCursor(o)
		for a := code.start; a < code.end; a += (code.end - code.start) / 16 {
			if frames := c.frames(a); len(frames) > maxInlined+1 {
				t.Errorf("%d frames", len(frames))
			}
		}
		if c.broken {
			t.Error("debug information made it panic")
		}
	})
}

// miniature copies the first n functions of a pclntab with cut sub-tables.
func miniature(t *goTable, n int) []byte {
	cut := func(b []byte, n int) []byte { return b[:min(len(b), n)] }
	header := append([]byte{}, t.data[:72]...)
	le.PutUint64(header[8:], uint64(n))
	le.PutUint64(header[24:], t.textStart)
	out := header
	for i, sub := range [][]byte{cut(t.names, 2048), cut(t.units, 512), cut(t.files, 2048), cut(t.pcs, 4096), nil} {
		le.PutUint64(out[8+8*(3+i):], uint64(len(out)))
		out = append(out, sub...)
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
	}
	tab := append([]byte{}, t.table[:8*n+4]...)
	var bodies []byte
	for i := range n {
		off := le.Uint32(t.table[8*i+4:])
		next := le.Uint32(t.table[8*i+12:])
		le.PutUint32(tab[8*i+4:], uint32(len(tab)+len(bodies)))
		bodies = append(bodies, t.table[off:max(off+44, min(next, off+256))]...)
	}
	return append(append(out, tab...), bodies...)
}

func FuzzStore(f *testing.F) {
	m := &module{buildID: "abcd", segments: []Segment{{Offset: 0x1000, FileSize: 10, Address: 0x401000, MemSize: 10, Exec: true}}, frames: map[uint64][]Frame{
		0x401000: {{"inner", "a.c", 3}, {"outer", "a.c", 9}}, 0x401004: nil,
	}}
	s := NewStore()
	s.modules["abcd"] = m
	s.associate("/bin/x", 5, "abcd")
	f.Add(encodeModule(m), encodeIndex(s))
	f.Fuzz(func(t *testing.T, module, index []byte) {
		if m, err := decodeModule(module); err == nil {
			again, err := decodeModule(encodeModule(m))
			if err != nil || len(again.frames) != len(m.frames) {
				t.Errorf("a module does not survive writing: %v", err)
			}
		}
		_, _ = decodeIndex(index, NewStore())
		_, _ = unpackStoreFile(module)
	})
}

func FuzzKallsyms(f *testing.F) {
	f.Add("ffffffff81000000 T _text\nffffffffc0000000 t x\t[mod]\n", uint64(0xffffffff81000001))
	f.Fuzz(func(t *testing.T, text string, address uint64) {
		k, err := parseKallsyms(strings.NewReader(text))
		if err != nil {
			return
		}
		k.Name(address)
	})
}

package symbolize

import (
	"bytes"
	"debug/elf"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// debugDir is where distributions install separate debug files.
const debugDir = "/usr/lib/debug"

// debugFile finds the separate debug file of an object that has no debug
// information of its own, where gdb looks: by build ID, then by the name and
// checksum in .gnu_debuglink. It returns nil if there is none.
func (c *Collector) debugFile(o *Object, m *trace.Mapping) (debug *Object, closer io.Closer) {
	if c.opts.NoDebugFiles || o.goTable() != nil || o.section(".debug_info", elf.SHT_NULL) != nil {
		return nil, nil
	}
	if id := o.Info.BuildID; len(id) > 2 && o.hasGNUBuildID() {
		name := filepath.Join(c.debugDir(), ".build-id", id[:2], id[2:]+".debug")
		if f, err := os.Open(name); err == nil {
			if debug, err := OpenObject(f); err == nil && debug.Info.BuildID == id {
				return debug, f
			}
			_ = f.Close()
		}
	}
	name, sum := o.debugLink()
	if name == "" || m.Path == VDSOModule {
		return nil, nil
	}
	dir := path.Dir(m.Path)
	for _, p := range []string{path.Join(dir, name), path.Join(dir, ".debug", name)} {
		if c.opts.Open == nil || p == m.Path {
			continue
		}
		beside := *m
		beside.Path, beside.BuildID = p, ""
		r, closer, err := c.opts.Open(p, &beside)
		if err != nil {
			continue
		}
		if debug := acceptDebugLink(r, sum); debug != nil {
			return debug, closer
		}
		if closer != nil {
			_ = closer.Close()
		}
	}
	if f, err := os.Open(filepath.Join(c.debugDir(), filepath.FromSlash(dir), name)); err == nil {
		if debug := acceptDebugLink(f, sum); debug != nil {
			return debug, f
		}
		_ = f.Close()
	}
	return nil, nil
}

func (c *Collector) debugDir() string {
	if c.opts.DebugDir != "" {
		return c.opts.DebugDir
	}
	return debugDir
}

// debugLink reads .gnu_debuglink: a file name, padded to 4 bytes, and the
// CRC-32 of that file.
func (o *Object) debugLink() (name string, sum uint32) {
	s := o.section(".gnu_debuglink", elf.SHT_PROGBITS)
	if s == nil || s.FileSize > 4096 {
		return "", 0
	}
	b, err := o.readFile(s.Offset, s.FileSize)
	if err != nil {
		return "", 0
	}
	i := bytes.IndexByte(b, 0)
	if i <= 0 {
		return "", 0
	}
	name = string(b[:i])
	at := int(align4(uint64(i + 1)))
	if at+4 > len(b) || strings.ContainsRune(name, '/') || name == ".." {
		return "", 0
	}
	return name, le.Uint32(b[at:])
}

func acceptDebugLink(r io.ReaderAt, sum uint32) *Object {
	debug, err := OpenObject(r)
	if err != nil {
		return nil
	}
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, maxDWARF)); err != nil || h.Sum32() != sum {
		return nil
	}
	return debug
}

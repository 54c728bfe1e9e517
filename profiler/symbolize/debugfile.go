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

// maxDebugFile bounds the file whose checksum is taken.
const maxDebugFile = 4 << 30

// debugFile returns the separate debug file of an object that has no debug
// information of its own, nil if there is none. It is looked for once and lives
// as long as the object.
func (c *Collector) debugFile(o *Object, m *trace.Mapping) *Object {
	if c.opts.NoDebugFiles {
		return nil
	}
	o.debugOnce.Do(func() { o.debug, o.debugCloser = c.findDebugFile(o, m) })
	return o.debug
}

// findDebugFile looks where gdb looks: by build ID, then by the name and
// checksum in .gnu_debuglink; first as the subject sees these paths, then on
// the host.
func (c *Collector) findDebugFile(o *Object, m *trace.Mapping) (debug *Object, closer io.Closer) {
	if m.Path == VDSOModule || o.goTable() != nil || o.section(".debug_info", elf.SHT_NULL) != nil {
		return nil, nil
	}
	if id := o.Info.BuildID; len(id) > 2 && o.hasGNUBuildID() {
		name := filepath.Join(c.debugDir(), ".build-id", id[:2], id[2:]+".debug")
		debug, closer := c.openDebug(m, name, func(debug *Object) bool { return debug.Info.BuildID == id })
		if debug != nil {
			return debug, closer
		}
	}
	name, sum := o.debugLink()
	if name == "" {
		return nil, nil
	}
	dir := path.Dir(m.Path)
	for _, p := range []string{path.Join(dir, name), path.Join(dir, ".debug", name), filepath.Join(c.debugDir(), filepath.FromSlash(dir), name)} {
		if p == m.Path {
			continue
		}
		if debug, closer := c.openDebug(m, p, func(debug *Object) bool { return checksum(debug.r) == sum }); debug != nil {
			return debug, closer
		}
	}
	return nil, nil
}

// openDebug opens a debug file that belongs to a mapping's object, as the
// subject sees its path or as the host does.
func (c *Collector) openDebug(m *trace.Mapping, name string, belongs func(*Object) bool) (*Object, io.Closer) {
	try := func(r io.ReaderAt, closer io.Closer, err error) *Object {
		if err != nil {
			return nil
		}
		debug, err := OpenObject(r)
		if err == nil && belongs(debug) {
			return debug
		}
		if closer != nil {
			_ = closer.Close()
		}
		return nil
	}
	if c.opts.Open != nil {
		// It is not mapped anywhere: no range of addresses leads to it.
		beside := &trace.Mapping{Header: m.Header, Path: name}
		r, closer, err := c.opts.Open(name, beside)
		if debug := try(r, closer, err); debug != nil {
			return debug, closer
		}
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	f, err := os.Open(name)
	return try(f, f, err), f
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

// checksum is that of .gnu_debuglink, over the whole file.
func checksum(r io.ReaderAt) uint32 {
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, maxDebugFile)); err != nil {
		return 0
	}
	return h.Sum32()
}

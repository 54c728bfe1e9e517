package symbolize

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A store on disk is a directory:
//
//	index.zst   paths → modules by time, and the modules' keys
//	KEY.zst     one module: segments, frames
//
// A file is an 8-byte magic, a version byte and a zstd frame of unsigned
// varints and length-prefixed strings, in the order of encodeIndex and
// encodeModule.
const (
	storeMagic   = "ipsymbol"
	storeVersion = 1
	maxDecoded   = 256 << 20 // bytes of one file, unpacked
	maxModules   = 1 << 16
)

// ErrNotStore is returned, wrapped, for files that are not a store's.
var ErrNotStore = errors.New("not a symbol table of initprof")

// Write writes the store to a directory, which is created.
func (s *Store) Write(dir string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	defer func() { _ = encoder.Close() }()
	write := func(name string, payload []byte) error {
		file := encoder.EncodeAll(payload, append([]byte(storeMagic), storeVersion))
		if err := os.WriteFile(filepath.Join(dir, name+".zst"), file, 0o644); err != nil {
			return fmt.Errorf("write symbols: %w", err)
		}
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(s.modules)) {
		if err := write(key, encodeModule(s.modules[key])); err != nil {
			return err
		}
	}
	return write("index", encodeIndex(s))
}

// Open reads a store. A damaged module costs its names: it is left out, and
// the error, joined over all such, comes together with the usable store.
// The store is nil only if the index cannot be read.
func Open(dir string) (*Store, error) {
	payload, err := readStoreFile(filepath.Join(dir, "index.zst"))
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	s := NewStore()
	keys, err := decodeIndex(payload, s)
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	var errs []error
	for _, key := range keys {
		payload, err := readStoreFile(filepath.Join(dir, key+".zst"))
		if err == nil {
			var m *module
			if m, err = decodeModule(payload); err == nil {
				m.key = key
				s.modules[key] = m
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("symbols of module %s: %w", key, err))
		}
	}
	return s, errors.Join(errs...)
}

func readStoreFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxDecoded {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotStore}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return unpackStoreFile(b)
}

func unpackStoreFile(b []byte) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(b), storeMagic)
	if !ok || rest == "" {
		return nil, ErrNotStore
	}
	if v := rest[0]; v != storeVersion {
		return nil, fmt.Errorf("%w that this version reads: version %d, not %d", ErrNotStore, v, storeVersion)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	payload, err := decoder.DecodeAll([]byte(rest[1:]), nil)
	if err != nil {
		return nil, fmt.Errorf("damaged or cut short: %w", err)
	}
	return payload, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func encodeIndex(s *Store) []byte {
	b := binary.AppendUvarint(nil, uint64(len(s.modules)))
	for _, key := range slices.Sorted(maps.Keys(s.modules)) {
		b = appendString(b, key)
	}
	b = binary.AppendUvarint(b, uint64(len(s.paths)))
	for _, path := range slices.Sorted(maps.Keys(s.paths)) {
		b = appendString(b, path)
		b = binary.AppendUvarint(b, uint64(len(s.paths[path])))
		for _, a := range s.paths[path] {
			b = binary.AppendUvarint(b, uint64(a.from))
			b = appendString(b, a.key)
		}
	}
	return b
}

func decodeIndex(b []byte, s *Store) (keys []string, err error) {
	d := &storeDecoder{b: b}
	n := d.count(1)
	if n > maxModules {
		return nil, fmt.Errorf("%w: %d modules", errDamaged, n)
	}
	for range n {
		key := d.text()
		if !validKey(key) {
			return nil, fmt.Errorf("%w: module %q", errDamaged, key)
		}
		keys = append(keys, key)
	}
	for range d.count(2) {
		path := d.text()
		for range d.count(2) {
			s.paths[path] = append(s.paths[path], association{from: int64(d.uvarint()), key: d.text()})
		}
		slices.SortStableFunc(s.paths[path], func(a, b association) int { return cmp.Compare(a.from, b.from) })
	}
	return keys, d.end()
}

// validKey keeps a key from leaving the store's directory.
func validKey(key string) bool {
	if key == "" || len(key) > 160 || key == "index" {
		return false
	}
	for _, c := range key {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

func encodeModule(m *module) []byte {
	b := appendString(nil, m.buildID)
	b = binary.AppendUvarint(b, uint64(len(m.segments)))
	for _, s := range m.segments {
		for _, v := range []uint64{s.Offset, s.FileSize, s.Address, s.MemSize} {
			b = binary.AppendUvarint(b, v)
		}
		flags := byte(0)
		if s.Exec {
			flags |= 1
		}
		if s.Write {
			flags |= 2
		}
		b = append(b, flags)
	}
	addresses := slices.Sorted(maps.Keys(m.frames))
	texts, frames := map[string]uint64{}, map[Frame]uint64{}
	var textList []string
	var frameList []Frame
	text := func(s string) {
		if _, ok := texts[s]; !ok {
			texts[s] = uint64(len(textList))
			textList = append(textList, s)
		}
	}
	for _, a := range addresses {
		for _, f := range m.frames[a] {
			if _, ok := frames[f]; !ok {
				frames[f] = uint64(len(frameList))
				frameList = append(frameList, f)
				text(f.Function)
				text(f.File)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(textList)))
	for _, s := range textList {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(frameList)))
	for _, f := range frameList {
		b = binary.AppendUvarint(b, texts[f.Function])
		b = binary.AppendUvarint(b, texts[f.File])
		b = binary.AppendUvarint(b, uint64(f.Line))
	}
	b = binary.AppendUvarint(b, uint64(len(addresses)))
	last := uint64(0)
	for _, a := range addresses {
		b = binary.AppendUvarint(b, a-last)
		last = a
		b = binary.AppendUvarint(b, uint64(len(m.frames[a])))
		for _, f := range m.frames[a] {
			b = binary.AppendUvarint(b, frames[f])
		}
	}
	return b
}

func decodeModule(b []byte) (*module, error) {
	d := &storeDecoder{b: b}
	m := &module{buildID: d.text(), frames: map[uint64][]Frame{}}
	for range d.count(5) {
		s := Segment{Offset: d.uvarint(), FileSize: d.uvarint(), Address: d.uvarint(), MemSize: d.uvarint()}
		flags := d.byte()
		s.Exec, s.Write = flags&1 != 0, flags&2 != 0
		m.segments = append(m.segments, s)
	}
	texts := make([]string, d.count(1))
	for i := range texts {
		texts[i] = d.text()
	}
	text := func() string {
		i := d.uvarint()
		if i >= uint64(len(texts)) {
			d.bad = true
			return ""
		}
		return texts[i]
	}
	frames := make([]Frame, d.count(3))
	for i := range frames {
		frames[i] = Frame{Function: text(), File: text(), Line: int(min(d.uvarint(), 1<<31-1))}
	}
	address := uint64(0)
	for range d.count(2) {
		address += d.uvarint()
		n := d.count(1)
		if n > maxInlined+1 {
			d.bad = true
			break
		}
		list := make([]Frame, 0, n)
		for range n {
			i := d.uvarint()
			if i >= uint64(len(frames)) {
				d.bad = true
				break
			}
			list = append(list, frames[i])
		}
		m.frames[address] = list
	}
	return m, d.end()
}

var errDamaged = errors.New("damaged symbol table")

// storeDecoder reads a payload. After the first mistake it returns zeros, and
// end tells.
type storeDecoder struct {
	b   []byte
	bad bool
}

func (d *storeDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of elements that take at least size bytes each, so that
// no claim makes memory grow beyond the payload's.
func (d *storeDecoder) count(size int) uint64 {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return n
}

func (d *storeDecoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *storeDecoder) text() string {
	n := d.count(1)
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *storeDecoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errDamaged
	}
	return nil
}

package symbolize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// storeVersion changes with every change of the file's form.
const storeVersion = 1

// maxStore bounds a store's text against files that lie about themselves.
const maxStore = 1 << 30

// ErrStore is wrapped by errors about files that are no store of this version.
var ErrStore = errors.New("not a symbol store that this initprof can read")

// storeFile is a store on disk. Addresses are hexadecimal.
type storeFile struct {
	Version int                      `json:"version"`
	Modules []moduleFile             `json:"modules"`
	Paths   map[string][]pathVersion `json:"paths"`
}

type moduleFile struct {
	Key      string             `json:"key"`
	BuildID  string             `json:"build_id,omitempty"`
	Segments []Segment          `json:"segments,omitempty"`
	Frames   map[string][]Frame `json:"frames"`
}

type pathVersion struct {
	From int64  `json:"from_ns"`
	Key  string `json:"key"`
}

const storeName = "frames.json.zst"

// Write writes the store into a directory, which it makes.
func (s *Store) Write(dir string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	file := storeFile{Version: storeVersion, Paths: map[string][]pathVersion{}}
	for _, m := range s.modules {
		out := moduleFile{Key: m.key, BuildID: m.buildID, Segments: m.segments, Frames: map[string][]Frame{}}
		for a, frames := range m.frames {
			out.Frames[strconv.FormatUint(a, 16)] = frames
		}
		file.Modules = append(file.Modules, out)
	}
	for path, list := range s.paths {
		for _, a := range list {
			file.Paths[path] = append(file.Paths[path], pathVersion{a.from, a.key})
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	out, err := os.Create(filepath.Join(dir, storeName))
	if err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("write symbols: %w", errors.Join(err, out.Close()))
	}
	err = json.NewEncoder(z).Encode(file)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	return nil
}

// Open reads the store in a directory. A directory without one is an empty
// store. Errors about its content wrap ErrStore.
func Open(dir string) (*Store, error) {
	in, err := os.Open(filepath.Join(dir, storeName))
	if errors.Is(err, os.ErrNotExist) {
		return NewStore(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	defer func() { _ = in.Close() }()
	return readStore(in)
}

func readStore(in io.Reader) (*Store, error) {
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxStore))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	defer z.Close()
	var file storeFile
	if err := json.NewDecoder(io.LimitReader(z, maxStore)).Decode(&file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if file.Version != storeVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrStore, file.Version, storeVersion)
	}
	s := NewStore()
	for _, m := range file.Modules {
		mod := s.moduleFor(m.Key, m.BuildID, m.Segments)
		for text, frames := range m.Frames {
			a, err := strconv.ParseUint(text, 16, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: address %q", ErrStore, text)
			}
			mod.frames[a] = frames
		}
	}
	for path, list := range file.Paths {
		for _, v := range list {
			s.associate(path, v.From, v.Key)
		}
	}
	return s, nil
}

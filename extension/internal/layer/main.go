// Command layer writes a Lambda layer: a zip file whose entries are unpacked
// below /opt. The same files give the same bytes.
//
//	layer -o layer.zip extensions/initprof-extension=bin/variants/arm64/integration
package main

import (
	"archive/zip"
	"compress/flate"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// maxUnzipped is what Lambda allows for a function and all of its layers.
const maxUnzipped = 250 << 20

func main() {
	out := flag.String("o", "layer.zip", "file to write")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		os.Exit(1)
	}
}

func run(out string, entries []string) (err error) {
	if len(entries) == 0 {
		return fmt.Errorf("no ENTRY=FILE")
	}
	f, err := os.CreateTemp(".", ".layer-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	z := zip.NewWriter(f)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	total := 0
	for _, entry := range entries {
		name, path, ok := strings.Cut(entry, "=")
		if !ok || strings.HasPrefix(name, "/") || strings.Contains(name, "..") {
			return fmt.Errorf("%q is not ENTRY=FILE with a path below /opt", entry)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if total += len(data); total > maxUnzipped {
			return fmt.Errorf("more than %d bytes unpacked, which Lambda refuses", maxUnzipped)
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		header.SetMode(0o755)
		w, err := z.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

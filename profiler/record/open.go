package record

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/trace"
)

// openMapping opens an object as the subject sees it, or what it has mapped of
// one that has no name any more.
func (s *session) openMapping(path string, m *trace.Mapping) (io.ReaderAt, io.Closer, error) {
	file := strings.TrimSuffix(path, " (deleted)")
	f, err := openRegular(s.root + "/root" + file)
	if err != nil || file != path {
		if f, err = openRegular(fmt.Sprintf("%s/map_files/%x-%x", s.root, m.Start, m.Limit)); err != nil {
			f, err = openRegular(file) // the subject is gone
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return f, f, nil
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file that the subject may have put there: a FIFO would
// block, a device do whatever it does when it is opened or read.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// file puts the program's image into a memfd that can be executed.
func (p *program) file(name string) (*os.File, error) {
	image, err := p.image()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC came with 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	// A child's descriptors from 3 on are laid over by those that it is given.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	f := os.NewFile(uintptr(high), name)
	if _, err := f.Write(image); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, errors.Join(err, f.Close()))
	}
	return f, nil
}

// fdPath names an open file so that a child can exec it before it is closed.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Residual is a file of which pages stayed in memory.
type Residual struct {
	Path     string
	Resident int // pages in memory
	Pages    int // of the file
}

// EvictPageCache writes the files back and drops their pages from memory. Pages
// that a process has mapped stay (posix_fadvise(2)): ResidualPages finds them,
// Options.Copies avoids them. Directories and other things that have no pages
// are passed over.
func EvictPageCache(paths []string) error {
	var errs []error
	for _, path := range paths {
		if err := evict(path); err != nil {
			errs = append(errs, fmt.Errorf("drop %s from the page cache: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// ResidualPages looks, by mincore(2), which of the files have pages in memory.
// Of files that the caller neither owns nor may write, the kernel tells nothing
// true; it needs root there.
func ResidualPages(paths []string) ([]Residual, error) {
	var list []Residual
	var errs []error
	for _, path := range paths {
		f, size, err := openRegular(path)
		if err != nil || f == nil {
			errs = append(errs, err)
			continue
		}
		r, err := resident(f, size)
		_ = f.Close()
		if err != nil {
			errs = append(errs, err)
		} else if r.Resident > 0 {
			list = append(list, r)
		}
	}
	return list, errors.Join(errs...)
}

// openRegular opens a file for reading; nil when it is no regular one.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func evict(path string) error {
	f, _, err := openRegular(path)
	if err != nil || f == nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = unix.Fdatasync(int(f.Fd()))
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EROFS) { // nothing to write back
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return err
}

// resident counts the pages of an open file that are in memory.
func resident(f *os.File, size int64) (Residual, error) {
	r := Residual{Path: f.Name()}
	if size == 0 {
		return r, nil
	}
	page := int64(os.Getpagesize())
	r.Pages = int((size + page - 1) / page)
	const window = 256 << 20
	for at := int64(0); at < size; at += window {
		n := min(size-at, window)
		memory, err := unix.Mmap(int(f.Fd()), at, int(n), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return r, fmt.Errorf("%s: mmap: %w", f.Name(), err)
		}
		flags := make([]byte, (n+page-1)/page)
		err = mincore(memory, flags)
		if unmapErr := unix.Munmap(memory); err == nil {
			err = unmapErr
		}
		if err != nil {
			return r, fmt.Errorf("%s: mincore: %w", f.Name(), err)
		}
		for _, flag := range flags {
			r.Resident += int(flag & 1)
		}
	}
	return r, nil
}

// copiesDir holds private copies: it must be on a disk, where pages can be
// dropped, which /tmp often is not.
const copiesDir = "/var/tmp"

// copies are the private copies of one box. The watchdog removes them when
// initprof dies.
type copies struct {
	dir    string
	lock   *os.File
	covers []cover
}

// newCopies copies the files, pages dropped, with what execve looks at: mode,
// owner, file capabilities.
func newCopies(name string, paths []string) (c *copies, err error) {
	c = &copies{dir: filepath.Join(copiesDir, name)}
	if err := os.Mkdir(c.dir, 0o711); err != nil {
		return nil, fmt.Errorf("private copies: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("private copies: %w", err), c.remove())
			c = nil
		}
	}()
	if c.lock, err = lockDir(c.dir, 0); err != nil {
		return c, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.dir, &fs); err != nil {
		return c, err
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return c, errors.New(copiesDir + " is in memory: pages there cannot be dropped")
	}
	for i, path := range paths {
		to := filepath.Join(c.dir, strconv.Itoa(i))
		if err := copyCold(path, to); err != nil {
			return c, err
		}
		c.covers = append(c.covers, cover{to, path})
	}
	return c, nil
}

func copyCold(from, to string) (err error) {
	src, _, err := openRegular(from)
	if err != nil {
		return err
	}
	if src == nil {
		return fmt.Errorf("%s is no regular file", from)
	}
	defer func() { _ = src.Close() }()
	var info unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &info); err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Chown(int(info.Uid), int(info.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dst.Fd()), info.Mode&0o7777); err != nil {
		return err
	}
	const capability = "security.capability"
	value := make([]byte, 64)
	if n, err := unix.Fgetxattr(int(src.Fd()), capability, value); err == nil {
		if err := unix.Fsetxattr(int(dst.Fd()), capability, value[:n], 0); err != nil {
			return fmt.Errorf("%s: file capabilities: %w", from, err)
		}
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(dst.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func (c *copies) files() []string {
	list := make([]string, len(c.covers))
	for i, cover := range c.covers {
		list[i] = cover.from
	}
	return list
}

func (c *copies) remove() error {
	if c == nil {
		return nil
	}
	if c.lock != nil {
		defer func() { _ = c.lock.Close() }()
	}
	return os.RemoveAll(c.dir)
}

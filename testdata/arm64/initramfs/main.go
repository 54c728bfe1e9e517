// Command initramfs writes the first file system of a kernel: a newc cpio
// archive with an init and the modules that it loads, in the order given.
//
//	initramfs OUTPUT INIT [MODULE…]
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: initramfs OUTPUT INIT [MODULE…]")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(output, init string, modules []string) (err error) {
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	a := &archive{w: bufio.NewWriter(f)}
	for _, dir := range []string{"dev", "proc", "sys", "disk", "modules"} {
		a.entry(dir, 0o040755, 0, nil)
	}
	// The kernel opens /dev/console for init before anything is mounted.
	a.entry("dev/console", 0o020600, device(5, 1), nil)
	if err := a.file("init", init); err != nil {
		return err
	}
	for i, module := range modules {
		if err := a.file(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(module)), module); err != nil {
			return err
		}
	}
	a.entry("TRAILER!!!", 0, 0, nil)
	if a.err != nil {
		return a.err
	}
	return a.w.Flush()
}

func device(major, minor int) int { return major<<8 | minor }

// archive writes entries of the format that the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes.
type archive struct {
	w     *bufio.Writer
	inode int
	err   error
}

func (a *archive) file(name, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	a.entry(name, 0o100755, 0, data)
	return a.err
}

func (a *archive) entry(name string, mode, rdev int, data []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, rdev>>8, rdev&0xff, len(name)+1, 0, name)
	for _, part := range []string{header, string(data)} {
		if _, a.err = io.WriteString(a.w, part); a.err != nil {
			return
		}
		if _, a.err = a.w.Write(make([]byte, (4-len(part)%4)%4)); a.err != nil {
			return
		}
	}
}

package launch_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/launch"
)

// diskFile is a file on a file system whose pages can be dropped.
func diskFile(t *testing.T, size int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "launch-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("/var/tmp is in memory")
	}
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func residentPages(t *testing.T, path string) int {
	t.Helper()
	list, err := launch.ResidualPages([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return 0
	}
	return list[0].Resident
}

func TestPageCache(t *testing.T) {
	page := os.Getpagesize()
	path := diskFile(t, 16*page-1)
	if n := residentPages(t, path); n != 16 {
		t.Errorf("%d pages of a file just written", n)
	}
	if err := launch.EvictPageCache([]string{path, "/proc"}); err != nil {
		t.Error(err)
	}
	if n := residentPages(t, path); n != 0 {
		t.Errorf("%d pages after they were dropped", n)
	}

	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := launch.EvictPageCache([]string{path}); err != nil {
		t.Error(err)
	}
	if n := residentPages(t, path); n == 0 {
		t.Error("a mapped page was dropped")
	}
	if err := unix.Munmap(mapped); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := launch.EvictPageCache([]string{filepath.Join(path, "absent")}); err == nil {
		t.Error("no error for a file that does not exist")
	}
}

// A program that others keep mapped starts from a copy of its own, under its own
// name.
func TestPrivateCopies(t *testing.T) {
	needRoot(t)
	program := diskFile(t, 0)
	body, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, body, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	box := newBox(t, launch.Options{Copies: []string{program}})
	p, err := box.Hold(launch.Command{Path: program, Args: []string{"cat", "/proc/self/maps"}})
	if err != nil {
		t.Fatal(err)
	}
	if outside, inside := inode(program), inode(p.Root()+program); outside == inside {
		t.Error("the box has the file itself")
	}
	if n := residentPages(t, p.Root()+program); n != 0 {
		t.Errorf("%d pages of the copy are in memory before its exec", n)
	}
	if _, err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if exit := p.Wait(); exit.Status != 0 || !strings.Contains(string(p.LastOutput()), program+"\n") {
		t.Errorf("%+v; the program is not mapped by its name:\n%s", exit, p.LastOutput())
	}
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob("/var/tmp/initprof-" + strconv.Itoa(os.Getpid()) + "-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

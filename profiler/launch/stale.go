package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var boxName = regexp.MustCompile("^" + boxPrefix + `([0-9]+)-[0-9]+$`)

// CleanStale removes the cgroups and private copies that initprof processes
// left behind when they died, kill -9 included, and returns how many it removed.
// What a living one owns stays, and what initprof may not remove.
func CleanStale() (removed int) {
	living := map[string]bool{} // by a box's name: one of its directories is locked
	tidy := func(dirs []string, remove func(string) error) {
		for _, dir := range dirs {
			if locked(dir) {
				living[filepath.Base(dir)] = true
			}
		}
		for _, dir := range dirs {
			if !living[filepath.Base(dir)] && stale(dir) && remove(dir) == nil {
				removed++
			}
		}
	}
	var groups []string
	for _, pattern := range []string{cgroupRoot + "/" + boxPrefix + "*", cgroupRoot + "/*/" + boxPrefix + "*"} {
		dirs, _ := filepath.Glob(pattern) // the pattern is well-formed
		for _, dir := range dirs {
			var fs unix.Statfs_t
			if unix.Statfs(dir, &fs) != nil || fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
				continue
			}
			groups = append(groups, dir)
		}
	}
	tidy(groups, emptyGroup)
	dirs, _ := filepath.Glob(filepath.Join(copiesDir, boxPrefix+"*"))
	tidy(dirs, os.RemoveAll)
	return removed
}

// locked tells whether a living owner holds the lock of a directory.
func locked(dir string) bool {
	lock, err := lockDir(dir, unix.LOCK_NB)
	if err == nil {
		_ = lock.Close()
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

// stale tells whether a directory named after an initprof process has no living
// owner. The owner holds a lock on one of a box's directories, and is known by
// its PID until it has taken it; a PID may have been given to somebody else.
func stale(dir string) bool {
	match := boxName.FindStringSubmatch(filepath.Base(dir))
	if match == nil {
		return false
	}
	pid, err := strconv.Atoi(match[1])
	if err != nil || pid == os.Getpid() {
		return false
	}
	lock, err := lockDir(dir, unix.LOCK_NB)
	if err != nil {
		return false
	}
	defer func() { _ = lock.Close() }()
	return !isInitprof(pid)
}

// isInitprof tells whether the process runs this program, or cannot be told not
// to.
func isInitprof(pid int) bool {
	their, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
		return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) && !isZombie(pid)
	case err != nil:
		return true
	}
	our, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return true
	}
	base := func(exe string) string { return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) }
	return base(their) == base(our)
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
	}
	text := string(stat)
	return strings.HasPrefix(text[strings.LastIndexByte(text, ')')+1:], " Z")
}

// emptyGroup kills what is left in a stale cgroup and removes it.
func emptyGroup(dir string) error {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("stale cgroup: %w", err)
	}
	for _, word := range strings.Fields(string(procs)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return removeGroup(dir)
}

package launch

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// given is what this process was started with: what a subject is to find, not
// what initprof or the libraries in it made of it since.
var given = inheritance()

type inheritanceOf struct {
	rlimits []rlimit
	cpus    []int
}

type rlimit struct {
	resource int
	unix.Rlimit
}

func inheritance() (g inheritanceOf) {
	const last = 15 // RLIMIT_RTTIME, asm-generic/resource.h
	for resource := range last + 1 {
		l := rlimit{resource: resource}
		// RLIMIT_NOFILE is the runtime's matter: it raises it at start and
		// gives the old one back to its children.
		if resource != unix.RLIMIT_NOFILE && unix.Getrlimit(resource, &l.Rlimit) == nil {
			g.rlimits = append(g.rlimits, l)
		}
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		for c := range len(set) * 64 {
			if set.IsSet(c) {
				g.cpus = append(g.cpus, c)
			}
		}
	}
	if len(g.cpus) == 0 {
		g.cpus = []int{0} // more than 1024 CPUs: at least one is right
	}
	return g
}

// changedRlimits lists the limits that this process changed for itself.
func changedRlimits() (list []rlimit) {
	for _, was := range given.rlimits {
		var now unix.Rlimit
		if unix.Getrlimit(was.resource, &now) == nil && now != was.Rlimit {
			list = append(list, was)
		}
	}
	return list
}

// inherited collects the descriptors of a child.
type inherited struct {
	files []*os.File
}

// add returns the number that the file has in the child.
func (i *inherited) add(f *os.File) int {
	i.files = append(i.files, f)
	return len(i.files) - 1
}

func (i *inherited) fds() []uintptr {
	fds := make([]uintptr, len(i.files))
	for k, f := range i.files {
		fds[k] = f.Fd()
		_ = unix.SetNonblock(int(fds[k]), false) // os.Pipe makes its ends non-blocking
	}
	return fds
}

// hasZero tells whether one of the strings cannot be given to the kernel.
func hasZero(lists ...[]string) bool {
	for _, list := range lists {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return true
			}
		}
	}
	return false
}

package launch

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StayOff keeps the threads of this process, present and future, off the given
// CPUs, which a box uses. It returns the CPUs they keep to: nil when there are
// no others, and then nothing changes. Restore undoes it.
func StayOff(cpus []int) (kept []int, restore func() error, err error) {
	restore = func() error { return nil }
	for _, c := range given.cpus {
		if !slices.Contains(cpus, c) {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		return nil, restore, nil
	}
	restore = func() error { return setAffinity(given.cpus) }
	if err := setAffinity(kept); err != nil {
		return nil, restore, errors.Join(err, restore())
	}
	return kept, restore, nil
}

// setAffinity binds every thread of this process. Threads that start meanwhile
// inherit the mask of one that may not be bound yet, hence the second look.
func setAffinity(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	bound := map[int]bool{}
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || bound[tid] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			bound[tid], again = true, true
		}
	}
	return nil
}

// cpuList renders CPUs as cpuset files want them.
func cpuList(cpus []int) string {
	words := make([]string, len(cpus))
	for i, c := range cpus {
		words[i] = strconv.Itoa(c)
	}
	return strings.Join(words, ",")
}

package load

import (
	"os"
	"syscall"
)

// peak is the largest resident set that the process had, in bytes.
func peak(state *os.ProcessState) int64 {
	if u, ok := state.SysUsage().(*syscall.Rusage); ok {
		return int64(u.Maxrss) << 10
	}
	return 0
}

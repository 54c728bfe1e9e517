package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore fills one byte per page of the mapping; bit 0 says that it is in
// memory.
func mincore(memory, flags []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)),
		uintptr(unsafe.Pointer(&flags[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

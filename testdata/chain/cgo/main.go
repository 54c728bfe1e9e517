// Command chain calls from Go through ten frames into C, through eleven of C into
// a deed; or from there back into Go, through ten frames into a deed; or from
// there once more into C. Which stack holds which functions is known.
package main

/*
#cgo CFLAGS: -O2 -fomit-frame-pointer
#include "links.h"
*/
import "C"

import (
	"os"
	"syscall"
	"time"
)

func main() {
	for deed := C.SLEEP; deed <= C.WRITE; deed++ {
		there10(deed, 0)
		there10(C.BACK, deed)
		there10(C.BACK_AND_DOWN, deed)
	}
}

//export back
func back(deed, other C.int) C.long {
	return C.long(back10(int(deed), int(other)))
}

//go:noinline
func there1(deed, other int) int { return int(C.down(C.int(deed), C.int(other))) + 1 }

//go:noinline
func there2(deed, other int) int { return there1(deed, other) + 2 }

//go:noinline
func there3(deed, other int) int { return there2(deed, other) + 3 }

//go:noinline
func there4(deed, other int) int { return there3(deed, other) + 4 }

//go:noinline
func there5(deed, other int) int { return there4(deed, other) + 5 }

//go:noinline
func there6(deed, other int) int { return there5(deed, other) + 6 }

//go:noinline
func there7(deed, other int) int { return there6(deed, other) + 7 }

//go:noinline
func there8(deed, other int) int { return there7(deed, other) + 8 }

//go:noinline
func there9(deed, other int) int { return there8(deed, other) + 9 }

//go:noinline
func there10(deed, other int) int { return there9(deed, other) + 10 }

//go:noinline
func back1(deed, other int) int {
	if deed == C.BACK_AND_DOWN {
		return int(C.down(C.int(other), 0)) + 1
	}
	switch other {
	case C.SLEEP:
		return doSleep() + 1
	case C.FAULT:
		return doFault() + 1
	case C.SPIN:
		return doSpin() + 1
	}
	return doWrite() + 1
}

//go:noinline
func back2(deed, other int) int { return back1(deed, other) + 2 }

//go:noinline
func back3(deed, other int) int { return back2(deed, other) + 3 }

//go:noinline
func back4(deed, other int) int { return back3(deed, other) + 4 }

//go:noinline
func back5(deed, other int) int { return back4(deed, other) + 5 }

//go:noinline
func back6(deed, other int) int { return back5(deed, other) + 6 }

//go:noinline
func back7(deed, other int) int { return back6(deed, other) + 7 }

//go:noinline
func back8(deed, other int) int { return back7(deed, other) + 8 }

//go:noinline
func back9(deed, other int) int { return back8(deed, other) + 9 }

//go:noinline
func back10(deed, other int) int { return back9(deed, other) + 10 }

//go:noinline
func doSleep() int {
	for range 50 {
		t := syscall.NsecToTimespec(200_000)
		_ = syscall.Nanosleep(&t, nil)
	}
	return 0
}

//go:noinline
func doFault() int {
	const page, pages = 4096, 256
	memory, err := syscall.Mmap(-1, 0, page*pages, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		os.Exit(1)
	}
	_ = syscall.Madvise(memory, 15) // MADV_NOHUGEPAGE
	for i := range pages {
		memory[i*page] = 1
	}
	return int(memory[page])
}

var sink int

//go:noinline
func doSpin() int {
	for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
		for i := range 100_000 {
			sink += i ^ sink
		}
	}
	return sink
}

//go:noinline
func doWrite() int {
	n := 0
	for range 200 {
		m, _ := syscall.Write(2, nil)
		n += m
	}
	return n
}

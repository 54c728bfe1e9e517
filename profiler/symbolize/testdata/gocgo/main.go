// Command gocgo is goprog linked with C by the system's linker. It tells what its own runtime knows about the code addresses
// that stand on its standard input: offsets from main.main, in hexadecimal,
// one a line. It prints "function<TAB>file<TAB>line" of the innermost frame.
// Behind them follow the logical frames of a call chain with inlined calls:
// "chain<TAB>offset<TAB>function<TAB>file<TAB>line".
//
// It imports little, so that building it with an old toolchain is quick.
package main

// static int twice(int n) { return 2 * n; }
import "C"

import (
	"runtime"
	"syscall"
)

type number interface{ ~int | ~int64 }

//go:noinline
func origin(pcs []uintptr) int { return runtime.Callers(1, pcs) }

func innermost(pcs []uintptr) int { return origin(pcs) + int(C.twice(0)) }

func generic[T number](pcs []uintptr, n T) int {
	if n > 1000 {
		return 0
	}
	return innermost(pcs)
}

type walker struct{ pcs []uintptr }

func (w *walker) method() int { return generic(w.pcs, 3) }

//go:noinline
func (w *walker) physical() int { return w.method() }

func main() {
	entry := runtime.FuncForPC(callerPC()).Entry()
	for _, line := range lines() {
		print1(entry+parse(line), "")
	}
	w := &walker{make([]uintptr, 32)}
	n := func() int { return w.physical() }()
	frames := runtime.CallersFrames(w.pcs[:n])
	for i := 0; i < n; i++ {
		f, _ := frames.Next()
		write("chain\t" + hex(w.pcs[i]-1-entry) + "\t" + f.Function + "\t" + f.File + "\t" + hex(uintptr(f.Line)) + "\n")
	}
}

//go:noinline
func callerPC() uintptr {
	var pcs [1]uintptr
	runtime.Callers(2, pcs[:])
	return pcs[0]
}

func print1(pc uintptr, prefix string) {
	f, _ := runtime.CallersFrames([]uintptr{pc + 1}).Next()
	write(prefix + f.Function + "\t" + f.File + "\t" + hex(uintptr(f.Line)) + "\n")
}

func write(s string) {
	for b := []byte(s); len(b) > 0; {
		n, err := syscall.Write(1, b)
		if err != nil {
			return
		}
		b = b[n:]
	}
}

func lines() []string {
	var all []byte
	buf := make([]byte, 65536)
	for {
		n, err := syscall.Read(0, buf)
		if n <= 0 || err != nil {
			break
		}
		all = append(all, buf[:n]...)
	}
	var list []string
	start := 0
	for i, c := range all {
		if c == '\n' {
			list = append(list, string(all[start:i]))
			start = i + 1
		}
	}
	return list
}

func parse(s string) uintptr {
	var v uintptr
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uintptr(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uintptr(c-'a'+10)
		}
	}
	return v
}

func hex(v uintptr) string {
	var b [16]byte
	i := len(b)
	for {
		i--
		b[i] = "0123456789abcdef"[v&15]
		v >>= 4
		if v == 0 {
			return string(b[i:])
		}
	}
}

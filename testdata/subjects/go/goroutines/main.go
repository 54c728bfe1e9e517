// Command goroutines runs goroutines whose states are known, and writes what
// runtime/trace says of them in the same run to the file that its argument
// names. With "spin N" for arguments it runs N spinners instead, and with
// "spin N FILE" also writes what the kernel says that each had of a CPU. It
// builds with Go 1.22 and later from this file alone.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/trace"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if os.Args[1] == "spin" {
		n, _ := strconv.Atoi(os.Args[2])
		cpu := spinners(n)
		if len(os.Args) > 3 {
			check(os.WriteFile(os.Args[3], []byte(strings.Join(cpu, "")), 0o644))
		}
		return
	}
	f, err := os.Create(os.Args[1])
	if err == nil {
		err = trace.Start(f)
	}
	check(err)
	var all sync.WaitGroup
	start := func(f func()) {
		all.Add(1)
		go func() {
			defer all.Done()
			f()
		}()
	}
	for _, ms := range []int{5, 10, 20} {
		start(func() { spin(time.Duration(ms) * time.Millisecond) })
	}
	start(func() { time.Sleep(30 * time.Millisecond) })
	channel(start)
	mutex(start)
	loopback(start)
	for range 500 {
		start(short)
	}
	all.Wait()
	trace.Stop()
	if err := f.Close(); err != nil {
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// spinners runs goroutines that spin, each for 100 ms of wall time and on a
// thread of its own, so that the threads compete for the CPUs. It returns a line
// for each: its thread and the CPU time in nanoseconds between the ends of its
// two calls of clock_gettime.
func spinners(n int) []string {
	runtime.GOMAXPROCS(n)
	lines := make([]string, n)
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			before := threadTime()
			spin(100 * time.Millisecond)
			after := threadTime()
			lines[i] = fmt.Sprintln(syscall.Gettid(), after-before)
		}()
	}
	all.Wait()
	return lines
}

// threadTime is the CPU time of this thread, in nanoseconds, by a system call
// that is made nowhere else.
func threadTime() int64 {
	const clockThreadCPUTime = 3
	var at syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPUTime, uintptr(unsafe.Pointer(&at)), 0); errno != 0 {
		check(errno)
	}
	return at.Nano()
}

// channel blocks one goroutine for 12 ms until another sends.
func channel(start func(func())) {
	c := make(chan int)
	start(func() { <-c })
	start(func() {
		time.Sleep(12 * time.Millisecond)
		c <- 1
	})
}

// mutex blocks one goroutine on a lock that another holds for 8 ms.
func mutex(start func(func())) {
	var lock sync.Mutex
	held := make(chan bool)
	start(func() {
		lock.Lock()
		close(held)
		time.Sleep(8 * time.Millisecond)
		lock.Unlock()
	})
	start(func() {
		<-held
		lock.Lock()
		lock.Unlock() //nolint:staticcheck // only the wait matters
	})
}

// loopback blocks one goroutine in a read for 15 ms until another writes.
func loopback(start func(func())) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	start(func() {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		time.Sleep(15 * time.Millisecond)
		if _, err := c.Write([]byte("x")); err != nil {
			panic(err)
		}
		_ = c.Close()
		_ = l.Close()
	})
	start(func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			panic(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			panic(err)
		}
		_ = c.Close()
	})
}

var sink int

func short() {
	s := 0
	for i := range 100 {
		s += i
	}
	if s < 0 {
		sink = s
	}
}

// Command goroutines runs goroutines whose states are known, and writes what
// runtime/trace says of them in the same run to the file that its argument
// names; with "spin N" for arguments it runs N spinners instead. It builds with Go 1.22 and later from this file alone.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/trace"
	"strconv"
	"sync"
	"time"
)

func main() {
	if os.Args[1] == "spin" {
		n, _ := strconv.Atoi(os.Args[2])
		spinners(n)
		return
	}
	f, err := os.Create(os.Args[1])
	if err == nil {
		err = trace.Start(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
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

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// spinners runs goroutines that spin, each for 100 ms of wall time and on a
// thread of its own, so that the threads compete for the CPUs.
func spinners(n int) {
	runtime.GOMAXPROCS(n)
	var all sync.WaitGroup
	for range n {
		all.Add(1)
		go func() {
			defer all.Done()
			spin(100 * time.Millisecond)
		}()
	}
	all.Wait()
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

package launch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keptOutput bounds what is kept of a process's output, and the length of a
	// line.
	keptOutput = 64 << 10
	// settleTimeout bounds how long the end of a process waits for the delivery
	// of what it wrote, when its children go on writing.
	settleTimeout = 500 * time.Millisecond
)

// output reads what a process prints, so that it never blocks, and keeps the
// end.
type output struct {
	from  *os.File
	line  func([]byte)
	echo  io.Writer
	ended chan struct{}
	busy  atomic.Bool // a chunk was read and is not delivered yet

	mu   sync.Mutex
	tail []byte // at most twice keptOutput
}

func collect(from *os.File, line func([]byte), echo io.Writer) *output {
	o := &output{from: from, line: line, echo: echo, ended: make(chan struct{})}
	go o.drain()
	return o
}

// drain reads until the end of file, or until close.
func (o *output) drain() {
	defer close(o.ended)
	raw, err := o.from.SyscallConn()
	if err != nil {
		return
	}
	buffer := make([]byte, 32<<10)
	var partial []byte
	for {
		var n int
		var failed error
		// busy must be set before the pipe is empty, or settle could miss a chunk.
		err := raw.Read(func(fd uintptr) bool {
			o.busy.Store(true)
			n, failed = unix.Read(int(fd), buffer)
			for errors.Is(failed, unix.EINTR) {
				n, failed = unix.Read(int(fd), buffer)
			}
			if errors.Is(failed, unix.EAGAIN) {
				o.busy.Store(false)
				return false
			}
			return true
		})
		if err != nil || failed != nil || n <= 0 {
			break
		}
		o.keep(buffer[:n])
		if o.echo != nil {
			_, _ = o.echo.Write(buffer[:n]) // the subject must not suffer from a closed terminal
		}
		if o.line != nil {
			partial = lines(append(partial, buffer[:n]...), o.line)
		}
		o.busy.Store(false)
	}
	if len(partial) > 0 {
		o.line(partial)
	}
}

// lines hands out the whole lines of data and returns what is left.
func lines(data []byte, line func([]byte)) []byte {
	rest := data
	for {
		i := bytes.IndexByte(rest, '\n')
		switch {
		case i >= 0 && i <= keptOutput:
			line(rest[:i])
			rest = rest[i+1:]
		case len(rest) > keptOutput:
			line(rest[:keptOutput])
			rest = rest[keptOutput:]
		default:
			return append(data[:0], rest...)
		}
	}
}

func (o *output) keep(data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, data...)
	if len(o.tail) > 2*keptOutput {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-keptOutput:]...)
	}
}

func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.tail[max(0, len(o.tail)-keptOutput):])
}

// settle returns when all that is in the pipe now was delivered.
func (o *output) settle() {
	for deadline := time.Now().Add(settleTimeout); !o.idle() && time.Now().Before(deadline); {
		select {
		case <-o.ended:
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// idle tells whether the pipe is empty and nothing read from it is under way.
func (o *output) idle() bool {
	select {
	case <-o.ended:
		return true
	default:
	}
	raw, err := o.from.SyscallConn()
	if err != nil {
		return true
	}
	var waiting int
	if err := raw.Control(func(fd uintptr) { waiting, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return true
	}
	return waiting == 0 && !o.busy.Load()
}

// close ends the reading, also where somebody still holds the other end.
func (o *output) close() {
	_ = o.from.Close()
	<-o.ended
}

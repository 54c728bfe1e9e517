package launch

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tailSize is how much of the last output is kept.
	tailSize = 64 << 10
	// settleTimeout bounds how long the end of a process waits for the delivery
	// of what it wrote, when its children go on writing.
	settleTimeout = 500 * time.Millisecond
)

// output drains the pipes of one process, whatever it writes, in bounded memory.
type output struct {
	streams []*stream
	mu      sync.Mutex
	tail    []byte // a ring once it has tailSize bytes
	oldest  int
}

type stream struct {
	out    *output
	pipe   *os.File
	writer io.Writer
	busy   atomic.Bool // a chunk was read and is not delivered yet
	ended  chan struct{}
}

func (o *output) add(pipe *os.File, w io.Writer) {
	if pipe != nil {
		o.streams = append(o.streams, &stream{out: o, pipe: pipe, writer: w, ended: make(chan struct{})})
	}
}

func (o *output) start() {
	for _, s := range o.streams {
		go s.drain()
	}
}

// drain reads until the end of file, or until close.
func (s *stream) drain() {
	defer close(s.ended)
	buffer := make([]byte, 32<<10)
	raw, err := s.pipe.SyscallConn()
	if err != nil {
		return
	}
	for {
		var n int
		var readErr error
		// busy must be set before the pipe is empty, or settle could miss a chunk.
		err := raw.Read(func(fd uintptr) bool {
			s.busy.Store(true)
			for {
				n, readErr = unix.Read(int(fd), buffer)
				if !errors.Is(readErr, unix.EINTR) {
					break
				}
			}
			if errors.Is(readErr, unix.EAGAIN) {
				s.busy.Store(false)
				return false
			}
			return true
		})
		if err != nil || readErr != nil || n <= 0 {
			break
		}
		s.out.keep(buffer[:n])
		s.deliver(buffer[:n])
		s.busy.Store(false)
	}
	if f, ok := s.writer.(interface{ Flush() error }); ok {
		_ = f.Flush() // the end of an incomplete line; nobody is left to tell
	}
	s.busy.Store(false)
}

func (s *stream) deliver(b []byte) {
	if s.writer == nil {
		return
	}
	if _, err := s.writer.Write(b); err != nil {
		s.writer = nil
	}
}

func (o *output) keep(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(b) > tailSize {
		b = b[len(b)-tailSize:]
	}
	if room := tailSize - len(o.tail); room > 0 {
		n := min(room, len(b))
		o.tail = append(o.tail, b[:n]...)
		b = b[n:]
	}
	for len(b) > 0 {
		n := copy(o.tail[o.oldest:], b)
		o.oldest = (o.oldest + n) % tailSize
		b = b[n:]
	}
}

func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append(append([]byte(nil), o.tail[o.oldest:]...), o.tail[:o.oldest]...)
}

// settle returns when all that is in the pipes now was delivered.
func (o *output) settle() {
	deadline := time.Now().Add(settleTimeout)
	for _, s := range o.streams {
		for !s.idle() && time.Now().Before(deadline) {
			select {
			case <-s.ended:
			case <-time.After(100 * time.Microsecond):
			}
		}
	}
}

// idle tells whether the pipe is empty and nothing read from it is under way.
func (s *stream) idle() bool {
	select {
	case <-s.ended:
		return true
	default:
	}
	raw, err := s.pipe.SyscallConn()
	if err != nil {
		return true
	}
	var waiting int
	if err := raw.Control(func(fd uintptr) { waiting, _ = unix.IoctlGetInt(int(fd), unix.FIONREAD) }); err != nil {
		return true
	}
	return waiting == 0 && !s.busy.Load()
}

// close ends the reading, also where somebody still holds the other end.
func (o *output) close() {
	if o == nil {
		return
	}
	for _, s := range o.streams {
		_ = s.pipe.Close()
	}
}

package sandbox

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// stampingListener hands out connections that know when they were last read
// from and written to, and that write an answer in one piece.
type stampingListener struct{ net.Listener }

func (l *stampingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	// Go's default, but a listener of the caller's need not be Go's. Without it
	// an answer in two packets makes the client wait for its own delayed ACK,
	// 40 ms.
	if tcp, ok := c.(interface{ SetNoDelay(bool) error }); ok {
		_ = tcp.SetNoDelay(true)
	}
	return &stampingConn{Conn: c}, nil
}

// closeFlush bounds the writing of a held answer when its connection closes.
const closeFlush = time.Second

// stampingConn is one connection of the API.
type stampingConn struct {
	net.Conn
	readAt atomic.Int64 // CLOCK_MONOTONIC of the last read that brought bytes

	mu      sync.Mutex
	onWrite func(at int64) // told of the first write after it was set, before it
	held    []byte         // an answer that is kept back until it is whole
	holding bool
}

func (c *stampingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.readAt.Store(monotonic())
	}
	return n, err
}

// answer announces that the next write is the answer of a request. With hold,
// everything written is kept back until release: net/http writes what exceeds
// its 4 KiB buffer in several pieces.
func (c *stampingConn) answer(hold bool, size int, onWrite func(at int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onWrite = onWrite
	if hold {
		c.holding = true
		c.held = make([]byte, 0, size)
	}
}

func (c *stampingConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holding {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.writeLocked(b)
}

func (c *stampingConn) writeLocked(b []byte) (int, error) {
	if c.onWrite != nil {
		c.onWrite(monotonic())
		c.onWrite = nil
	}
	return c.Conn.Write(b)
}

// release writes what was held, in one write.
func (c *stampingConn) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.releaseLocked()
}

func (c *stampingConn) releaseLocked() error {
	if !c.holding {
		return nil
	}
	c.holding = false
	held := c.held
	c.held = nil
	_, err := c.writeLocked(held)
	return err
}

// CloseWrite is what net/http calls before it closes a connection whose request
// it did not read to the end.
func (c *stampingConn) CloseWrite() error {
	if err := c.release(); err != nil {
		return err
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close writes what was held, unless another goroutine is stuck writing it.
func (c *stampingConn) Close() error {
	if c.mu.TryLock() {
		if c.holding {
			_ = c.SetWriteDeadline(time.Now().Add(closeFlush))
			_ = c.releaseLocked()
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

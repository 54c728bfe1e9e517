// Package dogstatsd takes in what functions send to UDP 127.0.0.1:8125 and hands
// it to metrics. It listens before the first Next, so that a function never
// finds the port closed.
package dogstatsd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

// Limits on datagrams and on what waits to be read.
const (
	maxDatagram   = 65507   // bytes, the largest that loopback carries
	receiveBuffer = 4 << 20 // bytes in the kernel, which caps it at net.core.rmem_max
	burst         = 256     // datagrams that are read before others get the lock
)

// Server reads datagrams until it is closed.
type Server struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	out  *metrics.Aggregator
	log  *logging.Logger
	done chan struct{}

	// mu is held from reading a datagram until its metrics are aggregated: who
	// holds it and finds the socket empty knows that nothing is under way.
	mu     sync.Mutex
	buffer []byte

	malformed atomic.Uint64
}

// Listen binds the address, "127.0.0.1:8125" say, and starts to read.
func Listen(address string, out *metrics.Aggregator, log *logging.Logger) (*Server, error) {
	at, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, fmt.Errorf("dogstatsd: %w", err)
	}
	conn, err := net.ListenUDP("udp4", at)
	if err != nil {
		return nil, fmt.Errorf("dogstatsd: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("dogstatsd: %w", err)
	}
	s := &Server{conn: conn, raw: raw, out: out, log: log, done: make(chan struct{})}
	go s.read()
	return s, nil
}

// Addr is the address that the server is bound to.
func (s *Server) Addr() net.Addr { return s.conn.LocalAddr() }

// Drain takes in what has been sent already, for at most that long. A datagram on
// loopback waits at its receiver as soon as it is sent: nothing has to be waited
// for.
func (s *Server) Drain(atMost time.Duration) {
	until := time.Now().Add(atMost)
	_ = s.raw.Control(func(fd uintptr) {
		for !s.take(int(fd)) && time.Now().Before(until) {
		}
	})
}

// Close stops reading, and says what was lost.
func (s *Server) Close() error {
	s.tellDrops()
	err := s.conn.Close()
	<-s.done
	if n := s.malformed.Load(); n > 0 {
		s.log.Warnf("dogstatsd: %d malformed metrics in all", n)
	}
	return err
}

// Dropped is how many datagrams found no room in the kernel's buffer.
func (s *Server) Dropped() (n uint64) {
	// SK_MEMINFO_DROPS of include/uapi/linux/sock_diag.h, since Linux 4.12.
	const (
		soMeminfo = 55
		drops     = 8
	)
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_ = s.raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soMeminfo,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			n = uint64(info[drops])
		}
	})
	return n
}

func (s *Server) tellDrops() {
	if n := s.Dropped(); n > 0 {
		s.log.Warnf("dogstatsd: %d datagrams were dropped by the kernel: they came faster than they were read", n)
	}
}

func (s *Server) read() {
	defer close(s.done)
	// A larger buffer rides out bursts.
	_ = s.conn.SetReadBuffer(receiveBuffer)
	// Read returns to wait for the next datagram when the function says false.
	err := s.raw.Read(func(fd uintptr) bool {
		for !s.take(int(fd)) {
		}
		return false
	})
	if !errors.Is(err, net.ErrClosed) {
		s.log.Errorf("dogstatsd: nothing is read any more: %v", err)
	}
}

// take reads a burst of datagrams. It reports whether the socket has run empty.
func (s *Server) take(fd int) (empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buffer == nil { // pages of it are touched as far as datagrams reach
		s.buffer = make([]byte, maxDatagram)
	}
	for range burst {
		n, err := syscall.Read(fd, s.buffer)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			s.log.WarnOnce("dogstatsd read", "dogstatsd: %v", err)
			return true
		}
		s.parse(string(s.buffer[:n]))
	}
	return false
}

func (s *Server) parse(datagram string) {
	for datagram != "" {
		var line string
		line, datagram, _ = strings.Cut(datagram, "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			continue
		}
		err := parse(line, func(sample metrics.Sample) {
			if !s.out.Add(sample) {
				s.log.WarnOnce("dogstatsd full", "dogstatsd: metrics are dropped: the buffer is full until the next flush")
			}
		})
		if errors.Is(err, errIgnored) {
			s.log.WarnOnce("dogstatsd ignored", "dogstatsd: %v", err)
		} else if err != nil {
			s.malformed.Add(1)
			s.log.WarnOnce("dogstatsd malformed", "dogstatsd: malformed metric (told once): %v", err)
		}
	}
}

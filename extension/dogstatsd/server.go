// Package dogstatsd takes in what functions send to UDP 127.0.0.1:8125 and hands
// it to metrics. It listens before the first Next, so that a function never
// finds the port closed.
package dogstatsd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

// maxDatagram is the largest datagram that loopback carries.
const maxDatagram = 65507

// Server reads datagrams until it is closed.
type Server struct {
	conn *net.UDPConn
	out  *metrics.Aggregator
	log  *logging.Logger
	done chan struct{}

	received  atomic.Uint64
	malformed atomic.Uint64
}

// Listen binds the address, "127.0.0.1:8125" say, and starts to read.
func Listen(address string, out *metrics.Aggregator, log *logging.Logger) (*Server, error) {
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("dogstatsd: %w", err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, fmt.Errorf("dogstatsd: %w", err)
	}
	s := &Server{conn: conn, out: out, log: log, done: make(chan struct{})}
	go s.read()
	return s, nil
}

// Addr is the address that the server is bound to.
func (s *Server) Addr() net.Addr { return s.conn.LocalAddr() }

// Drain reads what has arrived already. It waits at most that long for the
// socket to run empty.
func (s *Server) Drain(atMost time.Duration) {
	for until := time.Now().Add(atMost); time.Now().Before(until); {
		before := s.received.Load()
		time.Sleep(time.Millisecond)
		if s.received.Load() == before {
			return
		}
	}
}

// Close stops reading.
func (s *Server) Close() error {
	err := s.conn.Close()
	<-s.done
	if n := s.malformed.Load(); n > 0 {
		s.log.Warnf("dogstatsd: %d malformed metrics in all", n)
	}
	return err
}

func (s *Server) read() {
	defer close(s.done)
	// A larger buffer rides out bursts; the kernel caps it at net.core.rmem_max.
	_ = s.conn.SetReadBuffer(4 << 20)
	buf := make([]byte, maxDatagram+1)
	for {
		n, _, err := s.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.WarnOnce("dogstatsd read", "dogstatsd: %v", err)
			time.Sleep(time.Millisecond)
			continue
		}
		s.take(string(buf[:n]))
		s.received.Add(1)
	}
}

func (s *Server) take(datagram string) {
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

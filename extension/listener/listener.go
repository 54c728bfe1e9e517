// Package listener serves HTTP on one address until it is closed. It is what the
// extension's servers (traceagent, telemetry, lifecycle) have in common: how they
// bind and close, and what a client can make them hold.
package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/initprof/initprof/extension/logging"
)

// Limits on what clients may hold. There is no limit on idle connections' age:
// the clock runs on while the environment is frozen, and a client would find
// its connection closed at each thaw.
const (
	headerTimeout  = 5 * time.Second  // to send a request's header
	maxHeader      = 64 << 10         // bytes
	bodyTimeout    = 10 * time.Second // to send a request's body
	maxConnections = 256
	maxReading     = 32 << 20 // bytes of bodies that are being read, of all connections
)

// HTTP is a bound and served address. The zero value is not bound.
type HTTP struct {
	listener net.Listener
	server   http.Server
	log      *logging.Logger
	reading  atomic.Int64 // bytes
	open     atomic.Int64 // connections
}

// Listen binds the address, of IPv4, and serves it with handler.
func (h *HTTP) Listen(address string, handler http.Handler, logger *logging.Logger) error {
	// Any other network, and MPTCP, would have net probe for what the kernel has:
	// a dozen system calls in each cold start.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return err
	}
	h.listener, h.log = listener, logger
	h.server.Handler = handler
	h.server.ReadHeaderTimeout, h.server.MaxHeaderBytes = headerTimeout, maxHeader
	h.server.IdleTimeout = -1 // else ReadHeaderTimeout stands for it
	h.server.ErrorLog = log.New(serverLog{logger}, "", 0)
	h.server.ConnState = h.count
	go func() { _ = h.server.Serve(listener) }()
	return nil
}

// count closes a connection that is one too many.
func (h *HTTP) count(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if h.open.Add(1) > maxConnections {
			h.log.WarnOnce("connections "+h.Addr().String(), "%v: more than %d connections: those that come are closed", h.Addr(), maxConnections)
			_ = conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		h.open.Add(-1)
	}
}

// serverLog takes what net/http has to say: connections that could not be
// accepted, handlers that panicked.
type serverLog struct{ log *logging.Logger }

func (s serverLog) Write(p []byte) (int, error) {
	s.log.WarnOnce("http server", "%s", p)
	return len(p), nil
}

// Errors of Body. Others mean that the body did not come whole.
var (
	ErrTooLarge = errors.New("the body is too large")
	ErrBusy     = errors.New("too much is being read at once")
)

// Body reads the body of a request, of at most limit bytes. What it allocates
// follows what has come, not what a header claims, and all bodies that are
// being read share one limit.
func (h *HTTP) Body(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	if r.ContentLength > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrTooLarge, r.ContentLength, limit)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	size := 4 << 10
	if n := r.ContentLength; n >= 0 && n < 64<<10 {
		size = int(n) + 1 // room for the read that finds the end
	}
	var body []byte
	reserved := 0
	defer func() { h.reading.Add(int64(-reserved)) }()
	for {
		if len(body) == cap(body) {
			if cap(body) > 0 {
				size = min(2*cap(body), limit+1)
			}
			if h.reading.Add(int64(size-reserved)) > maxReading {
				h.reading.Add(int64(reserved - size))
				return nil, ErrBusy
			}
			reserved = size
			body = append(make([]byte, 0, size), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if len(body) > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		}
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, fmt.Errorf("an incomplete body: %w", err)
		}
	}
}

// Refuse answers a request whose Body returned err, and says so once.
func (h *HTTP) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, ErrTooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrBusy):
		status = http.StatusTooManyRequests
	}
	h.log.WarnOnce("refused "+r.URL.Path+http.StatusText(status), "%v%s: refused (told once): %v", h.Addr(), r.URL.Path, err)
	w.Header().Set("Connection", "close") // the rest of the body is not read
	http.Error(w, err.Error(), status)
}

// Addr is the address that is bound.
func (h *HTTP) Addr() net.Addr { return h.listener.Addr() }

// Close waits for requests under way until ctx ends, then closes.
func (h *HTTP) Close(ctx context.Context) error {
	if err := h.server.Shutdown(ctx); err != nil {
		return errors.Join(err, h.server.Close())
	}
	return nil
}

// Package listener serves HTTP on one address until it is closed. It is what the
// extension's servers (traceagent, telemetry, lifecycle) have in common.
package listener

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// headerTimeout bounds how long a client may take to send a request's header.
const headerTimeout = 5 * time.Second

// HTTP is a bound and served address. The zero value is not bound.
type HTTP struct {
	listener net.Listener
	server   http.Server
}

// Listen binds the address and serves it with handler.
func (h *HTTP) Listen(address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	h.listener = listener
	h.server.Handler = handler
	h.server.ReadHeaderTimeout = headerTimeout
	go func() { _ = h.server.Serve(listener) }()
	return nil
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

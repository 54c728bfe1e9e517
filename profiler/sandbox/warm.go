package sandbox

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// warmOnce answers a few requests before the first environment is used: the
// first answer of a process takes three times as long as the later ones (code
// not yet paged in, encoders not yet built), and would be charged to the first
// cold start of a session.
var warmOnce sync.Once

// warmTimeout bounds the warming, which takes one or two milliseconds.
const warmTimeout = time.Second

func warm() {
	e := newEnv(Config{Extensions: []string{"warm"}, ExternalRuntime: true})
	listener := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	client, server := net.Pipe()
	listener.conns <- server
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Serve(listener)
	}()
	_ = client.SetDeadline(time.Now().Add(warmTimeout))
	go func() {
		const subscription = `{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"TCP","port":9001}}`
		id := e.extensions[0].id
		for _, request := range [][2]string{
			{"POST /2020-01-01/extension/register", `{"events":["INVOKE"]}`},
			{"PUT /2022-07-01/telemetry", subscription}, // refused, for its port
			{"GET /2020-01-01/extension/event/next", ""},
		} {
			_, err := fmt.Fprintf(client, "%s HTTP/1.1\r\nHost: warm\r\n%s: warm\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
				request[0], headerName, headerIdentifier, id, len(request[1]), request[1])
			if err != nil {
				return
			}
		}
	}()
	// Two answers; the next stays without one.
	buf := make([]byte, 4<<10)
	for range 2 {
		if _, err := client.Read(buf); err != nil && err != io.EOF {
			break
		}
	}
	_ = client.Close()
	_ = e.Close()
	<-done
}

// pipeListener accepts connections that were made in memory.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "warm", Net: "unix"} }

// Package proxy stands between a function's runtime and the Runtime API, so that
// AppSec sees the events of invocations and what the function answers. boot
// starts it only where AppSec asks for it; everything that it does not know
// passes through as it is.
//
// The runtime finds it because /opt/datadog_wrapper, which Lambda starts in the
// runtime's place where AWS_LAMBDA_EXEC_WRAPPER names it, sets
// AWS_LAMBDA_RUNTIME_API to Address; or because it is the Lambda Web Adapter,
// which AWS_LWA_LAMBDA_RUNTIME_API_PROXY tells.
package proxy

import (
	"bytes"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/initprof/initprof/extension/logging"
)

// Wrapper is the program that sends the runtime to Address.
const (
	Wrapper = "/opt/datadog_wrapper"
	Address = "127.0.0.1:9000"
)

// maxCopy bounds what is kept of a body for the watcher: Lambda's events have at
// most 6 MB, and a streamed answer has no end that is known.
const maxCopy = 6 << 20

// Watcher is told of invocations.
type Watcher interface {
	// Event is called before the runtime has the event.
	Event(requestID string, event []byte)
	// Answer is called before the environment has the whole answer; it is nil
	// where the function failed or the answer has more than 6 MB.
	Answer(requestID string, body []byte)
}

// Wanted says where a proxy has to listen, "" if there is no need for one. Only
// the environment is asked, since the wrapper knows nothing else either, and
// since the proxy must listen before the runtime starts.
func Wanted(getenv func(string) string) (address string, err error) {
	switch strings.ToLower(getenv("DD_SERVERLESS_APPSEC_ENABLED")) {
	case "true", "1":
	default:
		return "", nil
	}
	if address := getenv("AWS_LWA_LAMBDA_RUNTIME_API_PROXY"); address != "" {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return "", fmt.Errorf("AWS_LWA_LAMBDA_RUNTIME_API_PROXY: %q is no loopback address with a port", address)
		}
		return address, nil
	}
	if getenv("AWS_LAMBDA_EXEC_WRAPPER") == Wrapper {
		return Address, nil
	}
	return "", nil
}

// Server listens until it is closed.
type Server struct {
	listener  net.Listener
	server    http.Server
	transport http.Transport
	watcher   Watcher
}

// Listen binds the address and passes requests on to the Runtime API at
// upstream, the value of AWS_LAMBDA_RUNTIME_API.
func Listen(address, upstream string, watcher Watcher, log *logging.Logger) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("runtime API proxy: %w", err)
	}
	s := &Server{listener: listener, watcher: watcher}
	// No time-outs: next answers when there is an event.
	s.transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	s.transport.DisableCompression = true
	s.server.ReadHeaderTimeout = 5 * time.Second
	s.server.Handler = &httputil.ReverseProxy{
		Transport: &s.transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", upstream, upstream
			r.Out.URL.RawQuery = r.In.URL.RawQuery // what cannot be parsed included
			s.watchAnswer(r.Out)
		},
		ModifyResponse: s.watchEvent,
		FlushInterval:  -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // the runtime still waits
				log.Warnf("runtime API proxy: %s: %v", r.URL.Path, err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ErrorLog: stdlog.New(io.Discard, "", 0), // of broken connections, which the runtime sees
	}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

// Addr is the address that is bound.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close closes all connections: by now the runtime has ended, or waits for an
// event that will not come.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	err := s.server.Close()
	s.transport.CloseIdleConnections()
	return err
}

// invocation splits /VERSION/runtime/invocation/ID/LAST.
func invocation(path string) (id, last string) {
	part := strings.Split(path, "/")
	if len(part) != 6 || part[2] != "runtime" || part[3] != "invocation" {
		return "", ""
	}
	return part[4], part[5]
}

// watchEvent takes a copy of what next answers.
func (s *Server) watchEvent(r *http.Response) error {
	if r.Request.Method != http.MethodGet || !strings.HasSuffix(r.Request.URL.Path, "/runtime/invocation/next") || r.StatusCode != http.StatusOK {
		return nil
	}
	event, err := io.ReadAll(io.LimitReader(r.Body, maxCopy+1))
	if err != nil {
		return fmt.Errorf("reading the event: %w", err)
	}
	if len(event) <= maxCopy {
		s.watcher.Event(r.Header.Get("Lambda-Runtime-Aws-Request-Id"), event)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(event), r.Body), r.Body}
	return nil
}

// watchAnswer takes a copy of what the runtime answers while it passes by.
func (s *Server) watchAnswer(r *http.Request) {
	if r.Method != http.MethodPost {
		return
	}
	switch id, last := invocation(r.URL.Path); last {
	case "error":
		s.watcher.Answer(id, nil)
	case "response":
		if r.Body == nil || r.Body == http.NoBody {
			s.watcher.Answer(id, []byte{})
			return
		}
		r.Body = &copying{ReadCloser: r.Body, left: r.ContentLength, done: func(body []byte) { s.watcher.Answer(id, body) }}
	}
}

// copying is a body that keeps what was read of it.
type copying struct {
	io.ReadCloser
	kept  []byte
	long  bool
	left  int64 // bytes to come; negative where that is not known
	ended bool
	done  func([]byte)
}

// Read tells of the end with the last bytes where their number is known: once
// they are on their way, the answer is complete.
func (c *copying) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if len(c.kept)+n > maxCopy {
		c.kept, c.long = nil, true
	}
	if !c.long {
		c.kept = append(c.kept, p[:n]...)
	}
	if c.left >= 0 {
		c.left -= int64(n)
	}
	if (err == io.EOF || c.left == 0) && !c.ended {
		c.ended = true
		c.done(c.kept)
	}
	return n, err
}

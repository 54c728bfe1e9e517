package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
)

const (
	contentJSON = "application/json"
	contentText = "text/plain; charset=utf-8"

	// maxPayload is Lambda's limit of an event and of a response: 6 MiB and 100
	// bytes (RIE: interop.MaxPayloadSize).
	maxPayload = 6<<20 + 100

	// holdFrom is the size of an answer's body from which its connection holds
	// it back until it is whole: below, header and body fit into the 4 KiB that
	// net/http buffers, and leave in one write anyhow.
	holdFrom = 3 << 10
)

// connKey finds the connection in a request's context.
type connKey struct{}

func newServer(e *Env) *http.Server {
	return &http.Server{
		Handler:                      http.HandlerFunc(e.serveHTTP),
		ErrorLog:                     log.New(io.Discard, "", 0), // the subject's mistakes are not initprof's
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return e.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				e.work.Add(1)
				select {
				case <-e.closing: // accepted while Close closed the others
					_ = c.Close()
				default:
				}
			case http.StateIdle:
				if c, ok := c.(*stampingConn); ok && c.release() != nil {
					_ = c.Close()
				}
			case http.StateClosed, http.StateHijacked:
				e.work.Done()
			}
		},
	}
}

// reply is one answer. A nil *reply is none: the client is gone.
type reply struct {
	status int
	header [][2]string
	kind   string // Content-Type; default JSON
	body   []byte
	since  int64 // what its latency counts from, when not from the request
}

// jsonReply encodes as RIE does, with a line feed at the end.
func jsonReply(status int, v any) *reply {
	body, err := json.Marshal(v)
	if err != nil {
		panic("sandbox: encode an answer: " + err.Error()) // structs of strings and integers only
	}
	return &reply{status: status, body: append(body, '\n')}
}

func refuse(status int, errorType, format string, args ...any) *reply {
	return jsonReply(status, errorResponse{ErrorType: errorType, ErrorMessage: fmt.Sprintf(format, args...)})
}

func forbid(errorType, format string, args ...any) *reply {
	return refuse(http.StatusForbidden, errorType, format, args...)
}

func accepted() *reply { return jsonReply(http.StatusAccepted, statusResponse{Status: "OK"}) }

func notFound() *reply {
	return &reply{status: http.StatusNotFound, kind: contentText, body: []byte("404 page not found\n")}
}

func tooLarge() *reply {
	return refuse(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Exceeded maximum allowed payload size (%d bytes).", maxPayload)
}

// call is one request on its way through the environment.
type call struct {
	*http.Request
	received int64
	entry    *Request // in the log; its Extension is filled in by who learns it
	id       string   // of the invoke, in the path
}

// route is what the path and method of a request lead to.
type route struct {
	method string
	call   Call
	handle func(*Env, *call) *reply
}

var routes = map[string]route{
	"/2020-01-01/extension/register":          {http.MethodPost, CallRegister, (*Env).register},
	"/2020-01-01/extension/event/next":        {http.MethodGet, CallNext, (*Env).extensionNext},
	"/2020-01-01/extension/init/error":        {http.MethodPost, CallInitError, (*Env).extensionInitError},
	"/2020-01-01/extension/exit/error":        {http.MethodPost, CallExitError, (*Env).extensionExitError},
	"/2022-07-01/telemetry":                   {http.MethodPut, CallTelemetry, (*Env).telemetry},
	"/2022-07-01/telemetry/":                  {http.MethodPut, CallTelemetry, (*Env).telemetry}, // as AWS's documents write it
	"/2020-08-15/logs":                        {http.MethodPut, CallLogs, (*Env).logs},
	"/2018-06-01/ping":                        {http.MethodGet, "", (*Env).ping},
	"/2018-06-01/runtime/invocation/next":     {http.MethodGet, CallRuntimeNext, (*Env).runtimeNext},
	"/2018-06-01/runtime/init/error":          {http.MethodPost, CallRuntimeInitError, (*Env).runtimeInitError},
	"/2018-06-01/runtime/invocation/response": {http.MethodPost, CallRuntimeResponse, (*Env).runtimeResponse},
	"/2018-06-01/runtime/invocation/error":    {http.MethodPost, CallRuntimeError, (*Env).runtimeError},
}

// find looks a path up. An invoke's ID is cut out of it.
func find(path string) (r route, id string, ok bool) {
	const invocation = "/2018-06-01/runtime/invocation/"
	if rest, is := strings.CutPrefix(path, invocation); is && rest != "next" {
		var verb string
		id, verb, is = strings.Cut(rest, "/")
		if !is || id == "" || verb != "response" && verb != "error" {
			return route{}, "", false
		}
		path = invocation + verb
	}
	r, ok = routes[path]
	return r, id, ok
}

// serveHTTP answers one request of an extension or a runtime.
func (e *Env) serveHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(*stampingConn)
	c := &call{Request: r, received: monotonic()}
	if conn != nil {
		c.received = conn.readAt.Load()
	}
	// Lambda's paths contain nothing that would need an escape; what is escaped
	// is another path.
	path := r.URL.EscapedPath()
	c.entry = e.log.add(r.Method, path, c.received)
	route, id, ok := find(path)
	c.id = id
	var answer *reply
	switch {
	case !ok:
		answer = notFound()
	case r.Method != route.method:
		answer = &reply{status: http.StatusMethodNotAllowed, header: [][2]string{{"Allow", route.method}}}
	default:
		answer = route.handle(e, c)
	}
	if answer != nil {
		if latency := e.config.Latency[route.call]; latency > 0 {
			if sleepUntil(r.Context(), max(c.received, answer.since)+int64(latency)) != nil {
				answer = nil
			}
		}
	}
	if answer == nil {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	e.write(w, conn, c.entry, answer)
}

// write sends an answer in one write.
func (e *Env) write(w http.ResponseWriter, conn *stampingConn, entry *Request, answer *reply) {
	header := w.Header()
	for _, h := range answer.header {
		header.Set(h[0], h[1])
	}
	if len(answer.body) > 0 && header.Get("Content-Type") == "" {
		header.Set("Content-Type", contentJSON)
		if answer.kind != "" {
			header.Set("Content-Type", answer.kind)
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(answer.body)))
	stamp := func(at int64) { e.log.answered(entry, at, answer.status) }
	if conn != nil {
		conn.answer(len(answer.body) >= holdFrom, len(answer.body)+1<<10, stamp)
	} else {
		stamp(monotonic())
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // a client that is gone gets nothing
}

// readBody reads a request's body, or returns the refusal.
func (c *call) readBody() ([]byte, *reply) {
	body, err := io.ReadAll(io.LimitReader(c.Body, maxPayload+1))
	switch {
	case len(body) > maxPayload:
		return nil, tooLarge()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, refuse(http.StatusBadRequest, "TruncatedHTTPRequest", "HTTP request detected as truncated")
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "InvalidRequestFormat", "%s", err)
	}
	return body, nil
}

func (e *Env) ping(*call) *reply {
	return &reply{status: http.StatusOK, kind: contentText, body: []byte("pong")}
}

package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lambda is a server that answers each request with the handler's answer and
// keeps what it was asked.
func lambda(t *testing.T, handler http.HandlerFunc) (*Client, *[]string) {
	t.Helper()
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Lambda-Extension-Name")+
			r.Header.Get("Lambda-Extension-Identifier")+" "+string(body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	c := New(server.Listener.Addr().String(), "initprof-extension")
	t.Cleanup(c.Close)
	return c, &asked
}

func TestLifecycle(t *testing.T) {
	c, asked := lambda(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/2020-01-01/extension/register":
			if r.Header.Get("Lambda-Extension-Accept-Feature") != "accountId" {
				t.Error("the accountId feature is not asked for")
			}
			w.Header().Set("Lambda-Extension-Identifier", "id-1")
			_, _ = io.WriteString(w, `{"functionName":"f","functionVersion":"$LATEST","handler":"h","accountId":"123456789012"}`)
		case "/2020-01-01/extension/event/next":
			_, _ = io.WriteString(w, `{"eventType":"INVOKE","deadlineMs":1700000000123,"requestId":"r","invokedFunctionArn":"arn","tracing":{"type":"X-Amzn-Trace-Id","value":"v"}}`)
		case "/2022-07-01/telemetry":
			_, _ = io.WriteString(w, "OK")
		default:
			w.WriteHeader(http.StatusAccepted)
			w.(http.Flusher).Flush() // chunked
			_, _ = io.WriteString(w, `{"status":"OK"}`)
		}
	})
	ctx := t.Context()
	if _, err := c.Next(ctx, nil); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("next before register: %v", err)
	}
	reg, err := c.Register(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fn, err := reg.Function()
	if diff := cmp.Diff(Function{"f", "$LATEST", "h", "123456789012"}, fn); diff != "" || err != nil {
		t.Errorf("function: %v %s", err, diff)
	}
	if err := c.Subscribe(ctx, Subscription{Port: 8999, Types: []string{"platform", "function"}}); err != nil {
		t.Error(err)
	}
	event, err := c.Next(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Event{
		Type: Invoke, Deadline: time.UnixMilli(1700000000123), RequestID: "r", InvokedFunctionARN: "arn",
		TraceType: "X-Amzn-Trace-Id", TraceValue: "v",
	}, event); diff != "" {
		t.Error(diff)
	}
	if err := c.InitError(ctx, "Extension.Test", errors.New(`a "cause"`)); err != nil {
		t.Error(err)
	}
	if err := c.ExitError(ctx, "Extension.Test", errors.New("gone")); err != nil {
		t.Error(err)
	}
	want := []string{
		`POST /2020-01-01/extension/register initprof-extension {"events":["INVOKE","SHUTDOWN"]}`,
		`PUT /2022-07-01/telemetry id-1 {"schemaVersion":"2022-12-13","types":["platform","function"],"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8999/"}}`,
		`GET /2020-01-01/extension/event/next id-1 `,
		`POST /2020-01-01/extension/init/error id-1 {"errorMessage":"a \"cause\"","errorType":"Extension.Test","stackTrace":[]}`,
		`POST /2020-01-01/extension/exit/error id-1 {"errorMessage":"gone","errorType":"Extension.Test","stackTrace":[]}`,
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Error(diff)
	}
	for _, body := range want[1:2] {
		if !json.Valid([]byte(body[strings.Index(body, "{"):])) {
			t.Error("the subscription is not JSON")
		}
	}
}

func TestErrorAnswers(t *testing.T) {
	c, _ := lambda(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errorType":"Extension.AlreadyRegistered","errorMessage":"a second register"}`)
	})
	_, err := c.Register(t.Context())
	var apiErr *Error
	if !errors.As(err, &apiErr) || apiErr.Status != 403 || apiErr.Type != "Extension.AlreadyRegistered" {
		t.Fatalf("%v", err)
	}
	if want := "POST /2020-01-01/extension/register: status 403 Extension.AlreadyRegistered: a second register"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	c, _ := lambda(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "register") {
			w.Header().Set("Lambda-Extension-Identifier", "id")
			return
		}
		<-release
	})
	defer close(release)
	if _, err := c.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Next(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A server may close an idle connection at any time.
func TestClosedIdleConnectionIsReplaced(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nlambda-extension-identifier: x\r\nContent-Length: 2\r\n\r\n{}")
			}
			_ = conn.Close() // without saying so
		}
	}()
	c := New(listener.Addr().String(), "n")
	defer c.Close()
	for range 3 {
		if _, err := c.Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestNobodyListens(t *testing.T) {
	if _, err := New("127.0.0.1:1", "n").Register(t.Context()); err == nil {
		t.Error("no error")
	}
}

func FuzzReadResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nTrailer: a\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nuntil the end"))
	f.Add([]byte("HTTP/1.1 204 No Content\nA: b\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readResponse(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		want, wantErr := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if wantErr != nil {
			return // net/http is stricter
		}
		if got.status != want.StatusCode {
			t.Errorf("status %d, net/http reads %d", got.status, want.StatusCode)
		}
	})
}

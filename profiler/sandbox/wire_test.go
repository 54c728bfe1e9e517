package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// countingListener keeps what was written by each write to its connections.
type countingListener struct {
	net.Listener
	mu      sync.Mutex
	writes  [][]byte
	noDelay int
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{c, l}, nil
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.l.mu.Lock()
	c.l.writes = append(c.l.writes, bytes.Clone(b))
	c.l.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *countingConn) SetNoDelay(on bool) error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if on {
		c.l.noDelay++
	}
	return c.Conn.(*net.TCPConn).SetNoDelay(on)
}

// take returns the writes since the last take.
func (l *countingListener) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.writes
	l.writes = nil
	return w
}

// serveCounting is serve with a listener that counts writes.
func serveCounting(t *testing.T, config Config) (*served, *countingListener) {
	t.Helper()
	env, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &countingListener{Listener: tcp}
	go func() { _ = env.Serve(l) }()
	t.Cleanup(func() { _ = env.Close() })
	return &served{Env: env, t: t, addr: tcp.Addr().String()}, l
}

// TestOneWrite: header and body of an answer leave in one write with
// TCP_NODELAY, or the client waits 40 ms for its own delayed ACK.
func TestOneWrite(t *testing.T) {
	for _, size := range []int{0, 2, 2000, 2048, 2049, 3000, 3071, 3072, 4000, 4096, 5000, 1 << 16, maxPayload} {
		for _, closing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d,close=%v", size, closing), func(t *testing.T) {
				s, l := serveCounting(t, Config{ExternalRuntime: true})
				s.ReleaseRuntime()
				payload := strings.Repeat("x", size)
				var header []string
				if closing {
					header = []string{"Connection", "close"}
				}
				c := dial(t, s.addr)
				if _, err := c.conn.Write(rawRequest("GET", pathRtNext, "", header...)); err != nil {
					t.Fatal(err)
				}
				within(t, "InitDone", s.InitDone())
				s.invokeLater(payload)
				response, err := http.ReadResponse(c.in, nil)
				if err != nil {
					t.Fatal(err)
				}
				var body bytes.Buffer
				if _, err := body.ReadFrom(response.Body); err != nil || body.String() != payload {
					t.Errorf("body of %d bytes: %v", body.Len(), err)
				}
				writes := l.take()
				if len(writes) != 1 {
					t.Errorf("%d writes", len(writes))
				}
				r := s.Requests()[0]
				if r.Status != 200 || !ascending(r.Received, s.Times().InitEnd, r.Answered) {
					t.Errorf("log %+v", r)
				}
				if l.noDelay != 1 {
					t.Errorf("TCP_NODELAY set %d times", l.noDelay)
				}
			})
		}
	}
}

func TestOneWriteEverywhere(t *testing.T) {
	s, l := serveCounting(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	c := dial(t, s.addr)
	response, _ := c.exchange(t, rawRequest("POST", pathRegister, bothEvents, headerName, "ext"))
	id := response.Header.Get(headerIdentifier)
	for _, request := range [][]byte{
		rawRequest("PUT", pathTelem, subscribeBody(1), headerIdentifier, id),
		rawRequest("PUT", pathTelem, "{}", headerIdentifier, id),
		rawRequest("POST", pathRegister, "{", headerName, "ext"),
		rawRequest("GET", "/nowhere", ""),
		rawRequest("GET", pathRegister, ""),
		rawRequest("POST", pathInitErr, "{}", headerIdentifier, id, headerErrorType, "X"),
	} {
		c.exchange(t, request)
	}
	if got := len(l.take()); got != 7 {
		t.Errorf("%d writes for 7 answers", got)
	}
}

// TestConnections covers how clients may use their connections.
func TestConnections(t *testing.T) {
	statuses := func(t *testing.T, c *client, n int) []int {
		t.Helper()
		_ = c.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var got []int
		for range n {
			response, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			_, _ = c.in.Discard(int(response.ContentLength))
			got = append(got, response.StatusCode)
		}
		return got
	}
	register := string(rawRequest("POST", pathRegister, bothEvents, headerName, "ext"))
	tests := []struct {
		name, send string
		want       []int
	}{
		{"pipelined", register + register + string(rawRequest("GET", "/2018-06-01/ping", "")), []int{200, 403, 200}},
		{"chunked", "POST " + pathRegister + " HTTP/1.1\r\nHost: x\r\nLambda-Extension-Name: ext\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"a\r\n{\"events\":\r\n2\r\n[]\r\n1\r\n}\r\n0\r\n\r\n", []int{200}},
		{"HTTP/1.0", "POST " + pathRegister + " HTTP/1.0\r\nLambda-Extension-Name: ext\r\nContent-Length: 2\r\n\r\n{}", []int{200}},
		{"close", string(rawRequest("POST", pathRegister, "{}", headerName, "ext", "Connection", "close")), []int{200}},
		{"lower case", strings.Replace(register, headerName, strings.ToLower(headerName), 1), []int{200}},
		{"absolute", strings.Replace(register, pathRegister, "http://127.0.0.1:9001"+pathRegister, 1), []int{200}},
		{"query", strings.Replace(register, pathRegister, pathRegister+"?x=y", 1), []int{200}},
		{"expect", "POST " + pathRegister + " HTTP/1.1\r\nHost: x\r\nLambda-Extension-Name: ext\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", []int{100, 200}},
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", []int{400}},
		{"no host", "GET /2018-06-01/ping HTTP/1.1\r\n\r\n", []int{400}},
		{"bad chunk", "POST " + pathRegister + " HTTP/1.1\r\nHost: x\r\nLambda-Extension-Name: ext\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", []int{400}},
		{"huge header", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", []int{431}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
			c := dial(t, s.addr)
			go func() { _, _ = c.conn.Write([]byte(test.send)) }()
			if diff := cmp.Diff(test.want, statuses(t, c, len(test.want))); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
		})
	}

	// A pipelined request behind a next waits until that has its event.
	t.Run("behind next", func(t *testing.T) {
		s := serve(t, Config{Extensions: []string{"ext"}})
		id := s.register("ext", bothEvents)
		c := dial(t, s.addr)
		next := rawRequest("GET", pathNext, "", headerIdentifier, id)
		if _, err := c.conn.Write(append(next, rawRequest("GET", "/2018-06-01/ping", "")...)); err != nil {
			t.Fatal(err)
		}
		within(t, "InitDone", s.InitDone())
		go s.Invoke(context.Background(), []byte("{}"))
		if diff := cmp.Diff([]int{200, 200}, statuses(t, c, 2)); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})

	// A client that goes away while it waits leaves nothing behind.
	t.Run("gone", func(t *testing.T) {
		s := serve(t, Config{Extensions: []string{"ext"}})
		id := s.register("ext", bothEvents)
		c := dial(t, s.addr)
		if _, err := c.conn.Write(rawRequest("GET", pathNext, "", headerIdentifier, id)); err != nil {
			t.Fatal(err)
		}
		within(t, "InitDone", s.InitDone())
		_ = c.conn.Close()
		if r := s.Requests(); r[1].Status != 0 || r[1].Answered != 0 {
			t.Errorf("log %+v", r[1])
		}
	})
}

func TestRequestLogIsBounded(t *testing.T) {
	var l requestLog
	for i := range maxRequests + 10 {
		l.answered(l.add("GET", "/", int64(i)), int64(i), 200)
	}
	e := &Env{}
	e.log.entries, e.log.lost = l.entries, l.lost
	if len(e.Requests()) != maxRequests || e.LostRequests() != 10 {
		t.Errorf("%d kept, %d lost", len(e.Requests()), e.LostRequests())
	}
}

package sandbox

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

// client speaks to an environment over one connection that stays open, with as
// little of its own between write and read as Go allows.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// exchange writes a request and reads its whole answer.
func (c *client) exchange(t testing.TB, request []byte) (*http.Response, time.Duration) {
	t.Helper()
	start := time.Now()
	if _, err := c.conn.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Peek(1); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.in.Discard(int(response.ContentLength))
	if err != nil {
		t.Fatal(err)
	}
	return response, took
}

func rawRequest(method, path, body string, header ...string) []byte {
	r := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nContent-Length: %d\r\n", method, path, len(body))
	for i := 0; i < len(header); i += 2 {
		r += header[i] + ": " + header[i+1] + "\r\n"
	}
	return []byte(r + "\r\n" + body)
}

// reportMedian reports the median of the round trips, which is the figure that
// is promised: at most 100 µs.
//
// answer-µs is the environment's own part of it: from the request's last read to
// the write of its answer.
func reportMedian(b *testing.B, took, own []time.Duration) {
	slices.Sort(took)
	slices.Sort(own)
	b.ReportMetric(float64(own[len(own)/2].Nanoseconds())/1000, "answer-µs")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "median-µs")
	b.ReportMetric(float64(took[len(took)*9/10].Nanoseconds())/1000, "p90-µs")
}

// ownTimes are the environment's parts of the answers to one path.
func (s *served) ownTimes(path string) []time.Duration {
	var own []time.Duration
	for _, r := range s.Requests() {
		if r.Path == path {
			own = append(own, time.Duration(r.Answered-r.Received))
		}
	}
	return own
}

// BenchmarkRegister is the round trip of a register over loopback: written by
// the client until the first byte of the answer is read. Every round trip has
// an environment of its own, as in a cold start.
func BenchmarkRegister(b *testing.B) {
	request := rawRequest("POST", pathRegister, bothEvents, headerName, "ext")
	var took, own []time.Duration
	for b.Loop() {
		b.StopTimer()
		s := serve(b, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
		c := dial(b, s.addr)
		// The connection is accepted by the time the first answer has come.
		c.exchange(b, rawRequest("GET", "/2018-06-01/ping", ""))
		b.StartTimer()
		response, d := c.exchange(b, request)
		b.StopTimer()
		if response.StatusCode != http.StatusOK {
			b.Fatal(response.Status)
		}
		took = append(took, d)
		own = append(own, s.ownTimes(pathRegister)...)
		_ = c.conn.Close()
		_ = s.Close()
		b.StartTimer()
	}
	reportMedian(b, took, own)
}

// BenchmarkRegisterFirst is the same on a fresh connection, the accept included.
func BenchmarkRegisterFirst(b *testing.B) {
	request := rawRequest("POST", pathRegister, bothEvents, headerName, "ext")
	var took, own []time.Duration
	for b.Loop() {
		b.StopTimer()
		s := serve(b, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
		c := dial(b, s.addr)
		b.StartTimer()
		_, d := c.exchange(b, request)
		b.StopTimer()
		took = append(took, d)
		own = append(own, s.ownTimes(pathRegister)...)
		_ = c.conn.Close()
		_ = s.Close()
		b.StartTimer()
	}
	reportMedian(b, took, own)
}

// BenchmarkTelemetry is the round trip of a subscription, its second and later
// ones after the first.
func BenchmarkTelemetry(b *testing.B) {
	s := serve(b, Config{Extensions: []string{"ext", "late"}, ExternalRuntime: true})
	c := dial(b, s.addr)
	response, _ := c.exchange(b, rawRequest("POST", pathRegister, bothEvents, headerName, "ext"))
	request := rawRequest("PUT", pathTelem, subscribeBody(1), headerIdentifier, response.Header.Get(headerIdentifier))
	var took []time.Duration
	for b.Loop() {
		_, d := c.exchange(b, request)
		took = append(took, d)
	}
	reportMedian(b, took, s.ownTimes(pathTelem))
}

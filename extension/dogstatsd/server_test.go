package dogstatsd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

func listen(t *testing.T, out *metrics.Aggregator, log io.Writer) (*Server, net.Conn) {
	t.Helper()
	s, err := Listen("127.0.0.1:0", out, logging.New(log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return s, conn
}

func sum(b *metrics.Batch, name string) (v float64) {
	for _, p := range b.Points {
		if p.Name == name {
			v += p.Value
		}
	}
	return v
}

func TestServer(t *testing.T) {
	var out metrics.Aggregator
	var log bytes.Buffer
	s, conn := listen(t, &out, &log)
	for range 10 {
		fmt.Fprint(conn, "a:1|c\nb:2|g\r\n\nbroken\n")
	}
	fmt.Fprint(conn, "_sc|check|0\n_e{1,1}:a|b\n")
	fmt.Fprint(conn, "") // a datagram without content
	s.Drain(time.Minute)
	b := out.Flush()
	if got := sum(b, "a"); got != 10 {
		t.Errorf("%v of 10 counts: %+v", got, b.Points)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"told once", "10 malformed", "events and service checks"} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%q stands %d times in %s", want, n, log.String())
		}
	}
	if _, err := Listen("127.0.0.1:99999", &out, nil); err == nil {
		t.Error("a bad port is accepted")
	}
}

// TestDrainIsExact: what was sent before Drain is in the flush after it, each
// time, without a pause.
func TestDrainIsExact(t *testing.T) {
	var out metrics.Aggregator
	s, conn := listen(t, &out, io.Discard)
	defer func() { _ = s.Close() }()
	for i := range 2000 {
		fmt.Fprint(conn, "a:1|c")
		s.Drain(time.Minute)
		if got := sum(out.Flush(), "a"); got != 1 {
			t.Fatalf("round %d: %v of 1", i, got)
		}
	}
}

// TestLargestDatagram is as large as loopback carries.
func TestLargestDatagram(t *testing.T) {
	var out metrics.Aggregator
	s, conn := listen(t, &out, io.Discard)
	defer func() { _ = s.Close() }()
	line := "some.metric:1|c|#tag:value\n"
	n := maxDatagram / len(line)
	if _, err := io.WriteString(conn, strings.Repeat(line, n)); err != nil {
		t.Fatal(err)
	}
	s.Drain(time.Minute)
	if got := sum(out.Flush(), "some.metric"); got != float64(n) {
		t.Errorf("%v of %d", got, n)
	}
}

// TestDropsOfTheKernel: what found no room in the socket is counted, and told
// when the server closes.
func TestDropsOfTheKernel(t *testing.T) {
	var out metrics.Aggregator
	var log bytes.Buffer
	s, conn := listen(t, &out, &log)
	const sent = 50000
	s.mu.Lock() // nobody reads
	for range sent {
		fmt.Fprint(conn, "a:1|c")
	}
	s.mu.Unlock()
	s.Drain(time.Minute)
	dropped := s.Dropped()
	if got := sum(out.Flush(), "a"); dropped == 0 || uint64(got)+dropped != sent {
		t.Errorf("%v arrived and %d were dropped of %d", got, dropped, sent)
	}
	_ = s.Close()
	if !strings.Contains(log.String(), fmt.Sprint(dropped)) {
		t.Error(log.String())
	}
}

package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDeliveryRetries: nobody listens at first, then the listener refuses.
func TestDeliveryRetries(t *testing.T) {
	c := collect(t)
	c.refuse = 2
	var mu sync.Mutex
	down, dials := true, 0
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dials++
		if down {
			return nil, errors.New("connection refused")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	id := s.register("ext", bothEvents)
	s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, id)
	eventually(t, "five dials", func() bool { mu.Lock(); defer mu.Unlock(); return dials >= 5 })
	mu.Lock()
	down = false
	mu.Unlock()
	c.record(t, "platform.initStart")
	c.record(t, "platform.telemetrySubscription")
	if got := len(c.types()); got != 2 {
		t.Errorf("%d events, want each once", got)
	}
}

// TestBatches: a batch goes out at maxItems, at maxBytes, or after timeoutMs.
func TestBatches(t *testing.T) {
	subscribe := func(t *testing.T, timeout int) (*served, *collector) {
		c := collect(t)
		s := serve(t, Config{Extensions: []string{"ext"}})
		id := s.register("ext", bothEvents)
		a := s.do("PUT", pathTelem, fmt.Sprintf(`{"schemaVersion":"2022-12-13","types":["function"],"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":%d},
			"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d/logs?x=1"}}`, timeout, c.port), headerIdentifier, id)
		if a.status != 200 {
			t.Fatal(a.body)
		}
		return s, c
	}
	t.Run("items", func(t *testing.T) {
		s, c := subscribe(t, 30000)
		for i := range 1500 {
			s.LogLine(Runtime, fmt.Sprint("line ", i))
		}
		eventually(t, "a batch", func() bool { return len(c.types()) > 0 })
		if c.batches[0] != 1000 || c.paths[0] != "/logs?x=1" {
			t.Errorf("batches %v to %v", c.batches, c.paths)
		}
		s.relay.flush()
		eventually(t, "the rest", func() bool { return len(c.types()) == 1500 })
		for i, e := range c.events {
			if want := fmt.Sprintf(`"line %d"`, i); string(e.Record) != want || e.Type != "function" {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
	})
	t.Run("bytes", func(t *testing.T) {
		s, c := subscribe(t, 30000)
		for range 20 {
			s.LogLine(Runtime, strings.Repeat("x", 20000))
		}
		eventually(t, "a batch", func() bool { return len(c.types()) > 0 })
		if c.batches[0] != 14 {
			t.Errorf("batches %v: 14 lines are the first to reach 256 KiB", c.batches)
		}
	})
	t.Run("time", func(t *testing.T) {
		s, c := subscribe(t, 40)
		start := time.Now()
		s.LogLine(Runtime, "one")
		s.LogLine("ext", "not subscribed to")
		eventually(t, "a batch", func() bool { return len(c.types()) > 0 })
		if took := time.Since(start); took < 40*time.Millisecond {
			t.Errorf("sent after %s, want 40 ms or more", took)
		}
		if c.batches[0] != 1 {
			t.Errorf("batches %v", c.batches)
		}
	})
	t.Run("long lines", func(t *testing.T) {
		s, c := subscribe(t, 25)
		line := strings.Repeat("é", 150000) // 300,000 bytes
		s.LogLine(Runtime, line+"\r\n")
		eventually(t, "two pieces", func() bool { return len(c.types()) == 2 })
		var first, second string
		_ = json.Unmarshal(c.events[0].Record, &first)
		_ = json.Unmarshal(c.events[1].Record, &second)
		if first+second != line || len(first) != maxLogLine {
			t.Errorf("pieces of %d and %d bytes", len(first), len(second))
		}
	})
}

// TestLogsDropped: a listener that does not answer loses what exceeds the
// buffers, and is told how much once it answers again.
func TestLogsDropped(t *testing.T) {
	c := collect(t)
	c.block = make(chan struct{})
	s := serve(t, Config{Extensions: []string{"ext"}})
	id := s.register("ext", bothEvents)
	body := strings.Replace(subscribeBody(c.port), `"timeoutMs":25`, `"timeoutMs":30000`, 1)
	s.do("PUT", pathTelem, body, headerIdentifier, id)
	for i := range 5000 {
		s.LogLine(Runtime, fmt.Sprint(i))
	}
	close(c.block)
	eventually(t, "buffers delivered", func() bool { s.relay.flush(); return len(c.types()) >= 2000 })
	var got, bytes, lines int
	eventually(t, "everything accounted for", func() bool {
		s.relay.flush()
		got, bytes, lines = 0, 0, 0
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range c.events {
			switch e.Type {
			case "function":
				lines++
			case "platform.logsDropped":
				var d struct {
					DroppedRecords, DroppedBytes int
					Reason                       string
				}
				if err := json.Unmarshal(e.Record, &d); err != nil || d.Reason == "" {
					t.Errorf("record %s", e.Record)
				}
				got += d.DroppedRecords
				bytes += d.DroppedBytes
			}
		}
		return got+lines == 5000
	})
	if lines > 3000 || got < 2000 {
		t.Errorf("%d lines delivered, %d dropped: the buffer holds at most three batches", lines, got)
	}
	const event = len(`{"time":"2006-01-02T15:04:05.000Z","type":"function","record":"1234"}`)
	if bytes != got*event {
		t.Errorf("%d bytes in %d dropped events of %d bytes each", bytes, got, event)
	}
}

// TestHistoryIsBounded: what happens before the first subscription is kept up
// to a limit, and the loss is told.
func TestHistoryIsBounded(t *testing.T) {
	c := collect(t)
	s := serve(t, Config{Extensions: []string{"ext"}})
	id := s.register("ext", bothEvents)
	for range 100 {
		s.LogLine("ext", strings.Repeat("x", 20<<10))
	}
	s.do("PUT", pathTelem, strings.Replace(subscribeBody(c.port), `"maxBytes":262144`, `"maxBytes":1048576`, 1), headerIdentifier, id)
	dropped := c.record(t, "platform.logsDropped")
	lines := 0
	for _, kind := range c.types() {
		if kind == "extension" {
			lines++
		}
	}
	// The subscription's own event may have been dropped by then, or not.
	if total := lines + int(dropped["droppedRecords"].(float64)); total != 100 {
		t.Errorf("%d delivered, record %v", lines, dropped)
	}
}

// TestResubscribe: a second subscription of the same extension replaces its
// first; nothing is told twice.
func TestResubscribe(t *testing.T) {
	first, second := collect(t), collect(t)
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	id := s.register("ext", bothEvents)
	for _, c := range []*collector{first, second} {
		if a := s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, id); a.status != 200 {
			t.Fatal(a.body)
		}
		eventually(t, "telemetrySubscription", func() bool {
			return len(c.types()) > 0 && c.types()[len(c.types())-1] == "platform.telemetrySubscription"
		})
	}
	if got := second.record(t, "platform.telemetrySubscription")["state"]; got != "Already subscribed" {
		t.Errorf("state %q", got)
	}
	if diff := cmp.Diff([]string{"platform.telemetrySubscription"}, second.types()); diff != "" {
		t.Errorf("second (-want +got):\n%s", diff)
	}
}

// TestTCP: newline-delimited JSON, over one connection.
func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	lines := make(chan string, 100)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		for scanner := bufio.NewScanner(conn); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
	}()
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	id := s.register("ext", bothEvents)
	body := fmt.Sprintf(`{"schemaVersion":"2022-12-13","types":["platform","function"],"buffering":{"timeoutMs":25},"destination":{"protocol":"TCP","port":%d}}`, ln.Addr().(*net.TCPAddr).Port)
	if a := s.do("PUT", pathTelem, body, headerIdentifier, id); a.status != 200 {
		t.Fatal(a.body)
	}
	want := []string{"platform.initStart", "platform.telemetrySubscription", "function"}
	for i, kind := range want {
		var e delivered
		if err := json.Unmarshal([]byte(within(t, kind, lines)), &e); err != nil || e.Type != kind {
			t.Errorf("event %d: %+v, %v", i, e, err)
		}
		if i == 1 {
			s.LogLine(Runtime, "later") // its own batch, on the same connection
		}
	}
	_ = s.Close()
	if line, open := <-lines; open {
		t.Errorf("after Close: %s", line)
	}
}

// TestPending: a subscription that is not answered when its extension asks for
// next is pending; whether the answer comes later does not change that.
func TestPending(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"ext"}, Latency: Latency{CallTelemetry: 30 * time.Millisecond}})
	id := s.register("ext", bothEvents)
	subscribed := s.later("PUT", pathTelem, subscribeBody(1), headerIdentifier, id)
	eventually(t, "subscription received", func() bool { return len(s.Requests()) == 2 })
	s.next(id)
	within(t, "InitDone", s.InitDone())
	if got := s.SubscribeOutcome("ext"); got != SubscribePending {
		t.Errorf("outcome %q", got)
	}
	if a := within(t, "answer", subscribed); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if got := s.SubscribeOutcome("ext"); got != SubscribePending {
		t.Errorf("outcome after the answer %q", got)
	}
}

package listener

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/initprof/initprof/extension/logging"
)

// lines is a log that tests may read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// echo answers with the length of a body of at most 1 MB.
func echo(t *testing.T) (*HTTP, *lines) {
	t.Helper()
	h, log := &HTTP{}, &lines{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := h.Body(w, r, 1<<20)
		if err != nil {
			h.Refuse(w, r, err)
			return
		}
		_, _ = fmt.Fprint(w, len(body))
	})
	if err := h.Listen("127.0.0.1:0", handler, logging.New(log, logging.Warn)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_ = h.Close(ctx)
	})
	return h, log
}

func (h *HTTP) post(t *testing.T, body io.Reader) (int, string) {
	t.Helper()
	resp, err := http.Post("http://"+h.Addr().String()+"/x", "a/b", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

func TestBody(t *testing.T) {
	h, log := echo(t)
	for _, n := range []int{0, 1, 4095, 4096, 4097, 64 << 10, 1 << 20} {
		for name, body := range map[string]io.Reader{
			"length": strings.NewReader(strings.Repeat("x", n)), "chunked": io.MultiReader(strings.NewReader(strings.Repeat("x", n))),
		} {
			if code, got := h.post(t, body); code != 200 || got != fmt.Sprint(n) {
				t.Errorf("%d bytes, %s: %d %s", n, name, code, got)
			}
		}
	}
	for name, body := range map[string]io.Reader{
		"length": strings.NewReader(strings.Repeat("x", 1<<20+1)), "chunked": io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20+1))),
	} {
		if code, _ := h.post(t, body); code != http.StatusRequestEntityTooLarge {
			t.Errorf("too large, %s: %d", name, code)
		}
	}
	if n := h.reading.Load(); n != 0 {
		t.Errorf("%d bytes are still accounted for", n)
	}
	if n := strings.Count(log.String(), "too large"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
	h.reading.Store(maxReading)
	if code, _ := h.post(t, strings.NewReader("x")); code != http.StatusTooManyRequests {
		t.Error(code)
	}
}

// TestSlowBodies: clients that claim a megabyte and send a byte hold next to
// nothing, and do not keep others from being served, nor the server from closing.
func TestSlowBodies(t *testing.T) {
	h, _ := echo(t)
	for range 50 {
		conn, err := net.Dial("tcp", h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
	}
	for i := 0; h.reading.Load() < 50*4096; i++ {
		if i == 1000 {
			t.Fatalf("%d bytes are being read", h.reading.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if n := h.reading.Load(); n > 50*64<<10 {
		t.Errorf("%d bytes for 50 bytes that have come", n)
	}
	if code, got := h.post(t, strings.NewReader("abc")); code != 200 || got != "3" {
		t.Error(code, got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := h.Close(ctx); err == nil {
		t.Error("closing does not tell of requests under way")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("closing took %v", d)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	h, log := echo(t)
	for range maxConnections + 10 {
		conn, err := net.Dial("tcp", h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	for i := 0; !strings.Contains(log.String(), "connections"); i++ {
		if i == 1000 {
			t.Fatal("nothing is said of it")
		}
		time.Sleep(time.Millisecond)
	}
}

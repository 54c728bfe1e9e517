package intake

import (
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/initprof/initprof/extension/config"
)

func client(t *testing.T, cfg *config.Config) *Client {
	t.Helper()
	cfg.APIKey = "the-key"
	cfg.FlushTimeout = 2 * time.Second
	tlsConfig, err := TLSConfig(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(cfg, tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	c.backoff = time.Millisecond
	return c
}

func TestPostRetries(t *testing.T) {
	answers := []int{500, 502, 202}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := zstd.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		defer z.Close()
		body, _ := io.ReadAll(z)
		if string(body) != "body" || r.Header.Get("Content-Encoding") != "zstd" || r.Header.Get("DD-API-KEY") != "the-key" || r.Header.Get("Content-Type") != "a/b" {
			t.Errorf("%q %v", body, r.Header)
		}
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer server.Close()
	c := client(t, &config.Config{})
	if err := c.Post(t.Context(), Pack(server.URL, "a/b", []byte("body"))); err != nil || len(answers) != 0 {
		t.Error(err, answers)
	}
	for code, want := range map[int]error{403: ErrRejected, 302: ErrRejected, 429: &BusyError{}} {
		answers = []int{code} // asked once more, the server would panic
		err := c.Post(t.Context(), Pack(server.URL, "a/b", []byte("body")))
		var busy *BusyError
		if want == ErrRejected && !errors.Is(err, ErrRejected) || want != ErrRejected && (!errors.As(err, &busy) || busy.RetryAfter != 7*time.Second) {
			t.Errorf("%d: %v", code, err)
		}
	}
	answers = []int{500, 500, 500}
	if err := c.Post(t.Context(), Pack(server.URL, "a/b", []byte("body"))); err == nil || errors.Is(err, ErrRejected) {
		t.Error(err)
	}
	if err := c.Post(t.Context(), Request{Address: "http://bad host"}); !errors.Is(err, ErrRejected) || strings.Contains(err.Error(), "the-key") {
		t.Error(err)
	}
}

// TestProxy: https goes through the proxy, which sees no key.
func TestProxy(t *testing.T) {
	target := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer target.Close()
	connects := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects++
		if r.Method != http.MethodConnect || r.Header.Get("DD-API-KEY") != "" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		out, err := net.Dial("tcp", target.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		in, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	defer proxy.Close()
	c := client(t, &config.Config{SkipTLSVerify: true, ProxyHTTPS: proxy.URL, NoProxy: []string{"127.0.0.1"}})
	post := func(host string) {
		t.Helper()
		if err := c.once(t.Context(), Request{Address: strings.Replace(target.URL, "127.0.0.1", host, 1)}); err != nil {
			t.Error(err)
		}
	}
	post("localhost")
	post("127.0.0.1")
	if connects != 1 {
		t.Errorf("%d requests went through the proxy", connects)
	}
	if _, err := New(&config.Config{ProxyHTTPS: "::"}, nil); err == nil {
		t.Error("a proxy that is no address is accepted")
	}
}

func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	server.Config.ErrorLog = nil
	path := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg config.Config
		ok  bool
	}{
		"unknown authority": {config.Config{}, false},
		"custom CA":         {config.Config{CAFile: path}, true},
		"skip verify":       {config.Config{SkipTLSVerify: true}, true},
	} {
		if err := client(t, &c.cfg).once(t.Context(), Request{Address: server.URL}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := TLSConfig(&config.Config{CAFile: "/nonexistent"}, nil); err == nil {
		t.Error("a CA file that does not exist is accepted")
	}
}

func TestProxyExemptions(t *testing.T) {
	for host, want := range map[string]bool{"a.example": true, "x.a.example": true, "ba.example": false, "other": false} {
		if got := exempt(host, []string{".a.example"}); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

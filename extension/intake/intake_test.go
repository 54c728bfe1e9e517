package intake

import (
	"compress/gzip"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	answers := []int{500, 429, 202}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, _ := io.ReadAll(z)
		if string(body) != "body" || r.Header.Get("DD-API-KEY") != "the-key" {
			t.Errorf("%q %v", body, r.Header)
		}
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer server.Close()
	c := client(t, &config.Config{})
	if err := c.Post(t.Context(), server.URL, "application/json", []byte("body")); err != nil || len(answers) != 0 {
		t.Error(err, answers)
	}
	answers = []int{403}
	if err := c.Post(t.Context(), server.URL, "application/json", []byte("body")); !errors.Is(err, ErrRejected) {
		t.Error(err)
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
		if err := client(t, &c.cfg).once(t.Context(), server.URL, "a/b", nil); (err == nil) != c.ok {
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

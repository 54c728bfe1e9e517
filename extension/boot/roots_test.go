package boot

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/initprof/initprof/extension/changes"
	"github.com/initprof/initprof/extension/config"
)

var silent = log.New(io.Discard, "", 0)

// variants of h1: none is native-eager.
var rootVariants = []string{"none", "h1", "h1=deferred", "h1=embedded"}

// withTLS puts the intakes behind a certificate that nobody knows.
func withTLS(t *testing.T, set string) *world {
	t.Helper()
	w := newWorld(t)
	w.intake.Close()
	w.intake = httptest.NewUnstartedServer(http.HandlerFunc(w.serveIntake))
	w.intake.Config.ErrorLog = silent
	w.intake.StartTLS()
	t.Cleanup(w.intake.Close)
	for _, name := range []string{"DD_DD_URL", "DD_APM_DD_URL", "DD_LOGS_CONFIG_LOGS_DD_URL"} {
		w.env[name] = w.intake.URL
	}
	w.env["INITPROF_EXTENSION_CHANGES"] = set
	return w
}

func (w *world) authority(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.intake.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever H1 does with the roots, a custom CA file, skip-verify and a proxy work
// as they did, and an unknown authority is refused.
func TestRootsLeaveSettingsAlone(t *testing.T) {
	for _, set := range rootVariants {
		t.Run("changes="+set, func(t *testing.T) {
			w := withTLS(t, set)
			if w.run(t.Context()); w.sent("orders") || !strings.Contains(w.logs.String(), "certificate signed by unknown authority") {
				t.Errorf("unknown authority: sent %q\n%s", w.series, w.logs.String())
			}
			w = withTLS(t, set)
			w.env["DD_TLS_CERT_FILE"] = w.authority(t)
			if code := w.run(t.Context()); code != 0 || !w.sent("orders") {
				t.Errorf("custom CA: exit status %d\n%s", code, w.logs.String())
			}
			w = withTLS(t, set)
			w.env["DD_SKIP_SSL_VALIDATION"] = "true"
			if code := w.run(t.Context()); code != 0 || !w.sent("orders") {
				t.Errorf("skip-verify: exit status %d\n%s", code, w.logs.String())
			}
			w = withTLS(t, set)
			w.env["DD_TLS_CERT_FILE"] = w.authority(t)
			var tunnels int
			w.env["DD_PROXY_HTTPS"] = tunnel(t, w, &tunnels)
			if code := w.run(t.Context()); code != 0 || !w.sent("orders") || tunnels == 0 {
				t.Errorf("proxy: exit status %d, %d tunnels\n%s", code, tunnels, w.logs.String())
			}
		})
	}
}

// tunnel is a proxy that connects to the intake whatever it is asked for.
func tunnel(t *testing.T, w *world, count *int) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(rw, "CONNECT", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", w.intake.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = to.Close() }()
		w.mu.Lock()
		*count++
		w.mu.Unlock()
		from, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = from.Close() }()
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, from)
			_ = to.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(from, to)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// What each variant of h1 has in hand before the first next, and at the first
// handshake.
func TestRoots(t *testing.T) {
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := embeddedRoots()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		h1            changes.Roots
		address       string
		before, after *x509.CertPool
	}{
		"native-eager":       {changes.NativeEager, "https://intake.example", system, system},
		"deferred":           {changes.Deferred, "https://intake.example", nil, nil},
		"embedded":           {changes.Embedded, "https://intake.example", nil, embedded},
		"embedded, not used": {changes.Embedded, "http://intake.example", nil, nil},
	} {
		e := &extension{changes: changes.Set{H1: c.h1}, config: &config.Config{FlushTimeout: time.Second, APIKey: "key", LogsURL: c.address}}
		if err := e.buildSharedClient(); err != nil {
			t.Fatal(err)
		}
		if before := e.tls.RootCAs; (before == nil) != (c.before == nil) || before != nil && !before.Equal(c.before) {
			t.Errorf("%s: other roots before the first next", name)
		}
		e.loadRoots()
		if after := e.tls.RootCAs; (after == nil) != (c.after == nil) || after != nil && !after.Equal(c.after) {
			t.Errorf("%s: other roots at the first handshake", name)
		}
	}
}

// The bundle trusts each of its own roots, and nobody else.
func TestEmbeddedRoots(t *testing.T) {
	pool, err := embeddedRoots()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if root.Constraint != nil {
			continue // trusted for certificates of before a date
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: certificate.NotBefore.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", certificate.Subject, err)
		}
	}
	if n < 100 {
		t.Errorf("%d roots", n)
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = silent
	s.StartTLS()
	defer s.Close()
	if c, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}); err == nil {
		_ = c.Close()
		t.Error("an unknown authority is trusted")
	}
}

// The cost that the first handshake has with h1=embedded.
func BenchmarkEmbeddedRoots(b *testing.B) {
	for b.Loop() {
		if _, err := embeddedRoots(); err != nil {
			b.Fatal(err)
		}
	}
}

package boot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/initprof/initprof/extension/checkpoint"
)

// world is a Lambda environment and an intake, as far as these tests need them.
type world struct {
	t      *testing.T
	api    *httptest.Server
	intake *httptest.Server
	env    map[string]string
	refuse bool // the subscription
	// first is asked before an answer is made; true says that it was made.
	first func(rw http.ResponseWriter, r *http.Request, body []byte) bool
	// during is what the function does besides.
	during func()
	// registering is called when the extension registers.
	registering func()
	invokes     int
	helper      string // of AppSec
	logs        lockedBuffer
	running     sync.WaitGroup
	mu          sync.Mutex
	asked       []string
	errors      []string // what init/error and exit/error were told
	series      []string
	telemetry   string
	next        int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	for range 100 {
		// Below those that the kernel gives to connections, and each but once:
		// another's must not take it before it is bound.
		port := strconv.Itoa(int(20000 + lastPort.Add(1)%10000))
		var c io.Closer
		var err error
		if network == "udp" {
			c, err = net.ListenPacket("udp", "127.0.0.1:"+port)
		} else {
			c, err = net.Listen("tcp", "127.0.0.1:"+port)
		}
		if err == nil {
			_ = c.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

var lastPort atomic.Int32

// It begins anywhere, so that two test runs seldom meet.
func init() { lastPort.Store(int32(os.Getpid() * 37 % 10000)) }

func newWorld(t *testing.T) *world {
	w := &world{t: t, invokes: 1}
	w.api = httptest.NewServer(http.HandlerFunc(w.serveAPI))
	t.Cleanup(w.api.Close)
	w.intake = httptest.NewServer(http.HandlerFunc(w.serveIntake))
	t.Cleanup(w.intake.Close)
	w.env = map[string]string{
		"AWS_LAMBDA_RUNTIME_API": w.api.Listener.Addr().String(), "DD_API_KEY": "the-secret-key",
		"DD_DD_URL": w.intake.URL, "DD_APM_DD_URL": w.intake.URL, "DD_LOGS_CONFIG_LOGS_DD_URL": w.intake.URL, "DD_DOGSTATSD_PORT": freePort(t, "udp"),
		"DD_APM_RECEIVER_PORT": freePort(t, "tcp"), "DD_LOG_LEVEL": "debug", "INITPROF_EXTENSION_LIFECYCLE_PORT": freePort(t, "tcp"),
	}
	return w
}

func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.asked = append(w.asked, r.Method+" "+r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/error") {
		w.errors = append(w.errors, r.Header.Get("Lambda-Extension-Function-Error-Type")+" "+string(body))
	}
	w.mu.Unlock()
	if w.first != nil && w.first(rw, r, body) {
		return
	}
	switch r.URL.Path {
	case "/2018-06-01/runtime/invocation/next":
		rw.Header().Set("Lambda-Runtime-Aws-Request-Id", "r1")
		_, _ = io.WriteString(rw, `{"requestContext":{}}`)
	case "/2020-01-01/extension/register":
		if w.registering != nil {
			w.registering()
		}
		rw.Header().Set("Lambda-Extension-Identifier", "id")
		_, _ = io.WriteString(rw, `{"functionName":"f"}`)
	case "/2022-07-01/telemetry":
		if w.refuse {
			http.Error(rw, `{"errorType":"Telemetry.SubscriptionClosed","errorMessage":"INIT has ended"}`, http.StatusForbidden)
			return
		}
		var s struct{ Destination struct{ URI string } }
		_ = json.Unmarshal(body, &s)
		w.mu.Lock()
		w.telemetry = strings.Replace(s.Destination.URI, "sandbox.localdomain", "127.0.0.1", 1)
		w.mu.Unlock()
	case "/2020-01-01/extension/event/next":
		// The runtime starts meanwhile, so that a late subscription is answered.
		for i := 0; i < 100 && !w.refuse && !w.isSubscribed(); i++ {
			time.Sleep(time.Millisecond)
		}
		w.mu.Lock()
		w.next++
		n, telemetry := w.next, w.telemetry
		w.mu.Unlock()
		deadline := time.Now().Add(time.Minute).UnixMilli() // the extension keeps 2 s of it at SHUTDOWN
		if n > w.invokes {
			w.running.Wait() // the runtime is done before the environment ends
			fmt.Fprintf(rw, `{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":%d}`, deadline)
			return
		}
		w.running.Go(func() { w.invoke(telemetry, n) })
		fmt.Fprintf(rw, `{"eventType":"INVOKE","requestId":"r%d","invokedFunctionArn":"arn:aws:lambda:eu-west-1:1:function:f","deadlineMs":%d}`, n, deadline)
	}
}

func (w *world) isSubscribed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.telemetry != ""
}

// invoke is the function's part: a metric, then the platform's events.
func (w *world) invoke(telemetry string, n int) {
	conn, err := net.Dial("udp", "127.0.0.1:"+w.env["DD_DOGSTATSD_PORT"])
	if err != nil {
		w.t.Error(err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "orders:3|c|#kind:test")
	traces, err := http.NewRequest(http.MethodPut, "http://127.0.0.1:"+w.env["DD_APM_RECEIVER_PORT"]+"/v0.4/traces", strings.NewReader("\x91\x91\x81\xa4name\xa1n"))
	if err != nil {
		w.t.Error(err)
		return
	}
	traces.Header.Set("Content-Type", "application/msgpack")
	if resp, err := http.DefaultClient.Do(traces); err != nil {
		w.t.Error(err)
	} else {
		_ = resp.Body.Close()
	}
	if w.during != nil {
		w.during()
	}
	if telemetry != "" {
		resp, err := http.Post(telemetry, "application/json", strings.NewReader(
			`[{"time":"2024-01-01T00:00:00Z","type":"platform.runtimeDone","record":{"requestId":"r`+strconv.Itoa(n)+`","status":"success"}}]`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}
}

func (w *world) serveIntake(rw http.ResponseWriter, r *http.Request) {
	z, err := zstd.NewReader(r.Body)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer z.Close()
	body, _ := io.ReadAll(z)
	w.mu.Lock()
	w.series = append(w.series, r.URL.Path+" "+string(body))
	w.mu.Unlock()
	rw.WriteHeader(http.StatusAccepted)
}

func (w *world) run(ctx context.Context) int {
	w.t.Cleanup(func() { checkpoint.LogTo(nil) })
	defer func() {
		if strings.Contains(w.logs.String(), "the-secret-key") {
			w.t.Error("the key stands in the log")
		}
	}()
	return Run(ctx, Options{
		Start: time.Now(), Getenv: func(n string) string { return w.env[n] }, Program: "/opt/extensions/initprof-extension",
		Log: &w.logs, Telemetry: "127.0.0.1:0", Helper: w.helper,
	})
}

var checkpointLine = regexp.MustCompile(`(?m)checkpoint (\w+) delta_ms`)

func (w *world) checkpoints() (names []string) {
	for _, m := range checkpointLine.FindAllStringSubmatch(w.logs.String(), -1) {
		names = append(names, m[1])
	}
	return names
}

var h0 = []string{
	"crypto_provider_ready", "tls_client_build", "config_parse", "shared_client_ready", "register_ready",
	"dogstatsd_started", "trace_agent_started", "telemetry_subscribed", "ready",
}

func TestColdStart(t *testing.T) {
	for _, set := range []string{"", "none", "all", "h2", "h4", "h18", "h15,h16,tags"} {
		t.Run("changes="+set, func(t *testing.T) {
			w := newWorld(t)
			w.env["INITPROF_EXTENSION_CHANGES"] = set
			if code := w.run(t.Context()); code != 0 {
				t.Fatalf("exit status %d\n%s", code, w.logs.String())
			}
			got := w.checkpoints()
			if set == "none" {
				if diff := cmp.Diff(h0, got); diff != "" {
					t.Error(diff)
				}
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(h0))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("each checkpoint once: %s", diff)
			}
			all := strings.Join(w.series, "\n")
			for _, want := range []string{`"metric":"orders"`, `"value":3`, `"functionname:f"`, "END RequestId: r1", `_dd.tags.function`} {
				if !strings.Contains(all, want) {
					t.Errorf("no %s in %s", want, all)
				}
			}
			if text := w.logs.String(); !regexp.MustCompile(`ready in \d+\.\d+ ms`).MatchString(text) {
				t.Error(text)
			}
			if w.asked[0] != "POST /2020-01-01/extension/register" {
				t.Errorf("%q", w.asked)
			}
		})
	}
}

func TestRefusedSubscriptionIsSurvived(t *testing.T) {
	for _, set := range []string{"none", "h2", "h18"} {
		w := newWorld(t)
		w.refuse = true
		w.env["INITPROF_EXTENSION_CHANGES"] = set
		if code := w.run(t.Context()); code != 0 || len(w.series) == 0 {
			t.Errorf("%s: exit status %d, sent %q\n%s", set, code, w.series, w.logs.String())
		}
	}
}

func TestInitErrors(t *testing.T) {
	inUse := func(w *world, network, variable string) {
		if network == "udp" {
			l, err := net.ListenPacket(network, "127.0.0.1:"+w.env[variable])
			if err != nil {
				t.Fatal(err)
			}
			w.t.Cleanup(func() { _ = l.Close() })
			return
		}
		l, err := net.Listen(network, "127.0.0.1:"+w.env[variable])
		if err != nil {
			t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = l.Close() })
	}
	for name, c := range map[string]struct {
		spoil func(*world)
		want  string // of what init/error is told
	}{
		"unknown change":        {func(w *world) { w.env["INITPROF_EXTENSION_CHANGES"] = "h5" }, "Extension.ConfigInvalid"},
		"bad address":           {func(w *world) { w.env["DD_DD_URL"] = "ftp://x" }, "DD_DD_URL"},
		"no CA file":            {func(w *world) { w.env["DD_TLS_CERT_FILE"] = "/nonexistent.pem" }, "/nonexistent.pem"},
		"bad proxy":             {func(w *world) { w.env["DD_PROXY_HTTPS"] = "::" }, "DD_PROXY_HTTPS"},
		"DogStatsD port in use": {func(w *world) { inUse(w, "udp", "DD_DOGSTATSD_PORT") }, "address already in use"},
		"trace port in use":     {func(w *world) { inUse(w, "tcp", "DD_APM_RECEIVER_PORT") }, "Extension.ListenFailed"},
		"lifecycle port in use": {func(w *world) { inUse(w, "tcp", "INITPROF_EXTENSION_LIFECYCLE_PORT") }, "lifecycle: listen"},
	} {
		spoil, want := c.spoil, c.want
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			spoil(w)
			if code := w.run(t.Context()); code != 1 {
				t.Errorf("exit status %d", code)
			}
			if last := w.asked[len(w.asked)-1]; last != "POST /2020-01-01/extension/init/error" {
				t.Errorf("%q", w.asked)
			}
			if !strings.Contains(w.logs.String(), "ERROR | init: ") || len(w.errors) != 1 || !strings.Contains(w.errors[0], want) {
				t.Errorf("%q\n%s", w.errors, w.logs.String())
			}
		})
	}
}

func TestThreads(t *testing.T) {
	for memory, want := range map[string]int{"": 2, "x": 2, "-1": 2, "128": 1, "1769": 1, "2654": 2, "3008": 2, "10240": 4, "99999": 4} {
		if got := threads(memory); got != want {
			t.Errorf("%q MB: %d, want %d", memory, got, want)
		}
	}
}

package boot

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// helper makes a firewall out of shell commands: one that takes 200 ms to
// compile its rules, and finds something in every request.
func helper(t *testing.T) (path, started string) {
	t.Helper()
	dir := t.TempDir()
	path, started = filepath.Join(dir, "helper"), filepath.Join(dir, "started")
	if err := os.WriteFile(path, []byte(`#!/bin/sh
PATH=/usr/bin:/bin
: >`+started+`
env >>`+started+`
sleep 0.2
echo '{"ready":true}'
while read -r head; do
	size=${head##*:}
	head -c "${size%\}}" >/dev/null
	echo '{"meta":{"appsec.event":"true"},"metrics":{"_dd.appsec.enabled":1}}'
done
`), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, started
}

// withAppSec switches AppSec on, and makes the function's library hand over an
// HTTP request.
func withAppSec(t *testing.T, changes string) (w *world, started string) {
	t.Helper()
	w = newWorld(t)
	w.helper, started = helper(t)
	w.env["DD_SERVERLESS_APPSEC_ENABLED"] = "true"
	w.env["INITPROF_EXTENSION_CHANGES"] = changes
	w.during = func() {
		w.post("http://127.0.0.1:"+w.env["INITPROF_EXTENSION_LIFECYCLE_PORT"]+"/lambda/start-invocation", `{"requestContext":{}}`)
		w.post("http://127.0.0.1:"+w.env["INITPROF_EXTENSION_LIFECYCLE_PORT"]+"/lambda/end-invocation", `{"statusCode":200}`)
	}
	return w, started
}

func (w *world) post(url, body string) {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return
	}
	req.Header.Set("Lambda-Runtime-Aws-Request-Id", "r1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Error(err)
		return
	}
	_ = resp.Body.Close()
}

func (w *world) sent(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(strings.Join(w.series, "\n"), text)
}

// before reports whether one line of the log stands before another.
func (w *world) before(t *testing.T, one, other string) bool {
	t.Helper()
	text := w.logs.String()
	i, j := strings.Index(text, one), strings.Index(text, other)
	if i < 0 || j < 0 {
		t.Fatalf("%q or %q is missing in\n%s", one, other, text)
	}
	return i < j
}

// H3, alone and reconciled with H2, H4, H15 and H18: the handle is built inside
// the block that the subscription overlaps, ready does not wait for it, and the
// first flush with an inspected request resolves it. Without H3 INIT waits.
func TestAppSecHandle(t *testing.T) {
	for _, set := range []string{"none", "h2", "h4,h15", "h3", "h2,h3", "h3,h4,h15", "h3,h18", "", "all"} {
		t.Run("changes="+set, func(t *testing.T) {
			w, started := withAppSec(t, set)
			if code := w.run(t.Context()); code != 0 {
				t.Fatalf("exit status %d\n%s", code, w.logs.String())
			}
			deferred := set == "" || set == "all" || strings.Contains(set, "h3")
			if waited := w.before(t, "span appsec ", "checkpoint trace_agent_started "); waited == deferred {
				t.Errorf("INIT has waited: %v\n%s", waited, w.logs.String())
			}
			if deferred && !w.before(t, "checkpoint ready ", "span appsec ") {
				t.Errorf("ready has waited\n%s", w.logs.String())
			}
			if !w.sent("appsec.event") || !w.sent("_dd.appsec.enabled") {
				t.Errorf("the span of the first invocation has no tags\n%s", w.logs.String())
			}
			if env, err := os.ReadFile(started); err != nil || strings.Contains(string(env), "the-secret-key") {
				t.Errorf("%v: the helper knows the key: %s", err, env)
			}
		})
	}
}

// With AppSec off, its handle does no work, whatever the changes: no process, no
// proxy, no span, no tag.
func TestAppSecOff(t *testing.T) {
	for _, set := range []string{"none", "h3", "h2,h3", "all"} {
		w, started := withAppSec(t, set)
		proxy := "127.0.0.1:" + freePort(t, "tcp")
		w.env["AWS_LWA_LAMBDA_RUNTIME_API_PROXY"] = proxy
		w.env["DD_SERVERLESS_APPSEC_ENABLED"] = "false"
		call := w.during
		w.during = func() {
			if c, err := net.Dial("tcp", proxy); err == nil {
				_ = c.Close()
				t.Errorf("%s: there is a proxy", set)
			}
			call()
		}
		if code := w.run(t.Context()); code != 0 {
			t.Errorf("%s: exit status %d\n%s", set, code, w.logs.String())
		}
		if _, err := os.Stat(started); err == nil || strings.Contains(w.logs.String(), "appsec") || w.sent("appsec") {
			t.Errorf("%s: %v\n%s", set, err, w.logs.String())
		}
		if !w.sent("aws.lambda") {
			t.Errorf("%s: the span is missing", set)
		}
	}
}

// Nothing that becomes of the helper ends the service.
func TestAppSecWithoutHelper(t *testing.T) {
	for _, set := range []string{"none", "h3"} {
		w, _ := withAppSec(t, set)
		w.helper = filepath.Join(t.TempDir(), "nowhere")
		if code := w.run(t.Context()); code != 0 || !w.sent("aws.lambda") || !strings.Contains(w.logs.String(), "AppSec is not available: starting the helper") {
			t.Errorf("%s: exit status %d\n%s", set, code, w.logs.String())
		}
	}
}

// A helper that hangs costs tags, not the function's time or what is flushed at
// the end.
func TestAppSecHangs(t *testing.T) {
	w, _ := withAppSec(t, "")
	w.helper = filepath.Join(t.TempDir(), "helper")
	if err := os.WriteFile(w.helper, []byte("#!/bin/sh\nexec /bin/sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	code := w.run(t.Context())
	if passed := time.Since(begin); code != 0 || passed > settleLimit+3*time.Second {
		t.Errorf("exit status %d after %v\n%s", code, passed, w.logs.String())
	}
	if !w.sent("aws.lambda") || !w.sent("orders") || !strings.Contains(w.logs.String(), "spans go without tags") {
		t.Errorf("sent %q\n%s", w.series, w.logs.String())
	}
}

// The runtime starts when all extensions have registered: the proxy must listen
// before, also where H4 registers on a goroutine of its own.
func TestProxyListensBeforeRegister(t *testing.T) {
	for n, set := range []string{"none", "h4", "h3,h4,h15"} {
		t.Run("changes="+set, func(t *testing.T) {
			w, _ := withAppSec(t, set)
			if n == 0 { // then the end of the invocation is not telemetry's, but the answer
				w.env["DD_SERVERLESS_LOGS_ENABLED"] = "false"
			}
			proxy := "127.0.0.1:" + freePort(t, "tcp")
			w.env["AWS_LWA_LAMBDA_RUNTIME_API_PROXY"] = proxy
			w.registering = func() {
				c, err := net.Dial("tcp", proxy)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			}
			base := "http://" + proxy + "/2018-06-01/runtime/invocation/"
			w.during = func() { // of a library whose events the proxy has seen
				resp, err := http.Get(base + "next")
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
				lifecycle := "http://127.0.0.1:" + w.env["INITPROF_EXTENSION_LIFECYCLE_PORT"] + "/lambda/"
				w.post(lifecycle+"start-invocation", `{"requestContext":{}}`)
				w.post(lifecycle+"end-invocation", "{}")
				time.Sleep(20 * time.Millisecond) // the span is there, its answer is not
				w.post(base+id+"/response", `{"statusCode":200}`)
			}
			if code := w.run(t.Context()); code != 0 {
				t.Fatalf("exit status %d\n%s", code, w.logs.String())
			}
			if !w.sent("appsec.event") {
				t.Errorf("no tags\n%s", w.logs.String())
			}
			if c, err := net.Dial("tcp", proxy); err == nil {
				_ = c.Close()
				t.Error("the proxy outlives the extension")
			}
		})
	}
}

func TestProxyErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, address := range []string{l.Addr().String(), "203.0.113.1:9000"} {
		w, _ := withAppSec(t, "")
		w.env["AWS_LWA_LAMBDA_RUNTIME_API_PROXY"] = address
		if code := w.run(t.Context()); code != 1 || !strings.HasSuffix(w.asked[len(w.asked)-1], "/init/error") {
			t.Errorf("%s: exit status %d, asked %q", address, code, w.asked)
		}
	}
}

// H4's goroutine starts inside the runtime that H15 has set up, one thread
// included, on which it must not wait for itself.
func TestRegisterInsideExplicitStart(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for memory, want := range map[string]int{"128": 1, "3538": 2, "10240": 4} {
		w := newWorld(t)
		w.env["INITPROF_EXTENSION_CHANGES"] = "h4,h15"
		w.env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = memory
		threads := 0
		w.registering = func() { threads = runtime.GOMAXPROCS(0) }
		begin := time.Now()
		if code := w.run(t.Context()); code != 0 || threads != want {
			t.Errorf("%s MB: exit status %d after %v, %d threads at register, want %d", memory, code, time.Since(begin), threads, want)
		}
	}
}

package boot

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestHostileFunction: whatever a function sends to the extension's ports, what
// it sends besides arrives, the log says what was refused, and SHUTDOWN keeps
// its deadline although clients never end their requests.
func TestHostileFunction(t *testing.T) {
	w := newWorld(t)
	at := map[string]string{
		"trace": "127.0.0.1:" + w.env["DD_APM_RECEIVER_PORT"], "lifecycle": "127.0.0.1:" + w.env["INITPROF_EXTENSION_LIFECYCLE_PORT"],
	}
	post := func(url, contentType, body string) int {
		t.Helper()
		resp, err := http.Post(url, contentType, strings.NewReader(body))
		if err != nil {
			return 0 // the server may close before it has read all
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	var over time.Time
	w.during = func() {
		w.mu.Lock()
		at["telemetry"] = strings.TrimSuffix(strings.TrimPrefix(w.telemetry, "http://"), "/")
		w.mu.Unlock()
		udp, err := net.Dial("udp", "127.0.0.1:"+w.env["DD_DOGSTATSD_PORT"])
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = udp.Close() }()
		for _, datagram := range []string{
			"", "\n\n", "\x00", ":", "|", "a", "a:|c", "a:1|", "a:1|c|#", "a:1|c|@", "a:NaN|g", "a:1e999|c", "a:1|c|T-1",
			"_e{99999,1}:a|b", "_sc|x", strings.Repeat("a", 60000), strings.Repeat("a:1|c|#", 5000), "\xff\xfe:1|c|#\xff",
		} {
			_, _ = io.WriteString(udp, datagram)
		}
		deep := "\x91\x91\x81\xa1x" + strings.Repeat("\x91", 1<<20)
		for _, path := range []string{"/v0.4/traces", "/v0.5/traces"} {
			for _, body := range []string{"", "\xc1", "\xdd\xff\xff\xff\xff", "\x92\xdd\xff\xff\xff\xff", deep} {
				if code := post("http://"+at["trace"]+path, "application/msgpack", body); code != 200 {
					t.Errorf("%s: %d", path, code) // decoded at the flush
				}
			}
		}
		for _, c := range []struct {
			url  string
			want int
		}{
			{at["trace"] + "/v0.4/traces", 413},
			{at["trace"] + "/telemetry/proxy/api/v2/apmtelemetry", 413},
			{at["lifecycle"] + "/lambda/end-invocation", 413},
			{at["telemetry"] + "/", 413},
		} {
			if code := post("http://"+c.url, "application/msgpack", strings.Repeat("x", 26<<20)); code != c.want && code != 0 {
				t.Errorf("%s: %d", c.url, code)
			}
		}
		for _, body := range []string{"", "{", "[", "null", `{"a":1}`, strings.Repeat("[", 1<<20), `[{"time":5}]`, `[{"type":"platform.report","record":"x"}]`} {
			if code := post("http://"+at["telemetry"]+"/", "application/json", body); code != 200 {
				t.Errorf("telemetry: %d", code)
			}
		}
		for _, address := range at { // bodies and headers that never end
			for _, request := range []string{"POST / HTTP/1.1\r\nHost: x\r\nX: ", "POST /v0.4/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\nContent-Length: 1000000\r\n\r\nx", "\x16\x03\x01"} {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					continue
				}
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = io.WriteString(conn, request)
			}
		}
		_, _ = io.WriteString(udp, "survived:1|c")
		if code := post("http://"+at["trace"]+"/v0.4/traces", "application/msgpack", "\x91\x91\x81\xa4name\xa8survived"); code != 200 {
			t.Errorf("a good trace: %d", code)
		}
		over = time.Now()
	}
	code := w.run(t.Context())
	if d := time.Since(over); d > 10*time.Second { // SHUTDOWN's 2 s, and a machine that has more to do
		t.Errorf("the end took %v", d)
	}
	all := strings.Join(w.series, "\n")
	if code != 0 || !strings.Contains(all, `"metric":"survived"`) || !strings.Contains(all, "\x12\x08survived") {
		t.Errorf("exit status %d; the good metric and the good trace did not arrive", code)
	}
	for _, want := range []string{"malformed metric", "traces that cannot be read", "too large", "not understood", "no JSON array"} {
		if !strings.Contains(w.logs.String(), want) {
			t.Errorf("nothing is said of %q in\n%s", want, w.logs.String())
		}
	}
}

// TestLossesAreCounted: more contexts than there is room for are said once when
// the buffer fills, and counted at the end.
func TestLossesAreCounted(t *testing.T) {
	const contexts = 25000 // of which 20,000 find room
	w := newWorld(t)
	w.during = func() {
		udp, err := net.Dial("udp", "127.0.0.1:"+w.env["DD_DOGSTATSD_PORT"])
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = udp.Close() }()
		for i := 0; i < contexts; {
			var b strings.Builder
			for range 500 {
				fmt.Fprintf(&b, "context.%d:1|g|T1700000000\n", i)
				i++
			}
			_, _ = io.WriteString(udp, b.String())
			time.Sleep(5 * time.Millisecond) // the kernel's buffer is small
		}
	}
	if code := w.run(t.Context()); code != 0 {
		t.Errorf("exit status %d", code)
	}
	sent, lost := strings.Count(strings.Join(w.series, "\n"), `"metric":"context.`), 0
	if m := regexp.MustCompile(`shutdown: (\d+) samples, 0 trace payloads and 0 log lines had been dropped`).FindStringSubmatch(w.logs.String()); m != nil {
		lost, _ = strconv.Atoi(m[1])
	}
	inKernel := 0
	if m := regexp.MustCompile(`(\d+) datagrams were dropped by the kernel`).FindStringSubmatch(w.logs.String()); m != nil {
		inKernel, _ = strconv.Atoi(m[1])
	}
	if lost == 0 || sent+lost < contexts-500*inKernel || strings.Count(w.logs.String(), "buffer is full") != 1 {
		t.Errorf("%d of %d were sent, %d are said to be lost\n%s", sent, contexts, lost, w.logs.String())
	}
}

// TestListenersBindLoopback: they listen on 127.0.0.1 and on no other address, of
// which 127.0.0.2 is one that each Linux has.
func TestListenersBindLoopback(t *testing.T) {
	const other = "127.0.0.2"
	w := newWorld(t)
	w.during = func() {
		for _, name := range []string{"DD_APM_RECEIVER_PORT", "INITPROF_EXTENSION_LIFECYCLE_PORT"} {
			if conn, err := net.Dial("tcp", net.JoinHostPort(other, w.env[name])); err == nil {
				_ = conn.Close()
				t.Errorf("%s is reachable at %s", name, other)
			}
		}
		// Whoever may bind another address's port has not found it taken.
		conn, err := net.ListenPacket("udp", net.JoinHostPort(other, w.env["DD_DOGSTATSD_PORT"]))
		if err != nil {
			t.Errorf("DogStatsD stands in the way at %s: %v", other, err)
			return
		}
		_ = conn.Close()
	}
	if code := w.run(t.Context()); code != 0 {
		t.Errorf("exit status %d\n%s", code, w.logs.String())
	}
}

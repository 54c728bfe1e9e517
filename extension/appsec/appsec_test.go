package appsec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/initprof/initprof/extension/logging"
)

// log is a log that several goroutines write.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// script makes a helper out of shell commands. answer answers one request,
// whose payload's length it takes from the line before.
func script(t *testing.T, text string) (*WAF, *log) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "helper")
	const answer = `answer() { read -r head && size=${head##*:} && head -c "${size%\}}" >/dev/null && echo "$1"; }` + "\n"
	if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+answer+text), 0o700); err != nil {
		t.Fatal(err)
	}
	var l log
	w := Start(Options{Helper: path, Budget: time.Millisecond, Log: logging.New(&l, logging.Debug)})
	t.Cleanup(w.Close) // twice is allowed
	return w, &l
}

var event = []byte(`{"requestContext":{}}`)

func settle(t *testing.T, w *WAF) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.Settle(ctx)
	if ctx.Err() != nil {
		t.Fatal("the helper has not settled")
	}
}

const ready = `echo '{"ready":true}'` + "\n"

// The handle is there before the rules are; its first user waits for them.
func TestFirstUserWaits(t *testing.T) {
	w, l := script(t, "sleep 0.1\n"+ready+`while answer '{"meta":{"appsec.event":"true"},"metrics":{"_dd.appsec.enabled":1}}'; do :; done`)
	select {
	case <-w.ready:
		t.Error("ready before its helper")
	default:
	}
	w.Inspect(event).Finish("r1", []byte("{}"))
	settle(t, w)
	tags, ok := w.Take("r1")
	if !ok || tags.Meta["appsec.event"] != "true" || tags.Metrics["_dd.appsec.enabled"] != 1 {
		t.Errorf("%+v\n%s", tags, l)
	}
	if _, again := w.Take("r1"); again {
		t.Error("taken twice")
	}
	if err := w.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// What holds the helper back does so, and does not hold up the end.
func TestAfter(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	helper := filepath.Join(t.TempDir(), "helper")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\n: >"+started+"\n"+ready+"read -r line\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{false, true} {
		after := make(chan struct{})
		var l log
		w := Start(Options{Helper: helper, Log: logging.New(&l, logging.Debug), After: after})
		if open {
			close(after)
			if err := w.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		}
		w.Close()
		if _, err := os.Stat(started); (err == nil) != open || l.String() != "" {
			t.Errorf("after %v: %v\n%s", open, err, &l)
		}
	}
}

// Only what may be an HTTP request wakes the helper or waits for it.
func TestOtherEventsCostNothing(t *testing.T) {
	w, _ := script(t, "exec sleep 60") // never ready
	i := w.Inspect([]byte(`{"Records":[{"eventSource":"aws:sqs"}]}`))
	i.Finish("r1", []byte("{}"))
	settle(t, w)
	if i != nil {
		t.Error("inspected")
	}
}

// Whatever becomes of the helper, the service goes on and the log says why
// nothing is inspected.
func TestBrokenHelpers(t *testing.T) {
	for name, c := range map[string]struct{ script, log string }{
		"exits":          {`exit 3`, "ended without an answer (exit status 3)"},
		"reports":        {`echo '{"error":"no rules"}'`, "no rules"},
		"speaks garbage": {`echo garbage; exec sleep 60`, "invalid character"},
		"never ends":     {`exec cat /dev/zero`, "a line of more than"},
		"dies":           {ready + `read -r line; kill -SEGV $$`, "ended without an answer (signal: segmentation fault"},
		"hangs":          {ready + `exec sleep 60`, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, l := script(t, c.script)
			for n := range 4 { // more often than it is started
				w.Inspect(event).Finish(fmt.Sprint("r", n), nil)
				settle(t, w)
				if tags, ok := w.Take(fmt.Sprint("r", n)); ok {
					t.Errorf("tags out of nowhere: %+v", tags)
				}
			}
			if text := l.String(); !strings.Contains(text, c.log) || strings.Count(text, "\n") > maxStarts {
				t.Errorf("want %q, and not more than %d lines:\n%s", c.log, maxStarts, text)
			}
		})
	}
}

func TestAbsentHelper(t *testing.T) {
	var l log
	w := Start(Options{Helper: "/nonexistent", Log: logging.New(&l, logging.Debug)})
	if err := w.Ready(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(l.String(), "/nonexistent") {
		t.Error(err, l.String())
	}
	w.Inspect(event).Finish("r1", nil)
	settle(t, w)
	w.Close()
}

// A helper that died once is asked again about the next event.
func TestHelperIsStartedAgain(t *testing.T) {
	w, l := script(t, ready+`answer '{"meta":{"a":"b"}}'; answer '{"meta":{"a":"b"}}'`)
	for n := range 3 {
		w.Inspect(event).Finish(fmt.Sprint("r", n), nil)
		settle(t, w)
	}
	_, one := w.Take("r0")
	_, three := w.Take("r2")
	if !one || !three || !strings.Contains(l.String(), "started again") {
		t.Errorf("r0 %v, r2 %v\n%s", one, three, l)
	}
}

// A slow helper neither holds up those who hand over, nor fills the memory.
func TestSlowHelper(t *testing.T) {
	w, l := script(t, ready+`exec sleep 60`)
	if err := w.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 10 * maxJobs {
		w.Inspect(event)
	}
	if n := w.pending.Load(); n > maxJobs+1 {
		t.Errorf("%d payloads wait", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	w.Settle(ctx)
	if !strings.Contains(l.String(), "does not keep up") {
		t.Error(l)
	}
}

// A helper that hangs does not hold up the end of the extension.
func TestCloseDoesNotWait(t *testing.T) {
	for name, text := range map[string]string{
		"starting": "exec sleep 60", "asked": ready + "exec sleep 60", "its child keeps the pipe": "sleep 3; exit",
	} {
		w, l := script(t, text)
		w.Inspect(event)
		begin := time.Now()
		w.Close()
		if passed := time.Since(begin); passed > answerLimit/2 || l.String() != "" {
			t.Errorf("%s: %v\n%s", name, passed, l)
		}
		w.Inspect(event).Finish("late", nil)
	}
}

func TestTooLarge(t *testing.T) {
	w, l := script(t, ready+`exec sleep 60`)
	if w.Inspect(append(bytes.Repeat([]byte("x"), MaxPayload), event...)) != nil || !strings.Contains(l.String(), "bytes is not inspected") {
		t.Error(l)
	}
}

func TestTagsAreBounded(t *testing.T) {
	var w WAF
	for n := range 2 * maxTags {
		w.keep(fmt.Sprint("r", n), Tags{Meta: map[string]string{"n": fmt.Sprint(n)}})
	}
	if _, ok := w.Take("r0"); ok || len(w.tags) > maxTags || len(w.order) > maxTags {
		t.Errorf("%d tags", len(w.tags))
	}
	for n := range 2 * maxTags {
		w.keep(fmt.Sprint("s", n), Tags{Meta: map[string]string{"n": strings.Repeat("x", 48<<10)}})
	}
	if w.size > maxTagBytes {
		t.Errorf("%d bytes", w.size)
	}
	if tags, ok := w.Take(fmt.Sprint("s", 2*maxTags-1)); !ok || len(tags.Meta["n"]) != 48<<10 {
		t.Error("the newest are gone")
	}
}

func TestSwitchedOff(t *testing.T) {
	var w *WAF
	w.Inspect(event).Finish("r1", nil)
	w.Settle(t.Context())
	if _, ok := w.Take("r1"); ok || w.Ready(t.Context()) != nil {
		t.Error("a switched-off firewall has found something")
	}
	w.Close()
	if n := testing.AllocsPerRun(10, func() { w.Inspect(event).Finish("r1", nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHelperPath(t *testing.T) {
	for program, want := range map[string]string{
		"/opt/extensions/initprof-extension": "/opt/initprof-appsec-helper",
		"bin/initprof-extension":             "bin/initprof-appsec-helper",
	} {
		if got := HelperPath(program); got != want {
			t.Errorf("%s: %s", program, got)
		}
	}
}

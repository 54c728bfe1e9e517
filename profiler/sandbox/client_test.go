package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildFunction builds the function of testdata/lambdago, a module of its own.
func buildFunction(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bootstrap")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = filepath.Join("testdata", "lambdago")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatalf("build the function: %v\n%s", err, out)
		}
		t.Skipf("the function cannot be built here (github.com/aws/aws-lambda-go must be had): %v\n%s", err, out)
	}
	return bin
}

// startFunction runs it as the runtime of an environment.
func startFunction(t *testing.T, s *served, bin string, args ...string) (*exec.Cmd, func() string) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = s.config.RuntimeEnviron(Environ{RuntimeAPI: s.addr})
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	var mu sync.Mutex
	var lines []string
	s.ReleaseRuntime()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			s.LogLine(Runtime, scanner.Text())
			mu.Lock()
			lines = append(lines, scanner.Text())
			mu.Unlock()
		}
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-read
		s.ProcessExited(Runtime, cmd.Wait())
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, "\n")
	}
}

// TestRealRuntime runs AWS's runtime client for Go against the runtime API.
func TestRealRuntime(t *testing.T) {
	bin := buildFunction(t)
	s := serve(t, Config{ExternalRuntime: true, FunctionName: "greeter"})
	_, output := startFunction(t, s, bin)
	within(t, "InitDone", s.InitDone())
	if got := s.InitOutcome(); got.Status != InitSuccess {
		t.Fatalf("outcome %+v", got)
	}
	for range 3 {
		r := within(t, "Invoke", s.invokeLater(`{"name":"you"}`))
		var got struct {
			Greeting, RequestID, ARN string
			Deadline                 bool
		}
		if err := json.Unmarshal(r.Response, &got); err != nil || r.Err != nil {
			t.Fatalf("result %+v, %s, %v", r, r.Response, err)
		}
		if got.Greeting != "hello you" || got.RequestID != r.RequestID || got.ARN != s.config.FunctionARN() || !got.Deadline || r.Status != "success" {
			t.Errorf("response %s of %+v", r.Response, r)
		}
	}
	r := within(t, "Invoke", s.invokeLater(`{"fail":true}`))
	if r.Err != nil || r.Status != "error" || r.ErrorType == "" || !strings.Contains(string(r.Response), "asked to fail") {
		t.Errorf("failing invoke: %+v, %s", r, r.Response)
	}
	if r := within(t, "Invoke", s.invokeLater(strings.Repeat(" ", 5<<20)+`{"name":"large"}`)); r.Err != nil || r.Status != "success" {
		t.Errorf("large payload: %s %v", r.Status, r.Err)
	}
	eventually(t, "a line of output per invoke", func() bool { return strings.Count(output(), "handling") == 4 })
	for _, r := range s.Requests() {
		if r.Status >= http.StatusBadRequest {
			t.Errorf("refused %+v", r)
		}
	}
}

// TestRealInternalExtension runs the same client where it registers an internal
// extension to get SIGTERM, beside an external one.
func TestRealInternalExtension(t *testing.T) {
	bin := buildFunction(t)
	var function *exec.Cmd
	s := serve(t, Config{
		Extensions: []string{"ext"}, ExternalRuntime: true,
		TerminateRuntime: func() { _ = function.Process.Signal(syscall.SIGTERM) },
	})
	if err := s.ReleaseExtension("ext"); err != nil {
		t.Fatal(err)
	}
	id := s.register("ext", bothEvents)
	next := s.next(id)
	within(t, "Registered", s.Registered())
	function, output := startFunction(t, s, bin, "sigterm")
	within(t, "InitDone", s.InitDone())
	if got := s.InitOutcome(); got.Status != InitSuccess {
		t.Fatalf("outcome %+v", got)
	}
	if got := len(s.Times().Extensions); got != 2 {
		t.Errorf("%d extensions, want ext and the runtime's own", got)
	}
	done := s.invokeLater(`{"name":"you"}`)
	within(t, "INVOKE", next)
	next = s.next(id)
	if r := within(t, "Invoke", done); r.Err != nil || r.Status != "success" {
		t.Errorf("result %+v", r)
	}
	shut := make(chan ShutdownResult, 1)
	go func() { shut <- s.Shutdown(context.Background(), ReasonSpindown, time.Second) }()
	within(t, "SHUTDOWN", next)
	s.ProcessExited("ext", nil)
	// This client handles SIGTERM and then waits to be killed.
	if r := within(t, "Shutdown", shut); len(r.Exited) != 1 || len(r.Remaining) != 1 || r.Remaining[0] != Runtime {
		t.Errorf("shutdown %+v", r)
	}
	eventually(t, "the function saw SIGTERM", func() bool { return strings.Contains(output(), "terminated") })
}

package subjects

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// environment answers as little of the Extensions API as the subjects need,
// and keeps the requests that it saw.
func environment(t *testing.T) (api string, seen func() string) {
	t.Helper()
	var mu sync.Mutex
	var requests []string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", "an-identifier")
		_, _ = w.Write([]byte(`{"functionName":"f"}`))
	})
	mux.HandleFunc("PUT /2022-07-01/telemetry", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("OK")) })
	mux.HandleFunc("POST /2020-01-01/extension/init/error", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"eventType":"SHUTDOWN"}`))
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), func() string {
		server.Close()
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(requests, " ")
	}
}

func TestSubjects(t *testing.T) {
	for _, c := range []struct {
		name, deed string
		requests   string
		status     int
		signal     syscall.Signal
	}{
		{Extension, "none", "register next", 0, 0},
		{Extension, "getppid 10", "register next", 0, 0},
		{Extension, "pages 3", "register next", 0, 0},
		{Extension, "sleep 1", "register next", 0, 0},
		{Extension, "crash", "register", 0, syscall.SIGSEGV},
		{Extension, "exit", "register", 0, 0},
		{Extension, "exit 7", "register", 7, 0},
		{Extension, "init-error", "register error", 1, 0},
		{Extension, "fork", "register next", 0, 0},
		{Extension, "print 1", "register next", 0, 0},
		{Extension, "kill-group", "register", 0, syscall.SIGKILL},
		{ExtensionStatic, "none", "register next", 0, 0},
		{Script, "getppid", "register next", 0, 0},
		{GoExtension, "", "register telemetry next", 0, 0},
		{GoStripped, "", "register telemetry next", 0, 0},
	} {
		t.Run(strings.TrimSpace(c.name+" "+c.deed), func(t *testing.T) {
			api, seen := environment(t)
			cmd := exec.Command(Build(t, c.name), strings.Fields(c.deed)...)
			cmd.Env = []string{"AWS_LAMBDA_RUNTIME_API=" + api, "PATH=/usr/bin:/bin"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			err := cmd.Run()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if c.signal != 0 {
				if !status.Signaled() || status.Signal() != c.signal {
					t.Errorf("ended with %v, want signal %v", err, c.signal)
				}
			} else if status.ExitStatus() != c.status || status.Signaled() {
				t.Errorf("ended with %v, want status %d", err, c.status)
			}
			if got := seen(); got != c.requests {
				t.Errorf("requests %q, want %q", got, c.requests)
			}
		})
	}
}

func TestUnknownSubject(t *testing.T) {
	if _, err := Compile(t.TempDir(), "nobody", Options{}); err == nil {
		t.Error("a program that does not exist was built")
	}
}

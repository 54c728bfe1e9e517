// Command costs measures what initprof bench does not: the size of a binary, the
// time of its package inits, and its memory while it waits in its first next.
// Its arguments are NAME=PATH, each with variables of its environment after a
// comma: NAME=PATH,KEY=VALUE,…
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runs is how often each program is started; medians are printed.
const runs = 15

func main() {
	fmt.Println("| program | size KB | package inits | package-init µs | RSS at /next KB | of it anonymous KB |\n|---|---|---|---|---|---|")
	for _, arg := range os.Args[1:] {
		name, rest, ok := strings.Cut(arg, "=")
		if !ok {
			fail(fmt.Errorf("%q is not NAME=PATH", arg))
		}
		words := strings.Split(rest, ",")
		if err := row(name, words[0], words[1:]); err != nil {
			fail(fmt.Errorf("%s: %w", name, err))
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "costs:", err)
	os.Exit(1)
}

func row(name, path string, env []string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var inits, micros, resident, anonymous []int
	for range runs {
		s, err := start(path, env)
		for attempt := 0; err != nil && attempt < 50; attempt++ { // port 8999 may be another extension's
			time.Sleep(100 * time.Millisecond)
			s, err = start(path, env)
		}
		if err != nil {
			return err
		}
		inits, micros = append(inits, s.inits), append(micros, s.micros)
		resident, anonymous = append(resident, s.resident), append(anonymous, s.anonymous)
	}
	fmt.Printf("| %s | %d | %d | %d | %d | %d |\n", name, info.Size()>>10, median(inits), median(micros), median(resident), median(anonymous))
	return nil
}

func median(v []int) int {
	slices.Sort(v)
	return v[len(v)/2]
}

type sample struct {
	inits, micros       int
	resident, anonymous int // KB
}

// start runs the program until it waits in next, looks at it, and ends it.
func start(path string, env []string) (s sample, err error) {
	waits, end := make(chan struct{}), make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/register"):
			w.Header().Set("Lambda-Extension-Identifier", "id")
			_, _ = w.Write([]byte(`{"functionName":"f"}`))
		case strings.HasSuffix(r.URL.Path, "/event/next"):
			close(waits)
			<-end
			_, _ = fmt.Fprintf(w, `{"eventType":"SHUTDOWN","deadlineMs":%d}`, time.Now().Add(2*time.Second).UnixMilli())
		}
	}))
	defer api.Close()
	var trace bytes.Buffer
	cmd := exec.Command(path)
	cmd.Stderr = &trace
	cmd.Env = append(env, "GODEBUG=inittrace=1", "AWS_LAMBDA_RUNTIME_API="+api.Listener.Addr().String())
	for _, name := range []string{"DD_APM_RECEIVER_PORT", "DD_DOGSTATSD_PORT", "INITPROF_EXTENSION_LIFECYCLE_PORT"} {
		port, err := freePort()
		if err != nil {
			return s, err
		}
		cmd.Env = append(cmd.Env, name+"="+port)
	}
	if err := cmd.Start(); err != nil {
		return s, err
	}
	var how error
	ended := make(chan struct{})
	go func() {
		how = cmd.Wait()
		close(ended)
	}()
	select {
	case <-waits:
		s.resident, s.anonymous, err = memory(cmd.Process.Pid)
		close(end)
		<-ended
	case <-ended:
		err = fmt.Errorf("it ended before it asked for an event: %v: %s", how, trace.String())
	case <-time.After(10 * time.Second):
		err = fmt.Errorf("it does not ask for an event")
		_ = cmd.Process.Kill()
		<-ended
	}
	// init net/http @1.2 ms, 0.045 ms clock, 3200 bytes, 31 allocs
	for line := range strings.Lines(trace.String()) {
		f := strings.Fields(line)
		if len(f) > 4 && f[0] == "init" {
			ms, _ := strconv.ParseFloat(f[4], 64)
			s.inits, s.micros = s.inits+1, s.micros+int(ms*1000)
		}
	}
	return s, err
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func memory(pid int) (resident, anonymous int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmRSS:":
			resident, err = strconv.Atoi(f[1])
		case "RssAnon:":
			anonymous, err = strconv.Atoi(f[1])
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return resident, anonymous, nil
}

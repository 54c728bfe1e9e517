package load

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The load that issue 6 asks for. How fast the machine is decides how much of it
// is sent in the time; the test asserts on what becomes of it.
const (
	packetsPerSecond = 100000
	tracesPerSecond  = 1000
)

// maxRSS is what the extension may take at its peak.
const maxRSS = 64 << 20

func seconds(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("INITPROF_LOAD_SECONDS")
	if text == "" {
		return time.Second
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal("INITPROF_LOAD_SECONDS:", err)
	}
	return time.Duration(n) * time.Second
}

// TestLoad sends metrics and traces to the extension's program, each beside
// another intake, and accounts for every one of them.
func TestLoad(t *testing.T) {
	program := compile(t)
	for _, c := range []struct {
		name   string
		answer int64 // 0: none
		delay  time.Duration
		later  int64 // answer from the middle of the load on
		down   bool
		whole  bool // everything arrives in the end
	}{
		{name: "works", answer: 202, whole: true},
		{name: "slow", answer: 202, delay: 300 * time.Millisecond, whole: true},
		{name: "recovers from 500", answer: 500, later: 202, whole: true},
		{name: "recovers from 429", answer: 429, later: 202, whole: true},
		{name: "500", answer: 500},
		{name: "429", answer: 429},
		{name: "silent", answer: 0},
		{name: "down", down: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := &intake{t: t, delay: c.delay, counts: map[string]float64{}}
			fake.answer.Store(c.answer)
			server := httptest.NewServer(fake)
			defer server.Close()
			if c.down {
				server.Close()
			}
			r := run(t, program, server.URL, func() {
				if c.later != 0 {
					fake.answer.Store(c.later)
				}
			})
			fake.mu.Lock()
			defer fake.mu.Unlock()
			dropped := number(r.log, " datagrams were dropped")
			t.Logf("%d packets and %d traces in %v: %d packets dropped by the kernel, %d traces refused; %.0f packets and %d traces arrived in %d requests; peak RSS %d MB, SHUTDOWN %v, CPU %v",
				r.packets, r.traces, r.took.Round(time.Millisecond), dropped, r.refused, fake.counts["load.packets"], fake.spans, fake.requests, r.rss>>20, r.shutdown.Round(time.Millisecond), r.cpu.Round(10*time.Millisecond))
			if c.whole {
				if got := int(fake.counts["load.packets"]); got+dropped != r.packets {
					t.Errorf("%d packets arrived and %d were dropped of %d", got, dropped, r.packets)
				}
				if fake.spans+r.refused != r.traces {
					t.Errorf("%d traces arrived and %d were refused of %d", fake.spans, r.refused, r.traces)
				}
				if r.status != 0 {
					t.Errorf("exit status %d", r.status)
				}
			} else if r.status != 1 || number(r.log, " requests could not be sent") == 0 {
				t.Errorf("exit status %d, and nothing is said of what was lost", r.status)
			}
			if r.rss > maxRSS {
				t.Errorf("%d MB were used", r.rss>>20)
			}
			if r.shutdown > 3*time.Second { // 2 s, on a machine that has nothing else to do
				t.Errorf("SHUTDOWN took %v", r.shutdown)
			}
			for _, line := range []string{"buffer is full", "were refused"} {
				if n := strings.Count(r.log, line); n > 3 { // one a server
					t.Errorf("%q was logged %d times", line, n)
				}
			}
			if t.Failed() {
				t.Log(r.log)
			}
		})
	}
}

func compile(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "initprof-extension")
	build := exec.Command("go", "build", "-o", program, "../../cmd/initprof-extension")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestTermination: a SIGTERM, which Lambda sends where no SHUTDOWN can be taken,
// flushes as SHUTDOWN does.
func TestTermination(t *testing.T) {
	fake := &intake{t: t, counts: map[string]float64{}}
	fake.answer.Store(http.StatusAccepted)
	server := httptest.NewServer(fake)
	defer server.Close()
	p := start(t, compile(t), server.URL)
	conn, err := net.Dial("udp", "127.0.0.1:"+p.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprint(conn, "last:1|c")
	time.Sleep(time.Second) // it takes signals once its request for an event is on its way
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait(t)
	fake.mu.Lock()
	defer fake.mu.Unlock()
	if status := p.cmd.ProcessState.ExitCode(); status != 0 || fake.counts["last"] != 1 {
		t.Errorf("exit status %d, %v arrived\n%s", status, fake.counts, p.log.String())
	}
}

// process is the extension's program in an environment of its own.
type process struct {
	cmd      *exec.Cmd
	env      *environment
	udp, tcp string // ports
	log      bytes.Buffer
	exited   chan struct{}
}

// start starts the program, and returns when it has asked for its first event.
func start(t *testing.T, program, intakeURL string) *process {
	t.Helper()
	p := &process{env: &environment{ended: make(chan struct{})}, udp: freePort(t), tcp: freePort(t), exited: make(chan struct{})}
	api := httptest.NewServer(p.env)
	p.cmd = exec.Command(program)
	p.cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(), "DD_API_KEY=0123456789abcdef",
		"DD_DD_URL=" + intakeURL, "DD_APM_DD_URL=" + intakeURL, "DD_LOGS_CONFIG_LOGS_DD_URL=" + intakeURL,
		"DD_DOGSTATSD_PORT=" + p.udp, "DD_APM_RECEIVER_PORT=" + p.tcp, "INITPROF_EXTENSION_LIFECYCLE_PORT=" + freePort(t),
		"DD_SERVERLESS_FLUSH_STRATEGY=periodically,200", "DD_FLUSH_TIMEOUT=2",
	}
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.env.end() // else the request for the next event would keep the server
		api.Close()
	})
	for i := 0; ; i++ {
		p.env.mu.Lock()
		ready := p.env.nexts > 0
		p.env.mu.Unlock()
		if ready {
			return p
		}
		if i == 1000 {
			t.Fatal("the extension does not ask for an event")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *process) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the extension does not end")
	}
}

type result struct {
	packets, traces, refused int
	took, shutdown, cpu      time.Duration
	rss                      int64
	status                   int
	log                      string
}

// run starts the extension, sends the load, and shuts it down. half is called in
// the middle.
func run(t *testing.T, program, intakeURL string, half func()) (r result) {
	t.Helper()
	p := start(t, program, intakeURL)
	begin := time.Now()
	middle := time.AfterFunc(seconds(t)/2, half)
	defer middle.Stop()
	var wait sync.WaitGroup
	wait.Go(func() { r.packets = sendPackets(t, p.udp, seconds(t)) })
	wait.Go(func() { r.traces, r.refused = sendTraces(t, p.tcp, seconds(t)) })
	wait.Wait()
	r.took = time.Since(begin)

	p.env.end()
	p.wait(t)
	p.env.mu.Lock()
	r.shutdown = time.Since(p.env.shutdown)
	p.env.mu.Unlock()
	state := p.cmd.ProcessState
	r.status, r.rss, r.cpu = state.ExitCode(), peak(state), state.UserTime()+state.SystemTime()
	r.log = p.log.String()
	return r
}

// sendPackets sends datagrams of one count each, at an even pace.
func sendPackets(t *testing.T, port string, length time.Duration) (sent int) {
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = conn.Close() }()
	packet := []byte("load.packets:1|c|#kind:test,country:se,customer:42")
	start := time.Now()
	for elapsed := time.Duration(0); elapsed < length; elapsed = time.Since(start) {
		due := int(elapsed.Seconds() * packetsPerSecond)
		if sent >= due {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		if _, err := conn.Write(packet); err == nil {
			sent++
		}
	}
	return sent
}

// sendTraces sends requests of one span each, on a few connections.
func sendTraces(t *testing.T, port string, length time.Duration) (sent, refused int) {
	// [[{name: "n", service: "s", trace_id: 1, span_id: 2}]]
	body := "\x91\x91\x84\xa4name\xa1n\xa7service\xa1s\xa8trace_id\x01\xa7span_id\x02"
	const connections = 4
	var mu sync.Mutex
	var wait sync.WaitGroup
	start := time.Now()
	for range connections {
		client := &http.Client{Transport: &http.Transport{}}
		wait.Go(func() {
			defer client.CloseIdleConnections()
			for n := 0; time.Since(start) < length; {
				if float64(n) >= time.Since(start).Seconds()*tracesPerSecond/connections {
					time.Sleep(time.Millisecond)
					continue
				}
				n++
				resp, err := client.Post("http://127.0.0.1:"+port+"/v0.4/traces", "application/msgpack", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				mu.Lock()
				sent++
				if resp.StatusCode != http.StatusOK {
					refused++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return sent, refused
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/DataDog/agent-payload/v5/gogen"
	"github.com/DataDog/datadog-agent/pkg/proto/pbgo/trace"
	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	_ "github.com/initprof/initprof/extension/boot" // keeps in go.mod what building the program needs
	"github.com/initprof/initprof/extension/dogstatsd"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/profiler/sandbox"
)

// intake is a fake of Datadog's intakes that decodes the real formats.
type intake struct {
	mu     sync.Mutex
	errs   []error
	series []series
	dists  []gogen.SketchPayload_Sketch
	spans  []*trace.Span
	logs   []logLine
	keys   []string
}

type series struct {
	Metric string            `json:"metric"`
	Type   json.RawMessage   `json:"type"`
	Points []json.RawMessage `json:"points"`
	Tags   []string          `json:"tags"`
}

type logLine struct {
	Message struct {
		Message string `json:"message"`
		Lambda  struct {
			RequestID string `json:"request_id"`
		} `json:"lambda"`
	} `json:"message"`
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.take(r); err != nil {
		i.errs = append(i.errs, fmt.Errorf("%s: %w", r.URL.Path, err))
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (i *intake) take(r *http.Request) error {
	i.keys = append(i.keys, r.Header.Get("DD-API-KEY"))
	if e := r.Header.Get("Content-Encoding"); e != "zstd" {
		return fmt.Errorf("an encoding of %q", e)
	}
	z, err := zstd.NewReader(r.Body)
	if err != nil {
		return err
	}
	defer z.Close()
	body, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	var list struct{ Series []series }
	switch r.URL.Path {
	case "/api/v2/series":
		err = json.Unmarshal(body, &list)
		i.series = append(i.series, list.Series...)
	case "/api/beta/sketches":
		var p gogen.SketchPayload
		err = p.Unmarshal(body)
		i.dists = append(i.dists, p.Sketches...)
	case "/api/v2/logs":
		var lines []logLine
		err = json.Unmarshal(body, &lines)
		i.logs = append(i.logs, lines...)
	case "/api/v0.2/traces":
		var p trace.AgentPayload
		err = proto.Unmarshal(body, &p)
		for _, t := range p.TracerPayloads {
			if t.LanguageName != "go" || t.TracerVersion == "" || !strings.Contains(t.Tags["_dd.tags.function"], "functionname:") {
				err = fmt.Errorf("a tracer payload of %q %q with tags %q", t.LanguageName, t.TracerVersion, t.Tags)
			}
			for _, c := range t.Chunks {
				if c.Priority < 1 {
					err = fmt.Errorf("a trace of priority %d", c.Priority)
				}
				i.spans = append(i.spans, c.Spans...)
			}
		}
	default:
		err = fmt.Errorf("no such intake")
	}
	return err
}

func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestFunctionInSandbox runs a function on aws-lambda-go with the extension
// beside it, through INIT, three invokes and SHUTDOWN.
func TestFunctionInSandbox(t *testing.T) {
	extension := build(t, "github.com/initprof/initprof/extension/cmd/initprof-extension")
	function := build(t, "./function")
	fake := &intake{}
	server := httptest.NewServer(fake)
	defer server.Close()

	config := sandbox.Config{Extensions: []string{"initprof-extension"}, ExternalRuntime: true, StrictNames: true}
	env, err := sandbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go env.Serve(listener)
	defer env.Close()
	environ := []string{
		"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String(), "DD_API_KEY=0123456789abcdef", "PATH=/usr/bin:/bin",
		"DD_DD_URL=" + server.URL, "DD_APM_DD_URL=" + server.URL, "DD_LOGS_CONFIG_LOGS_DD_URL=" + server.URL,
		"DD_DOGSTATSD_PORT=" + freePort(t), "DD_APM_RECEIVER_PORT=" + freePort(t), "DD_ENV=test", "DD_LOG_LEVEL=debug",
		"INITPROF_EXTENSION_LIFECYCLE_PORT=" + freePort(t),
		"AWS_LAMBDA_FUNCTION_NAME=function", "_HANDLER=bootstrap", "AWS_REGION=us-east-1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1024",
	}
	var out bytes.Buffer
	start := func(path, name string) *exec.Cmd {
		cmd := exec.Command(path)
		cmd.Env = environ
		pipe, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = writer, writer
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = writer.Close()
		go func() {
			lines := bufio.NewScanner(pipe)
			for lines.Scan() {
				fmt.Fprintf(&lockedWriter{&out}, "%s| %s\n", name, lines.Text())
				env.LogLine(name, lines.Text())
			}
			env.ProcessExited(name, cmd.Wait())
		}()
		return cmd
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := env.ReleaseExtension("initprof-extension"); err != nil {
		t.Fatal(err)
	}
	ext := start(extension, "initprof-extension")
	defer ext.Process.Kill()
	select {
	case <-env.Registered():
	case <-ctx.Done():
		t.Fatal("the extension did not register\n", out.String())
	}
	env.ReleaseRuntime()
	fn := start(function, sandbox.Runtime)
	defer fn.Process.Kill()
	select {
	case <-env.InitDone():
	case <-ctx.Done():
		t.Fatal("INIT did not end\n", out.String())
	}
	for range 3 {
		if r := env.Invoke(ctx, []byte(`{"kind":"book"}`)); r.Err != nil || !strings.Contains(string(r.Response), "book") {
			t.Fatalf("%v %s\n%s", r.Err, r.Response, out.String())
		}
	}
	_ = fn.Process.Signal(syscall.SIGTERM)
	env.Shutdown(ctx, sandbox.ReasonSpindown, 2*time.Second)

	fake.mu.Lock()
	defer fake.mu.Unlock()
	for _, err := range fake.errs {
		t.Error(err)
	}
	handled := 0
	for _, s := range fake.series {
		if s.Metric == "orders.handled" && slices.Contains(s.Tags, "kind:book") && slices.Contains(s.Tags, "functionname:function") {
			var p struct{ Value float64 }
			_ = json.Unmarshal(s.Points[0], &p)
			handled += int(p.Value)
		}
	}
	count := map[string]int64{} // of observations of distributions
	for _, d := range fake.dists {
		if !slices.Contains(d.Tags, "functionname:function") {
			t.Errorf("%s has no tags of the function: %q", d.Metric, d.Tags)
		}
		for _, s := range d.Dogsketches {
			count[d.Metric] += s.Cnt
		}
	}
	// The report of the last invocation may come after SHUTDOWN has begun.
	for name, least := range map[string]int64{
		"orders.size": 3, "aws.lambda.enhanced.invocations": 3, "aws.lambda.enhanced.runtime_duration": 3,
		"aws.lambda.enhanced.cpu_total_time": 3, "aws.lambda.enhanced.fd_use": 3, "aws.lambda.enhanced.duration": 1,
	} {
		if count[name] < least || count[name] > 3 {
			t.Errorf("%d observations of %s", count[name], name)
		}
	}
	spans := 0
	for _, s := range fake.spans {
		if s.Name == "handle" && s.Resource == "order" && s.Service == "orders" && s.Meta["kind"] == "book" && s.Meta["_dd.compute_stats"] == "1" {
			spans++
		}
	}
	hello := map[string]bool{}
	for _, l := range fake.logs {
		if l.Message.Message == "the function says hello" {
			hello[l.Message.Lambda.RequestID] = true
		}
	}
	if handled != 3 || spans != 3 || len(hello) != 3 || hello[""] {
		t.Errorf("%d orders, %d spans, lines of requests %v", handled, spans, hello)
	}
	if slices.Contains(fake.keys, "") || strings.Contains(out.String(), "0123456789abcdef") {
		t.Error("the key is missing from a request or stands in the log")
	}
	if strings.Contains(out.String(), "is no end point") {
		t.Error("the tracer asks for something that the agent does not have")
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

var outMutex sync.Mutex

type lockedWriter struct{ w io.Writer }

func (l *lockedWriter) Write(p []byte) (int, error) {
	outMutex.Lock()
	defer outMutex.Unlock()
	return l.w.Write(p)
}

// TestDatadogGo sends every kind of metric with Datadog's client.
func TestDatadogGo(t *testing.T) {
	var out metrics.Aggregator
	var log bytes.Buffer
	s, err := dogstatsd.Listen("127.0.0.1:0", &out, logging.New(&log, logging.Debug))
	if err != nil {
		t.Fatal(err)
	}
	client, err := statsd.New(s.Addr().String(), statsd.WithoutTelemetry(), statsd.WithTags([]string{"all:yes"}),
		statsd.WithExtendedClientSideAggregation())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 0)
	for range 10 {
		for _, err := range []error{
			client.Count("count", 2, []string{"a:1"}, 1), client.Incr("count", []string{"a:1"}, 1),
			client.Gauge("gauge", 1.5, nil, 1), client.Set("set", "member", nil, 1),
			client.Histogram("histogram", 4, nil, 1), client.Distribution("distribution", 5, nil, 1),
			client.Timing("timing", 6*time.Millisecond, nil, 1), client.GaugeWithTimestamp("gauge.at", 7, nil, 1, at),
			client.CountWithTimestamp("count.at", 8, nil, 1, at),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	s.Drain(time.Second)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b := out.Flush()
	got := map[string]float64{}
	for _, p := range b.Points {
		got[p.Name] += p.Value
		if !slices.Contains(p.Tags, "all:yes") {
			t.Errorf("%+v has no constant tag", p)
		}
		if strings.HasSuffix(p.Name, ".at") && p.Time != at.Unix() {
			t.Errorf("%+v is not of %d", p, at.Unix())
		}
	}
	for name, want := range map[string]float64{
		"count": 30, "gauge": 1.5, "set": 1, "histogram.count": 10, "histogram.max": 4, "timing.count": 10, "timing.max": 6,
		"gauge.at": 7, "count.at": 80,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	var sketches []gogen.SketchPayload_Sketch
	b.Sketches(nil, func(body []byte) {
		var p gogen.SketchPayload
		if err := p.Unmarshal(body); err != nil {
			t.Error(err)
		}
		sketches = append(sketches, p.Sketches...)
	})
	if len(sketches) == 0 || sketches[0].Metric != "distribution" || sketches[0].Dogsketches[0].Cnt != 10 || sketches[0].Dogsketches[0].Avg != 5 {
		t.Errorf("%+v", sketches)
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
}

package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/DataDog/datadog-agent/pkg/proto/pbgo/trace"

	"github.com/initprof/initprof/profiler/sandbox"
)

// buildHelper builds the firewall of AppSec as the layer has it.
func buildHelper(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "initprof-appsec-helper")
	cmd := exec.Command("go", "build", "-tags", "appsec", "-o", out, ".")
	cmd.Dir = "../../appsec/helper"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// layer lays the extension and its helper out as Lambda unpacks them below /opt.
func layer(t *testing.T) (extension string) {
	t.Helper()
	opt := t.TempDir()
	extension = filepath.Join(opt, "extensions", "initprof-extension")
	if err := os.Mkdir(filepath.Dir(extension), 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		build(t, "github.com/initprof/initprof/extension/cmd/initprof-extension"): extension,
		buildHelper(t): filepath.Join(opt, "initprof-appsec-helper"),
	} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	return extension
}

// invoke runs a cold start, an invocation for each event, and SHUTDOWN. The
// function finds the Runtime API through the extension's proxy.
func invoke(t *testing.T, extension, function string, environ []string, proxy string, events ...string) (log string) {
	t.Helper()
	const name = "initprof-extension"
	env, err := sandbox.New(sandbox.Config{Extensions: []string{name}, ExternalRuntime: true, StrictNames: true})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = env.Serve(listener) }()
	defer func() { _ = env.Close() }()
	var out bytes.Buffer
	start := func(path, as, api string) *exec.Cmd {
		cmd := exec.Command(path)
		cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + api}, environ...)
		cmd.Stdout, cmd.Stderr = &lockedWriter{&out}, &lockedWriter{&out}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { env.ProcessExited(as, cmd.Wait()) }()
		return cmd
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	wait := func(what string, done <-chan struct{}) {
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatal(what, "\n", out.String())
		}
	}
	if err := env.ReleaseExtension(name); err != nil {
		t.Fatal(err)
	}
	ext := start(extension, name, listener.Addr().String())
	defer func() { _ = ext.Process.Kill() }()
	wait("the extension did not register", env.Registered())
	env.ReleaseRuntime()
	fn := start(function, sandbox.Runtime, proxy)
	defer func() { _ = fn.Process.Kill() }()
	wait("INIT did not end", env.InitDone())
	for _, event := range events {
		if r := env.Invoke(ctx, []byte(event)); r.Err != nil || !strings.Contains(string(r.Response), "404") {
			t.Fatalf("%v %s\n%s", r.Err, r.Response, out.String())
		}
	}
	_ = fn.Process.Signal(syscall.SIGTERM)
	env.Shutdown(ctx, sandbox.ReasonSpindown, 2*time.Second)
	outMutex.Lock()
	defer outMutex.Unlock()
	return out.String()
}

// TestAppSec sends attacks in the events of all four sources of HTTP requests,
// past the real firewall, through the Runtime API proxy, to the spans that a
// function's own tracer made.
func TestAppSec(t *testing.T) {
	extension, function := layer(t), build(t, "./webfunction")
	for _, set := range []string{"", "none", "all"} {
		t.Run("changes="+set, func(t *testing.T) {
			fake := &intake{}
			server := httptest.NewServer(fake)
			defer server.Close()
			proxy := "127.0.0.1:" + freePort(t)
			log := invoke(t, extension, function, []string{
				"DD_API_KEY=0123456789abcdef", "PATH=/usr/bin:/bin", "DD_LOG_LEVEL=debug", "INITPROF_EXTENSION_CHANGES=" + set,
				"DD_DD_URL=" + server.URL, "DD_APM_DD_URL=" + server.URL, "DD_LOGS_CONFIG_LOGS_DD_URL=" + server.URL,
				"DD_DOGSTATSD_PORT=" + freePort(t), "DD_APM_RECEIVER_PORT=" + freePort(t), "INITPROF_EXTENSION_LIFECYCLE_PORT=" + freePort(t),
				"DD_SERVERLESS_APPSEC_ENABLED=true", "AWS_LWA_LAMBDA_RUNTIME_API_PROXY=" + proxy, "DD_APPSEC_WAF_TIMEOUT=1000000",
				"AWS_LAMBDA_FUNCTION_NAME=web", "_HANDLER=bootstrap", "AWS_REGION=us-east-1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1024",
			}, proxy,
				`{"version":"2.0","routeKey":"GET /","rawPath":"/","rawQueryString":"","headers":{"user-agent":"Arachni/v1.5"},
					"requestContext":{"domainName":"http-api.example","http":{"method":"GET","sourceIp":"192.0.2.1"}}}`,
				`{"resource":"/{proxy+}","httpMethod":"GET","path":"/","multiValueHeaders":{"Host":["rest-api.example"]},
					"multiValueQueryStringParameters":{"id":["1' OR 1=1 --"]},"requestContext":{"domainName":"rest-api.example","identity":{"sourceIp":"192.0.2.2"}}}`,
				`{"httpMethod":"POST","path":"/","headers":{"host":"balancer.example","content-type":"application/x-www-form-urlencoded"},
					"body":"ZmlsZT0uLi8uLi8uLi9ldGMvcGFzc3dk","isBase64Encoded":true,"requestContext":{"elb":{}}}`,
				`{"version":"2.0","rawPath":"/","rawQueryString":"","headers":{"content-type":"application/json"},"body":"{\"a\":\"<script>alert(1)</script>\"}",
					"requestContext":{"domainName":"url.lambda-url.example","http":{"method":"POST","sourceIp":"192.0.2.4"}}}`,
				`{"version":"2.0","rawPath":"/shoes","rawQueryString":"size=9","headers":{"user-agent":"Mozilla/5.0"},
					"requestContext":{"domainName":"harmless.example","http":{"method":"GET","sourceIp":"192.0.2.5"}}}`,
				`{"Records":[{"eventSource":"aws:sqs","body":"Arachni/v1.5"}]}`,
			)
			fake.mu.Lock()
			defer fake.mu.Unlock()
			for _, err := range fake.errs {
				t.Error(err)
			}
			kinds := map[string]string{} // of attacks, by domain
			for _, s := range fake.spans {
				if s.Name == "aws.lambda" {
					domain, _, _ := strings.Cut(s.Meta["http.url"], "/")
					kinds[domain] = attack(t, s)
				}
			}
			for domain, want := range map[string]string{
				"http-api.example": "attack_tool", "rest-api.example": "sql_injection", "balancer.example": "lfi",
				"url.lambda-url.example": "xss", "harmless.example": "none", "": "not inspected",
			} {
				if got, ok := kinds[domain]; !ok || !strings.Contains(got, want) {
					t.Errorf("%s: %q, want %s", domain, got, want)
				}
			}
			if len(kinds) != 6 || t.Failed() {
				t.Errorf("spans of %v\n%s", kinds, log)
			}
		})
	}
}

// attack says what a span tells of its request.
func attack(t *testing.T, s *trace.Span) string {
	t.Helper()
	if s.Metrics["_dd.appsec.enabled"] != 1 {
		return "not inspected"
	}
	if s.Meta["http.status_code"] != "404" || s.Meta["_dd.appsec.waf.version"] == "" || s.Meta["_dd.appsec.event_rules.version"] == "" {
		t.Errorf("%v", s.Meta)
	}
	if s.Meta["appsec.event"] != "true" {
		return "none"
	}
	var found struct {
		Triggers []struct {
			Rule struct{ Tags struct{ Type string } }
		}
	}
	if err := json.Unmarshal([]byte(s.Meta["_dd.appsec.json"]), &found); err != nil || s.Metrics["_sampling_priority_v1"] != 2 {
		t.Errorf("%v %v %v", err, s.Meta, s.Metrics)
	}
	var kinds []string
	for _, trigger := range found.Triggers {
		kinds = append(kinds, trigger.Rule.Tags.Type)
	}
	return strings.Join(kinds, " ")
}

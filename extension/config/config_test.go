package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/initprof/initprof/extension/logging"
)

func load(t *testing.T, file string, env map[string]string) (*Config, error) {
	t.Helper()
	root := t.TempDir()
	if file != "" {
		if err := os.WriteFile(filepath.Join(root, "datadog.yaml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(func(name string) string {
		if name == "LAMBDA_TASK_ROOT" {
			return root
		}
		return env[name]
	})
}

// TestPrecedence sets each setting nowhere, in the file, and in both the file and
// the environment.
func TestPrecedence(t *testing.T) {
	const file = `
api_key: fromfile0000
site: datadoghq.eu
dd_url: http://127.0.0.1:1/
apm_config: {apm_dd_url: "http://127.0.0.1:2", receiver_port: 2002}
logs_config:
  logs_dd_url: intake.example
env: file
service: file
version: 1.10
tags: [a:b, c:d]
extra_tags:
  - e:f
log_level: debug
serverless_logs_enabled: false
enhanced_metrics: off
skip_ssl_validation: yes
tls_cert_file: /file.pem
proxy:
  https: http://proxy.file
  no_proxy: [a.example, b.example]
dogstatsd_port: 2001
lifecycle_port: 2003
flush_timeout: 2.5
serverless_flush_strategy: end
serverless_appsec_enabled: true
appsec_rules: /file.json
appsec_waf_timeout: 7000
unknown: [setting]
`
	env := map[string]string{
		"DD_API_KEY": " fromenvironment\n", "DD_SITE": "us5.datadoghq.com", "DD_DD_URL": "http://127.0.0.1:11", "DD_APM_DD_URL": "http://127.0.0.1:12",
		"DD_LOGS_CONFIG_LOGS_DD_URL": "http://127.0.0.1:13", "DD_ENV": "environment", "DD_SERVICE": "environment", "DD_VERSION": "2",
		"DD_TAGS": "g:h i:j", "DD_EXTRA_TAGS": "k:l,m:n", "DD_LOG_LEVEL": "error", "DD_SERVERLESS_LOGS_ENABLED": "true", "DD_ENHANCED_METRICS": "TRUE",
		"DD_SKIP_SSL_VALIDATION": "0", "DD_TLS_CERT_FILE": "/env.pem", "DD_PROXY_HTTPS": "http://proxy.env", "HTTPS_PROXY": "http://not.this",
		"DD_PROXY_NO_PROXY": "c.example d.example", "DD_DOGSTATSD_PORT": "3001", "DD_APM_RECEIVER_PORT": "3002",
		"INITPROF_EXTENSION_LIFECYCLE_PORT": "3003", "DD_FLUSH_TIMEOUT": "7", "DD_SERVERLESS_FLUSH_STRATEGY": "periodically,500",
		"DD_SERVERLESS_APPSEC_ENABLED": "false", "DD_APPSEC_RULES": "/env.json", "DD_APPSEC_WAF_TIMEOUT": "8000",
	}
	defaults := Config{
		Site: "datadoghq.com", MetricsURL: "https://api.datadoghq.com", TracesURL: "https://trace.agent.datadoghq.com",
		LogsURL: "https://http-intake.logs.datadoghq.com", LogLevel: logging.Warn, LogsEnabled: true, EnhancedMetrics: true,
		FlushTimeout: 5 * time.Second, FlushStrategy: FlushStrategy{"adaptive", 10 * time.Second}, ListenHost: "127.0.0.1",
		DogStatsDPort: 8125, TracePort: 8126, LifecyclePort: 8124, AppSecBudget: 5 * time.Millisecond,
	}
	fromFile := Config{
		APIKey: "fromfile0000", Site: "datadoghq.eu", MetricsURL: "http://127.0.0.1:1", TracesURL: "http://127.0.0.1:2", LogsURL: "https://intake.example",
		Env: "file", Service: "file", Version: "1.10", Tags: []string{"a:b", "c:d", "e:f"}, LogLevel: logging.Debug,
		FlushTimeout: 2500 * time.Millisecond, FlushStrategy: FlushStrategy{"end", 10 * time.Second}, ProxyHTTPS: "http://proxy.file",
		NoProxy: []string{"a.example", "b.example"}, SkipTLSVerify: true, CAFile: "/file.pem", ListenHost: "127.0.0.1",
		DogStatsDPort: 2001, TracePort: 2002, LifecyclePort: 2003, AppSec: true, AppSecRules: "/file.json", AppSecBudget: 7 * time.Millisecond,
	}
	fromEnv := Config{
		APIKey: "fromenvironment", Site: "us5.datadoghq.com", MetricsURL: "http://127.0.0.1:11", TracesURL: "http://127.0.0.1:12", LogsURL: "http://127.0.0.1:13",
		Env: "environment", Service: "environment", Version: "2", Tags: []string{"g:h", "i:j", "k:l", "m:n"}, LogLevel: logging.Error,
		LogsEnabled: true, EnhancedMetrics: true, FlushTimeout: 7 * time.Second, FlushStrategy: FlushStrategy{"periodically", 500 * time.Millisecond},
		ProxyHTTPS: "http://proxy.env", NoProxy: []string{"c.example", "d.example"}, CAFile: "/env.pem", ListenHost: "127.0.0.1",
		DogStatsDPort: 3001, TracePort: 3002, LifecyclePort: 3003, AppSecRules: "/env.json", AppSecBudget: 8 * time.Millisecond,
	}
	for name, c := range map[string]struct {
		file string
		env  map[string]string
		want Config
	}{
		"neither": {"", nil, defaults}, "file": {file, nil, fromFile}, "file and environment": {file, env, fromEnv}, "environment": {"", env, fromEnv},
	} {
		got, err := load(t, c.file, c.env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name != "neither" && len(got.Problems) > 0 {
			t.Errorf("%s: %q", name, got.Problems)
		}
		if diff := cmp.Diff(&c.want, got, cmpopts.IgnoreFields(Config{}, "Problems")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if s := fmt.Sprintf("%v %+v %#v %s", got, *got, *got, got.APIKey); c.want.APIKey != "" && strings.Contains(s, string(c.want.APIKey)) {
			t.Errorf("%s: the key is printed", name)
		}
	}
}

// TestMistakes: what can be ignored is named and ignored.
func TestMistakes(t *testing.T) {
	cfg, err := load(t, "tags: {a: b}\nenv: [x]\n", map[string]string{
		"DD_LOG_LEVEL": "loud", "DD_SERVERLESS_FLUSH_STRATEGY": "sometimes", "DD_ENHANCED_METRICS": "maybe", "DD_FLUSH_TIMEOUT": "-1",
		"DD_API_KEY": "two words", "DD_DOGSTATSD_PORT": "65536", "DD_APM_RECEIVER_PORT": "http",
		"DD_APPSEC_WAF_TIMEOUT": "5ms",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"DD_LOG_LEVEL", "DD_SERVERLESS_FLUSH_STRATEGY", "DD_ENHANCED_METRICS", "DD_FLUSH_TIMEOUT", "DD_API_KEY", "DD_DOGSTATSD_PORT", "DD_APM_RECEIVER_PORT",
		"DD_APPSEC_WAF_TIMEOUT",
	} {
		if n := strings.Count(strings.Join(cfg.Problems, "\n"), name+":") + strings.Count(strings.Join(cfg.Problems, "\n"), name+" has"); n != 1 {
			t.Errorf("%s is named %d times in %q", name, n, cfg.Problems)
		}
	}
	if cfg.APIKey != "" || cfg.DogStatsDPort != 8125 || cfg.FlushStrategy.Mode != "adaptive" || cfg.LogLevel != logging.Warn || !cfg.EnhancedMetrics {
		t.Errorf("%+v", cfg)
	}
	if strings.Contains(strings.Join(cfg.Problems, ""), "two words") {
		t.Errorf("the key is printed: %q", cfg.Problems)
	}
}

// TestErrors: without these nothing could be sent right.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		env  map[string]string
		want string
	}{
		"malformed file":    {"a: [", nil, "datadog.yaml"},
		"file is a list":    {"- a", nil, "mapping"},
		"address":           {"", map[string]string{"DD_DD_URL": "ftp://x"}, "DD_DD_URL"},
		"address of a user": {"", map[string]string{"DD_APM_DD_URL": "ftp://me:password@x"}, "[hidden]@x"},
		"site":              {"", map[string]string{"DD_SITE": "https://app.datadoghq.eu"}, "DD_SITE"},
	} {
		if _, err := load(t, c.file, c.env); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("site: datadoghq.eu\ntags: [a:b]\napm_config: {apm_dd_url: http://x}\nproxy:\n  no_proxy: [a]\n", "periodically,100", "a:b, c:d")
	f.Add("- a", "", "")
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, file, value, list string) {
		if err := os.WriteFile(filepath.Join(root, "datadog.yaml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(func(name string) string {
			switch name {
			case "LAMBDA_TASK_ROOT":
				return root
			case "DD_TAGS", "DD_PROXY_NO_PROXY":
				return list
			case "DD_DD_URL", "HTTPS_PROXY":
				return ""
			}
			return value
		})
		if err == nil && (cfg.FlushTimeout <= 0 || cfg.FlushStrategy.Interval <= 0 || cfg.DogStatsDPort < 0 || cfg.DogStatsDPort > 65535 || cfg.Site == "") {
			t.Errorf("%+v", cfg)
		}
	})
}

func TestStrategy(t *testing.T) {
	for text, want := range map[string]FlushStrategy{
		"end": {"end", 10 * time.Second}, "periodically,500": {"periodically", 500 * time.Millisecond},
		"continuously,60000": {"periodically", time.Minute}, "default": {"adaptive", 10 * time.Second},
	} {
		if got, err := parseStrategy(text); err != nil || got != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

func TestPrecedence(t *testing.T) {
	cfg, err := load(t, "site: datadoghq.eu\nenv: file\nservice: file\ntags:\n  - a:b\napm_config:\n  apm_dd_url: http://127.0.0.1:1/\n",
		map[string]string{"DD_ENV": "variable", "DD_API_KEY": "secretsecret", "DD_EXTRA_TAGS": "c:d,e:f"})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{cfg.Env, cfg.Service, cfg.Tags, cfg.MetricsURL, cfg.TracesURL, len(cfg.Problems)}
	want := []any{"variable", "file", []string{"a:b", "c:d", "e:f"}, "https://api.datadoghq.eu", "http://127.0.0.1:1", 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", cfg, *cfg, *cfg, cfg.APIKey); strings.Contains(s, "secretsecret") {
		t.Error("the key is printed")
	}
}

func TestMistakes(t *testing.T) {
	cfg, err := load(t, "", map[string]string{
		"DD_LOG_LEVEL": "loud", "DD_SERVERLESS_FLUSH_STRATEGY": "sometimes",
		"DD_ENHANCED_METRICS": "maybe", "DD_FLUSH_TIMEOUT": "-1",
	})
	if err != nil || len(cfg.Problems) != 5 { // and no key
		t.Errorf("%v %q", err, cfg.Problems)
	}
	if _, err := load(t, "a: [", nil); err == nil {
		t.Error("a malformed file is accepted")
	}
	if _, err := load(t, "", map[string]string{"DD_DD_URL": "ftp://x"}); err == nil {
		t.Error("an ftp address is accepted")
	}
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

package main

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/initprof/initprof/extension/proxy"
)

func TestLayer(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("binary", []byte("\x7fELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{"a.zip", "b.zip"} {
		if err := run(out, []string{"extensions/ext=binary"}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile("a.zip")
	if b, _ := os.ReadFile("b.zip"); string(a) != string(b) {
		t.Error("two layers of the same file differ")
	}
	z, err := zip.OpenReader("a.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	if f := z.File[0]; f.Name != "extensions/ext" || f.Mode() != 0o755 {
		t.Errorf("%s %v", f.Name, f.Mode())
	}
	for _, bad := range []string{"x", "/x=binary", "../x=binary", "x=nowhere"} {
		if err := run("c.zip", []string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if left, _ := filepath.Glob(".layer-*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

// The wrapper and the extension agree on when there is a proxy, and where.
func TestWrapper(t *testing.T) {
	for appsec, want := range map[string]string{"": "the API", "false": "the API", "true": proxy.Address, "TRUE": proxy.Address, "1": proxy.Address, "yes": "the API"} {
		cmd := exec.Command("./datadog_wrapper", "sh", "-c", `echo "$AWS_LAMBDA_RUNTIME_API $1 $2"`, "-", "a b", "c")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "AWS_LAMBDA_RUNTIME_API=the API", "DD_SERVERLESS_APPSEC_ENABLED=" + appsec}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want+" a b c\n" {
			t.Errorf("%q: %v %s, want %s", appsec, err, out, want)
		}
		at, err := proxy.Wanted(func(name string) string {
			return map[string]string{"DD_SERVERLESS_APPSEC_ENABLED": appsec, "AWS_LAMBDA_EXEC_WRAPPER": proxy.Wrapper}[name]
		})
		if (at == proxy.Address) != (want == proxy.Address) || err != nil {
			t.Errorf("%q: the extension listens at %q, %v", appsec, at, err)
		}
	}
}

package tags

import (
	"runtime"
	"slices"
	"testing"

	"github.com/initprof/initprof/extension/config"
)

func TestMake(t *testing.T) {
	env := map[string]string{"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024", "AWS_EXECUTION_ENV": "AWS_Lambda_provided.al2023"}
	got := Make(&config.Config{Env: "prod", Tags: []string{"team:a", "bare", "env:prod"}},
		"arn:aws:lambda:eu-west-1:123456789012:function:Orders", func(name string) string { return env[name] })
	for _, want := range []string{
		"env:prod", "team:a", "functionname:orders", "region:eu-west-1", "account_id:123456789012",
		"memorysize:1024", "runtime:provided.al2023", "function_arn:arn:aws:lambda:eu-west-1:123456789012:function:orders",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if slices.Contains(got, "bare") || runtime.GOARCH == "amd64" && !slices.Contains(got, "architecture:x86_64") {
		t.Errorf("%q", got)
	}
	if n := len(Make(&config.Config{}, "", func(string) string { return "" })); n != 1 {
		t.Errorf("%d tags from nothing", n)
	}
}

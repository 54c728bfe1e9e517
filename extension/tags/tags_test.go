package tags

import (
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/extension/config"
)

func TestMake(t *testing.T) {
	const arn = "arn:aws:lambda:eu-west-1:123456789012:function:Orders"
	environment := func(more ...string) func(string) string {
		env := map[string]string{"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}
		for i := 0; i < len(more); i += 2 {
			env[more[i]] = more[i+1]
		}
		return func(name string) string { return env[name] }
	}
	architecture := "architecture:" + map[string]string{"amd64": "x86_64", "arm64": "arm64"}[runtime.GOARCH]
	arnTags := []string{
		"account_id:123456789012", "aws_account:123456789012", "function_arn:arn:aws:lambda:eu-west-1:123456789012:function:orders", "functionname:orders",
	}
	for name, c := range map[string]struct {
		cfg    config.Config
		f      Function
		getenv func(string) string
		want   []string
	}{
		"settings": {
			config.Config{Env: "prod", Service: "s", Version: "1", Tags: []string{"team:a", "bare", "env:prod"}},
			Function{ARN: arn},
			environment(),
			append([]string{"env:prod", "service:s", "version:1"}, append(slices.Clone(arnTags),
				"resource:orders", "region:eu-west-1", "memorysize:1024", architecture, "init_type:on-demand", "team:a")...),
		},
		"an alias": {
			config.Config{},
			Function{ARN: arn + ":live", Runtime: "nodejs:20.v40"},
			environment("AWS_LAMBDA_FUNCTION_VERSION", "7"),
			append(slices.Clone(arnTags), "resource:orders:live", "executedversion:7", "region:eu-west-1", "memorysize:1024", architecture,
				"runtime:nodejs20.x", "init_type:on-demand"),
		},
		"a version": {
			config.Config{},
			Function{ARN: arn, Runtime: "provided:al2023.v9"},
			environment("AWS_LAMBDA_FUNCTION_VERSION", "7"),
			append(slices.Clone(arnTags), "resource:orders:7", "executedversion:7", "region:eu-west-1", "memorysize:1024", architecture,
				"runtime:provided.al2023", "init_type:on-demand"),
		},
		"the latest": {
			config.Config{},
			Function{ARN: arn + ":$LATEST", Runtime: "python:3.12.v18"},
			environment("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
			append(slices.Clone(arnTags), "resource:orders", "region:eu-west-1", "memorysize:1024", architecture,
				"runtime:python3.12", "init_type:on-demand"),
		},
		"no invocation yet": {
			config.Config{},
			Function{},
			environment("AWS_LAMBDA_FUNCTION_NAME", "Orders", "AWS_REGION", "eu-west-1", "AWS_EXECUTION_ENV", "AWS_Lambda_java21"),
			[]string{"functionname:orders", "resource:orders", "region:eu-west-1", "memorysize:1024", architecture, "runtime:java21", "init_type:on-demand"},
		},
		"nothing": {config.Config{}, Function{ARN: "x", Runtime: "?"}, func(string) string { return "" }, []string{architecture, "runtime:?"}},
	} {
		if diff := cmp.Diff(c.want, Make(&c.cfg, c.f, c.getenv)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Package tags makes the tags that everything sent carries, from the function's
// ARN, the environment and the settings. They are made once, when the first
// invocation is known.
package tags

import (
	"runtime"
	"strings"

	"github.com/initprof/initprof/extension/config"
)

// Make returns the tags of a function. arn may be empty; getenv reads the
// environment that Lambda gave.
func Make(cfg *config.Config, arn string, getenv func(string) string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(key, value string) {
		if value != "" && !seen[key+":"+value] {
			seen[key+":"+value] = true
			out = append(out, key+":"+value)
		}
	}
	add("env", cfg.Env)
	add("service", cfg.Service)
	add("version", cfg.Version)
	name, region, version := getenv("AWS_LAMBDA_FUNCTION_NAME"), getenv("AWS_REGION"), getenv("AWS_LAMBDA_FUNCTION_VERSION")
	// arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION or alias]
	if parts := strings.Split(arn, ":"); len(parts) >= 7 && parts[0] == "arn" {
		region, name = parts[3], parts[6]
		add("account_id", parts[4])
		add("aws_account", parts[4])
		if len(parts) > 7 {
			add("resource", name+":"+parts[7])
			add("executedversion", version)
		}
		add("function_arn", strings.ToLower(strings.Join(parts[:7], ":")))
	}
	name = strings.ToLower(name)
	add("functionname", name)
	add("resource", name)
	add("region", region)
	add("memorysize", getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"))
	architecture := runtime.GOARCH
	if architecture == "amd64" {
		architecture = "x86_64"
	}
	add("architecture", architecture)
	if r := getenv("AWS_EXECUTION_ENV"); r != "" {
		add("runtime", strings.TrimPrefix(r, "AWS_Lambda_"))
	}
	for _, tag := range cfg.Tags {
		if key, value, ok := strings.Cut(tag, ":"); ok {
			add(key, value)
		}
	}
	return out
}

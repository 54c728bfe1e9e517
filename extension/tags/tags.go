// Package tags makes the tags that everything sent carries, from the function's
// ARN, the environment and the settings. They are made once, when the first
// invocation is known.
package tags

import (
	"runtime"
	"strings"

	"github.com/initprof/initprof/extension/config"
)

// Function is what the environment tells of the function while it runs.
type Function struct {
	ARN     string // as invoked, perhaps with a version or an alias
	Runtime string // runtimeVersion of platform.initStart, "python:3.12.v18"
}

// Make returns the tags of a function, of which each part may be unknown; getenv
// reads the environment that Lambda gave.
func Make(cfg *config.Config, f Function, getenv func(string) string) []string {
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
	if version == "$LATEST" {
		version = ""
	}
	qualifier := version
	// arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION or alias]
	if parts := strings.Split(f.ARN, ":"); len(parts) >= 7 && parts[0] == "arn" {
		region, name = parts[3], parts[6]
		add("account_id", parts[4])
		add("aws_account", parts[4])
		if len(parts) > 7 && parts[7] != "$LATEST" {
			qualifier = parts[7]
		}
		add("function_arn", strings.ToLower(strings.Join(parts[:7], ":")))
	}
	name = strings.ToLower(name)
	add("functionname", name)
	if name != "" && qualifier != "" {
		add("resource", name+":"+qualifier)
	} else {
		add("resource", name)
	}
	add("executedversion", version)
	add("region", region)
	add("memorysize", getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"))
	architecture := runtime.GOARCH
	if architecture == "amd64" {
		architecture = "x86_64"
	}
	add("architecture", architecture)
	// Lambda keeps AWS_EXECUTION_ENV from extensions; others may not.
	if r := getenv("AWS_EXECUTION_ENV"); r != "" {
		add("runtime", strings.TrimPrefix(r, "AWS_Lambda_"))
	} else {
		add("runtime", runtimeName(f.Runtime))
	}
	add("init_type", getenv("AWS_LAMBDA_INITIALIZATION_TYPE"))
	for _, tag := range cfg.Tags {
		if key, value, ok := strings.Cut(tag, ":"); ok {
			add(key, value)
		}
	}
	return out
}

// runtimeName makes an identifier as functions are configured with ("python3.12",
// "nodejs20.x", "provided.al2023") of a runtime's version ("python:3.12.v18").
func runtimeName(version string) string {
	if i := strings.LastIndex(version, ".v"); i > 0 {
		version = version[:i]
	}
	name, number, ok := strings.Cut(version, ":")
	switch {
	case !ok:
		return version
	case name == "provided":
		return name + "." + number
	case name == "nodejs":
		return name + number + ".x"
	}
	return name + number
}

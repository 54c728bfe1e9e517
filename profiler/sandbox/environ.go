package sandbox

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Environ is what the environment variables of a process depend on, beside the
// configuration of its environment.
type Environ struct {
	RuntimeAPI string // host:port of this sandbox, as the process reaches it
	TaskRoot   string // LAMBDA_TASK_ROOT of the runtime; default "/var/task"

	// Extra are the user's own variables, as NAME=VALUE. They win over
	// everything but AWS_LAMBDA_RUNTIME_API. Lambda refuses to deploy a
	// function that sets a reserved variable; here it is a means to try things.
	Extra []string
}

// ExtensionEnviron is the environment of an extension, as NAME=VALUE, sorted:
// the function's, less what Lambda keeps for the runtime ("Extensions can
// access the function's environment variables, except for …", Lambda developer
// guide, Extensions API).
func (c Config) ExtensionEnviron(e Environ) []string {
	c.setDefaults()
	return e.list(c.platformVariables())
}

// RuntimeEnviron is the environment of the runtime, as NAME=VALUE, sorted.
func (c Config) RuntimeEnviron(e Environ) []string {
	c.setDefaults()
	all := c.platformVariables()
	maps.Copy(all, c.runtimeVariables(e.TaskRoot))
	return e.list(all)
}

func (c Config) platformVariables() map[string]string {
	return map[string]string{
		"AWS_LAMBDA_FUNCTION_NAME":        c.FunctionName,
		"AWS_LAMBDA_FUNCTION_VERSION":     c.FunctionVersion,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(c.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  c.InitializationType,
		"AWS_REGION":                      c.Region,
		"AWS_DEFAULT_REGION":              c.Region,
		// Credentials that open nothing: programs only look whether they exist.
		"AWS_ACCESS_KEY_ID":     "AKIAIOSFODNN7EXAMPLE",
		"AWS_SECRET_ACCESS_KEY": "sandbox",
		"AWS_SESSION_TOKEN":     "sandbox",
		"LANG":                  "en_US.UTF-8",
		"PATH":                  "/usr/local/bin:/usr/bin:/bin:/opt/bin",
		"TZ":                    ":UTC",
	}
}

func (c Config) runtimeVariables(taskRoot string) map[string]string {
	if taskRoot == "" {
		taskRoot = "/var/task"
	}
	return map[string]string{
		"_HANDLER":                   c.Handler,
		"AWS_EXECUTION_ENV":          "AWS_Lambda_provided.al2023",
		"AWS_LAMBDA_LOG_GROUP_NAME":  "/aws/lambda/" + c.FunctionName,
		"AWS_LAMBDA_LOG_STREAM_NAME": logStream,
		"AWS_XRAY_CONTEXT_MISSING":   "LOG_ERROR",
		"AWS_XRAY_DAEMON_ADDRESS":    "169.254.100.1:2000",
		"_AWS_XRAY_DAEMON_ADDRESS":   "169.254.100.1",
		"_AWS_XRAY_DAEMON_PORT":      "2000",
		"LAMBDA_TASK_ROOT":           taskRoot,
		"LAMBDA_RUNTIME_DIR":         "/var/runtime",
		"LD_LIBRARY_PATH":            "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:" + taskRoot + ":" + taskRoot + "/lib:/opt/lib",
	}
}

// list lays the user's variables over the platform's.
func (e Environ) list(all map[string]string) []string {
	for _, variable := range e.Extra {
		if name, value, ok := strings.Cut(variable, "="); ok && name != "" {
			all[name] = value
		}
	}
	all["AWS_LAMBDA_RUNTIME_API"] = e.RuntimeAPI
	list := make([]string, 0, len(all))
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

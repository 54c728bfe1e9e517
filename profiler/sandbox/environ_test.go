package sandbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func names(variables []string) []string {
	list := make([]string, len(variables))
	for i, v := range variables {
		list[i], _, _ = strings.Cut(v, "=")
	}
	return list
}

func TestEnviron(t *testing.T) {
	c := Config{FunctionName: "f", MemoryMB: 128, InitializationType: ProvisionedConcurrency}
	e := Environ{RuntimeAPI: "127.0.0.1:9001", Extra: []string{"DD_SITE=x=y", "TZ=Europe/Paris", "AWS_LAMBDA_RUNTIME_API=evil", "=", "nonsense"}}
	extension, runtime := c.ExtensionEnviron(e), c.RuntimeEnviron(e)
	for _, list := range [][]string{extension, runtime} {
		for _, want := range []string{
			"AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
			"AWS_LAMBDA_INITIALIZATION_TYPE=provisioned-concurrency", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "DD_SITE=x=y", "TZ=Europe/Paris",
		} {
			if !slices.Contains(list, want) {
				t.Errorf("%s is missing in %q", want, list)
			}
		}
		if !slices.IsSorted(list) || len(slices.Compact(names(list))) != len(list) {
			t.Errorf("not sorted, or twice: %q", list)
		}
	}
	// What Lambda's documents keep from extensions, and the runtime's library path.
	var only []string
	for _, name := range names(runtime) {
		if !slices.Contains(names(extension), name) {
			only = append(only, name)
		}
	}
	want := []string{
		"AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS",
		"LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "LD_LIBRARY_PATH", "_AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_PORT", "_HANDLER",
	}
	slices.Sort(only)
	if diff := cmp.Diff(want, only); diff != "" {
		t.Errorf("the runtime's own variables (-want +got):\n%s", diff)
	}
}

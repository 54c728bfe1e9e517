package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/testdata/subjects"
)

func pythonCommand(t *testing.T) []string {
	return subjects.PythonCommand(subjects.Build(t, subjects.PythonFunction))
}

func nodeCommand(t *testing.T) []string {
	return subjects.NodeCommand(subjects.Build(t, subjects.NodeFunction))
}

// recordRuntime records two cold starts of a runtime and checks what holds for
// each: nothing lost, and phases that tile the window.
func recordRuntime(t *testing.T, command []string) *analysis.Report {
	t.Helper()
	run := filepath.Join(t.TempDir(), "run.initprof")
	args := append([]string{"record", "-q", "-n", "2", "--untraced", "0", "--as", "runtime", "-o", run, "--"}, command...)
	if code, _, errOut := initprof(args...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	r := report(t, run)
	if want := []string{"exec", "loader", "runtime_init", "next"}; !slices.Equal(phases(r), want) {
		t.Errorf("phases %v, want %v", phases(r), want)
	}
	for _, one := range r.Runs {
		if one.LostEvents == nil || *one.LostEvents != 0 || one.ExecToNextNS == nil {
			t.Fatalf("cold start %d: %+v", one.Index, one)
		}
		var sum int64
		for _, p := range one.Phases {
			sum += p.DeltaNS
		}
		if sum != *one.ExecToNextNS {
			t.Errorf("cold start %d: the phases sum to %d ns of %d", one.Index, sum, *one.ExecToNextNS)
		}
	}
	var other int64
	for _, c := range r.Ledger.Cells {
		if c.Category == ledger.Other {
			other += c.NS
		}
	}
	if other > r.Ledger.WallNS/10 {
		t.Errorf("other is %.1f %% of INIT, want at most 10", 100*float64(other)/float64(r.Ledger.WallNS))
	}
	return r
}

// checkImports compares the names of modules, and what must hold of their times.
func checkImports(t *testing.T, r *analysis.Report, want []string) {
	t.Helper()
	var got []string
	var last int64
	for _, i := range r.Imports {
		got = append(got, i.Module)
		if i.StartNS < last || i.StartNS > r.Wall.Max || i.NS != nil && *i.NS <= 0 || i.Opens < 1 {
			t.Errorf("%+v after a start of %d", i, last)
		}
		last = i.StartNS
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (- the interpreter, + initprof):\n%s", diff)
	}
}

// The modules are those that Python itself lists, less those without a file.
func TestPythonRuntime(t *testing.T) {
	needRoot(t)
	command := pythonCommand(t)
	r := recordRuntime(t, command)
	// -m and importlib.import_module are not in the list.
	want := append(pythonImports(t, command), "awslambdaric.__main__", "handler")
	checkImports(t, r, want)
	probes := 0.0
	for _, i := range r.Imports {
		probes += i.Probes
	}
	if probes < 100 {
		t.Errorf("%v calls to find %d modules", probes, len(r.Imports))
	}
}

// pythonImports runs the function outside of initprof, up to its first /next,
// with the list that -X importtime prints, and keeps the modules of files.
func pythonImports(t *testing.T, command []string) (names []string) {
	t.Helper()
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-ended
	}))
	defer api.Close()
	defer close(ended)
	cmd := exec.Command(command[0], append([]string{"-X", "importtime"}, command[1:]...)...)
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(), "PATH=/usr/bin:/bin", "AWS_LAMBDA_FUNCTION_NAME=f",
		"AWS_LAMBDA_FUNCTION_VERSION=1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1024", "LAMBDA_TASK_ROOT=/var/task",
	}
	var list bytes.Buffer
	cmd.Stderr = &list
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Error("it does not ask for an invocation")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	var all []string
	for line := range strings.Lines(list.String()) {
		if f := strings.Split(line, "|"); len(f) == 3 && !strings.Contains(line, "self [us]") {
			all = append(all, strings.TrimSpace(f[2]))
		}
	}
	origin := `
import importlib.util, sys
for name in sys.argv[1:]:
    try: origin = importlib.util.find_spec(name).origin
    except Exception: origin = None
    if origin and origin.startswith("/"): print(name)
`
	out, err := exec.Command(command[0], append([]string{"-c", origin}, all...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// The modules are those that require keeps.
func TestNodeRuntime(t *testing.T) {
	needRoot(t)
	command := nodeCommand(t)
	r := recordRuntime(t, command)
	list := `require(process.argv[1]); console.log(JSON.stringify(Object.keys(require.cache)))`
	out, err := exec.Command(command[0], "-e", list, filepath.Join(filepath.Dir(command[1]), "handler.js")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	if err := json.Unmarshal(out, &files); err != nil {
		t.Fatal(err)
	}
	want := []string{"bootstrap.js"}
	for _, f := range files {
		if _, name, ok := strings.Cut(f, "/node_modules/"); ok {
			want = append(want, name)
		} else {
			want = append(want, filepath.Base(f))
		}
	}
	checkImports(t, r, want)
}

// Up to the first /next, the main thread makes the system calls that strace saw
// in the same run, one for one, and opens the files that strace saw opened.
func TestRuntimeCallsEqualStrace(t *testing.T) {
	needRoot(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, command := range map[string]func(*testing.T) []string{"python": pythonCommand, "node": nodeCommand} {
		t.Run(name, func(t *testing.T) {
			command := command(t)
			dir := t.TempDir()
			log, run := filepath.Join(dir, "strace.log"), filepath.Join(dir, "run.initprof")
			args := append([]string{"record", "-q", "-n", "1", "--untraced", "0", "--as", "runtime", "-o", run, "--", strace, "-f", "-s", "100", "-o", log}, command...)
			if code, _, errOut := initprof(args...); code != 0 {
				t.Fatalf("exit code %d\n%s", code, errOut)
			}
			want := straceCalls(t, log)
			got := mainThreadCalls(t, filepath.Join(run, "events", "001.zst"), command[0])
			for _, calls := range []map[string]int{want, got} { // the call that a return probe makes, whoever set it
				delete(calls, "uretprobe")
				delete(calls, "syscall_0x14f")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("calls and opened files (- strace, + initprof):\n%s", diff)
			}
			if got["openat"] < 10 {
				t.Errorf("only %v", got)
			}
		})
	}
}

// straceCalls counts what the first process of a log did behind its execve, up
// to its request of an invocation.
func straceCalls(t *testing.T, log string) map[string]int {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls := map[string]int{}
	pid := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		process, rest, _ := strings.Cut(lines.Text(), " ")
		rest = strings.TrimSpace(rest)
		if pid == "" {
			pid = process
			continue // execve
		}
		name, arguments, ok := strings.Cut(rest, "(")
		if process != pid || !ok || strings.ContainsAny(name, " <-+") {
			continue
		}
		if strings.Contains(arguments, "/2018-06-01/runtime/invocation/next") {
			return calls
		}
		calls[name]++
		if name == "openat" {
			if f := strings.Split(arguments, `"`); len(f) > 2 {
				calls["openat "+f[1]]++
			}
		}
	}
	t.Fatal("strace saw no request of an invocation")
	return nil
}

// mainThreadCalls counts what the main thread of the program did behind its
// execve, up to its request of an invocation.
func mainThreadCalls(t *testing.T, recording, program string) map[string]int {
	t.Helper()
	raw, err := capture.ReadRecordingFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	if n := raw.Losses.Total(); n != 0 {
		t.Errorf("lost: %+v", raw.Losses)
	}
	events, err := raw.Decode()
	if err != nil {
		t.Fatal(err)
	}
	var began *trace.Exec
	var calls []*trace.Syscall
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Exec:
			if e.Path == program {
				began = e
			}
		case *trace.Syscall:
			calls = append(calls, e)
		}
	}
	if began == nil {
		t.Fatalf("nobody executed %s", program)
	}
	slices.SortStableFunc(calls, func(a, b *trace.Syscall) int { return int(a.Time - b.Time) })
	counts := map[string]int{}
	for _, c := range calls {
		if c.PID != began.PID || c.TID != began.PID || c.Time < began.Time {
			continue
		}
		if c.Request != nil && strings.HasSuffix(c.Request.Path, "/invocation/next") {
			return counts
		}
		name := trace.SyscallName(raw.Arch, c.Number)
		counts[name]++
		if name == "openat" {
			counts[fmt.Sprintf("openat %s", c.Path)]++
		}
	}
	t.Fatal("no request of an invocation was seen")
	return nil
}

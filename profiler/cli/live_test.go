package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/cli"
	"github.com/initprof/initprof/testdata/subjects"
)

// TestMain lets the test binary be initprof.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_MAIN") != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatal("tracing needs root")
	}
	t.Skip("tracing needs root")
}

// initprof runs the command line and returns its exit code and output.
func initprof(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = cli.Main(args, &o, &e)
	return code, o.String(), e.String()
}

func report(t *testing.T, run string, args ...string) *analysis.Report {
	t.Helper()
	code, out, errOut := initprof(append([]string{"report", run, "--format", "json"}, args...)...)
	if code != 0 {
		t.Fatalf("report: exit code %d\n%s", code, errOut)
	}
	var r analysis.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func phases(r *analysis.Report) (names []string) {
	for _, p := range r.Phases {
		names = append(names, p.Name)
	}
	return names
}

func count(r *analysis.Report, name string) float64 {
	for _, s := range r.Syscalls {
		if s.Name == name {
			return s.Count
		}
	}
	return 0
}

// What a program of known truth does is what the report says.
func TestRecordTellsTheTruth(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	dynamic := []string{"exec", "loader", "runtime_init", "register", "next"}
	for _, c := range []struct {
		name   string
		args   []string
		phases []string
		check  func(*testing.T, *analysis.Report)
	}{
		{subjects.Extension, []string{"getppid", "1000"}, dynamic, func(t *testing.T, r *analysis.Report) {
			if n := count(r, "getppid"); n != 1000 {
				t.Errorf("%v calls of getppid, want 1000", n)
			}
		}},
		{subjects.Extension, []string{"sleep", "25"}, dynamic, func(t *testing.T, r *analysis.Report) {
			for _, s := range r.Syscalls {
				if s.Name == "clock_nanosleep" && (s.Count != 1 || s.NS < 25e6) {
					t.Errorf("%v sleeps of %d ns, want one of 25 ms at least", s.Count, s.NS)
				}
			}
		}},
		{subjects.Extension, []string{"fork", "5"}, dynamic, func(t *testing.T, r *analysis.Report) {
			if n := count(r, "clone") + count(r, "vfork") + count(r, "clone3"); n != 5 {
				t.Errorf("%v forks, want 5", n)
			}
		}},
		{subjects.ExtensionStatic, []string{"getppid", "10"}, []string{"exec", "runtime_init", "register", "next"}, nil},
		{subjects.Script, []string{"getppid", "10"}, nil, func(t *testing.T, r *analysis.Report) {
			if n := count(r, "getppid"); n < 10 {
				t.Errorf("%v calls of getppid, want 10 and the shell's", n)
			}
		}},
		{subjects.GoStripped, nil, []string{"exec", "runtime_init", "register", "telemetry_subscribe", "next"}, func(t *testing.T, r *analysis.Report) {
			if r.Stacks == nil || r.Stacks.Complete == 0 || r.Faults == nil || r.Faults.Minor == 0 {
				t.Errorf("stacks %+v, faults %+v", r.Stacks, r.Faults)
			}
		}},
	} {
		t.Run(strings.Join(append([]string{c.name}, c.args...), " "), func(t *testing.T) {
			path := subjects.Build(t, c.name)
			if c.name == subjects.Script {
				path = withProgram(t, path)
			}
			run := filepath.Join(dir, c.name+strings.Join(c.args, "")+".initprof")
			args := append([]string{"record", "-q", "-n", "2", "--untraced", "1", "-o", run, "--", path}, c.args...)
			if code, _, errOut := initprof(args...); code != 0 {
				t.Fatalf("exit code %d\n%s", code, errOut)
			}
			r := report(t, run)
			if c.phases != nil && !slices.Equal(phases(r), c.phases) {
				t.Errorf("phases %v, want %v", phases(r), c.phases)
			}
			for _, one := range r.Runs {
				if one.LostEvents != nil && *one.LostEvents != 0 {
					t.Errorf("cold start %d lost %d events", one.Index, *one.LostEvents)
				}
				if !one.Traced || one.ExecToNextNS == nil {
					continue
				}
				var sum int64
				for _, p := range one.Phases {
					sum += p.DeltaNS
				}
				if sum != *one.ExecToNextNS {
					t.Errorf("cold start %d: the phases sum to %d ns of %d", one.Index, sum, *one.ExecToNextNS)
				}
			}
			if c.check != nil {
				c.check(t, r)
			}
		})
	}
}

// withProgram puts the program that a script executes beside it.
func withProgram(t *testing.T, script string) string {
	t.Helper()
	program, err := os.ReadFile(subjects.Build(t, subjects.Extension))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(script), subjects.Extension), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}

// Whatever a subject does wrong: the exit code, a sentence, its last output,
// what was recorded, and nothing left behind.
func TestSubjectsThatFail(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("hello"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	extension := subjects.Build(t, subjects.Extension)
	for _, c := range []struct {
		name     string
		args     []string
		code     int
		outcome  string
		sentence string
	}{
		{"crash", []string{extension, "crash"}, 3, analysis.OutcomeCrashed, "segmentation fault"},
		{"exit 0", []string{extension, "exit"}, 3, analysis.OutcomeExited, "exited with status 0"},
		{"exit 7", []string{extension, "exit", "7"}, 3, analysis.OutcomeExited, "exited with status 7"},
		{"init-error", []string{extension, "init-error"}, 3, analysis.OutcomeInitError, "reported InitError"},
		{"kill-group", []string{extension, "kill-group"}, 3, analysis.OutcomeKilled, "SIGKILL"},
		{"hang", []string{extension, "hang"}, 4, analysis.OutcomeTimeout, "not asked for its first event"},
		{"not executable", []string{plain}, 3, analysis.OutcomeNotExecutable, "neither"},
		{"prints 100 MB", []string{extension, "print", "100"}, 0, analysis.OutcomeOK, ""},
		{"orphan", []string{extension, "orphan"}, 0, analysis.OutcomeOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := filepath.Join(dir, c.name+".initprof")
			timeout := "1m" // the machine may be busy
			if c.outcome == analysis.OutcomeTimeout {
				timeout = "2s"
			}
			args := append([]string{"record", "-q", "-n", "1", "--untraced", "0", "--timeout", timeout, "-o", run, "--"}, c.args...)
			code, _, errOut := initprof(args...)
			if code != c.code || !strings.Contains(errOut, c.sentence) {
				t.Errorf("exit code %d, want %d; %q, want %q in it", code, c.code, errOut, c.sentence)
			}
			r := report(t, run)
			if len(r.Runs) == 0 || r.Runs[0].Outcome != c.outcome {
				t.Fatalf("runs %+v, want outcome %s", r.Runs, c.outcome)
			}
			if c.outcome == analysis.OutcomeCrashed && !slices.Contains(r.Runs[0].LastOutput, "about to crash") {
				t.Errorf("last output %q", r.Runs[0].LastOutput)
			}
		})
	}
	nothingLeft(t, dir)
}

// nothingLeft fails if a process, cgroup, or unfinished run is left.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left := func() []string {
		var found []string
		for _, pattern := range []string{dir + "/.*-*", "/sys/fs/cgroup/initprof-*", "/sys/fs/cgroup/*/initprof-*"} {
			f, _ := filepath.Glob(pattern)
			found = append(found, f...)
		}
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range commands {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) && !bytes.Contains(b, []byte(".test")) {
				found = append(found, string(b))
			}
		}
		return found
	}
	for range 100 {
		if len(left()) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left behind: %q", left())
}

// An interrupt keeps what was recorded; a kill leaves nothing.
func TestInterruptAndKill(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	extension := subjects.Build(t, subjects.Extension)
	start := func(run string) *exec.Cmd {
		c := exec.Command("/proc/self/exe", "record", "-q", "-n", "1000", "-o", run, "--", extension, "sleep", "20")
		c.Env = append(os.Environ(), "CLI_TEST_MAIN=1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// A run that is being made has a hidden name.
		recordings := filepath.Join(dir, "."+filepath.Base(run)+"-*", "events", "*")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if made, _ := filepath.Glob(recordings); len(made) > 1 {
				return c
			}
		}
		t.Fatal("nothing was recorded in a minute")
		return nil
	}
	run := filepath.Join(dir, "interrupted.initprof")
	c := start(run)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // the code tells
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit code %d, want 130", code)
	}
	if r := report(t, run); len(r.Runs) == 0 {
		t.Error("interrupted: nothing was kept")
	}
	c = start(filepath.Join(dir, "killed.initprof"))
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	if _, err := os.Stat(filepath.Join(dir, "killed.initprof")); err == nil {
		t.Error("killed: a half-written run has the name of a whole one")
	}
	// What is left of a killed initprof goes with the next start.
	if code, _, errOut := initprof("record", "-q", "-n", "1", "--untraced", "0", "-o", filepath.Join(dir, "killed.initprof"), "--", extension); code != 0 {
		t.Errorf("after a kill: exit code %d\n%s", code, errOut)
	}
	nothingLeft(t, dir)
}

// No value of a secret variable reaches a file.
func TestSecretsStayOut(t *testing.T) {
	needRoot(t)
	const secret = "s3cr3t-v4lue-of-a-key"
	t.Setenv("SOME_API_KEY", secret)
	run := filepath.Join(t.TempDir(), "run")
	code, _, errOut := initprof("record", "-q", "-n", "1", "--untraced", "0", "--env", "DD_API_KEY="+secret, "-o", run, "--",
		subjects.Build(t, subjects.Extension), "exit", "3", secret)
	if code != 3 || strings.Contains(errOut, secret) {
		t.Errorf("exit code %d, %q", code, errOut)
	}
	err := filepath.WalkDir(run, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without tracing, and so without root, there are still durations and phases.
func TestWithoutTracing(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	code, _, errOut := initprof("record", "-q", "-n", "2", "--signals", "none", "--network", "host", "-o", run, "--", subjects.Build(t, subjects.GoExtension))
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	r := report(t, run)
	if r.Untraced == nil || r.Untraced.N != 2 || !slices.Equal(phases(r), []string{"register", "telemetry_subscribe", "next"}) {
		t.Errorf("untraced %+v, phases %v", r.Untraced, phases(r))
	}
}

// A function that never heard of extensions, on AWS's own client.
func TestRecordARuntime(t *testing.T) {
	needRoot(t)
	run := filepath.Join(t.TempDir(), "run")
	code, _, errOut := initprof("record", "-q", "-n", "2", "--untraced", "1", "--as", "runtime", "-o", run, "--", subjects.Build(t, subjects.GoFunction))
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	r := report(t, run)
	if want := []string{"exec", "runtime_init", "next"}; !slices.Equal(phases(r), want) {
		t.Errorf("phases %v, want %v", phases(r), want)
	}
	if last := r.Requests[len(r.Requests)-1].Path; last != "/2018-06-01/runtime/invocation/next" {
		t.Errorf("the window ends with %s", last)
	}
}

// With a cold page cache the subject's own pages come from the disk again.
func TestColdPageCache(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/var/tmp", "initprof-test-") // no tmpfs: its pages are the file
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(subjects.Build(t, subjects.GoStripped))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cold")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cache string
		major bool
	}{{"warm", false}, {"cold", true}} {
		run := filepath.Join(dir, c.cache+".initprof")
		code, _, errOut := initprof("record", "-q", "-n", "2", "--untraced", "0", "--page-cache", c.cache, "-o", run, "--", path)
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, errOut)
		}
		if r := report(t, run); r.Faults == nil || (r.Faults.Major > 0) != c.major || r.Settings.PageCache != c.cache {
			t.Errorf("%s: faults %+v", c.cache, r.Faults)
		}
	}
}

func TestBench(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	extension := subjects.Build(t, subjects.Extension)
	matrix := filepath.Join(dir, "matrix.yaml")
	content := "base: slow\nvariants:\n  - {name: quick, command: [" + extension + ", none], env: {A_KEY: hidden-value}}\n" +
		"  - {name: slow, command: [" + extension + ", sleep, '30']}\n"
	if err := os.WriteFile(matrix, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "bench.json")
	code, text, errOut := initprof("bench", "-q", "-n", "6", "-o", out, "--matrix", matrix)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var b analysis.Bench
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hidden-value")) {
		t.Error("the value of a variable was written")
	}
	c := b.Comparisons[0]
	// The one sleeps 30 ms in front of /next, the other does not.
	if c.Base != "slow" || c.Variant != "quick" || c.ShiftNS > -25e6 || c.Verdict != analysis.VerdictPays {
		t.Errorf("%+v\n%s", c, text)
	}
	for _, v := range b.Variants {
		if v.N != 6 || len(v.Raw) != 6 {
			t.Errorf("%s: %d of %d raw runs went well, want 6 of 6", v.Name, v.N, len(v.Raw))
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"record"},
		{"record", "--", "/no/such/program"},
		{"record", "--latency", "often", "--", "/bin/true"},
		{"record", "-n", "0", "--", "/bin/true"},
		{"bench", "x"},
		{"record", "--as", "guest", "--", "/bin/true"},
	} {
		if code, _, errOut := initprof(args...); code != 2 || errOut == "" {
			t.Errorf("%v: exit code %d, %q", args, code, errOut)
		}
	}
	if code, _, errOut := initprof("report", t.TempDir()); code != 1 || !strings.Contains(errOut, "not a run") {
		t.Errorf("report of no run: exit code %d, %q", code, errOut)
	}
}

package launch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/launch"
)

// TestMain lets the test binary be an initprof that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("LAUNCH_TEST_VICTIM") != "" {
		box, err := launch.New(context.Background(), launch.Options{Isolated: true, CPUs: 2, MemoryMB: 256})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		p, err := box.Hold(launch.Command{
			Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000.125 & setsid sleep 1000.125"},
			Env: []string{"PATH=/bin:/usr/bin"}, Dir: "/",
		})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if _, err := p.Release(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("released")
		select {}
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatal("namespaces and cgroups need root")
	}
	t.Skip("namespaces and cgroups need root")
}

func newBox(t *testing.T, opts launch.Options) *launch.Box {
	t.Helper()
	box, err := launch.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
}

// run runs a command in a box to its end.
func run(t *testing.T, box *launch.Box, args ...string) (launch.Exit, string) {
	t.Helper()
	p, err := box.Hold(launch.Command{Path: args[0], Args: args, Env: []string{"PATH=/bin:/usr/bin"}, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Release(); err != nil {
		t.Fatal(err)
	}
	exit := p.Wait()
	return exit, string(p.LastOutput())
}

func TestProcessSeesItsBox(t *testing.T) {
	needRoot(t)
	nobody, err := launch.LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	box := newBox(t, launch.Options{
		Isolated: true, User: nobody, CPUs: 1, CPUQuota: 0.5, MemoryMB: 64,
		Hosts: map[string]string{"sandbox.localdomain": "127.0.0.1"},
	})
	if s := box.Settings(); len(s.Missing) > 0 || s.CgroupVersion == 0 {
		t.Errorf("settings: %+v", s)
	}
	for _, c := range []struct{ name, script, want string }{
		{"user", "id -u", "65534"},
		{"hosts", "grep -c '127.0.0.1 sandbox.localdomain' /etc/hosts", "1"},
		{"network", "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' \n'", "lo"},
		{"CPUs", "nproc", "1"},
		{"descriptors", "ls /proc/self/fd | tr '\n' ' '", "0 1 2 3"}, // 3 is ls's own
		{"processes", "ls /proc | grep -c '^[0-9]'", "4"},            // PID 1, sh, ls, grep
		{"capabilities", "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -vc 0000000000000000 || true", "0"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status | tr -dc 0-9", "0"},
		{"signals", "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\n\t'", "SigBlk:0000000000000000SigIgn:0000000000000000"},
		{"core files, open files", "ulimit -Sn", strconv.Itoa(int(softFiles(t)))},
	} {
		exit, out := run(t, box, "/bin/sh", "-c", c.script)
		if got := strings.TrimSpace(out); got != c.want || exit.Status != 0 {
			t.Errorf("%s: %q, status %d; want %q", c.name, got, exit.Status, c.want)
		}
	}
}

// softFiles is the limit with which this process was started; Go raised it.
func softFiles(t *testing.T) uint64 {
	t.Helper()
	out, err := exec.Command("sh", "-c", "ulimit -Sn").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLimitsHold(t *testing.T) {
	needRoot(t)
	box := newBox(t, launch.Options{CPUs: 1, CPUQuota: 0.2, MemoryMB: 32})
	run(t, box, "/bin/sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if s := box.Settings(); s.Throttled == 0 {
		t.Errorf("a loop at a fifth of a CPU was never throttled: %+v", s)
	}
	exit, out := run(t, box, "/bin/sh", "-c", "head -c 200000000 /dev/zero | tail -c 150000000 | wc -c")
	if s := box.Settings(); !s.OOMKilled {
		t.Errorf("150 MB fitted into 32 MB: %+v, %q, %+v", exit, out, s)
	}
}

func TestOutcomes(t *testing.T) {
	box := newBox(t, launch.Options{})
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		args []string
		want func(launch.Exit, string) bool
	}{
		{"status", []string{"/bin/sh", "-c", "exit 7"}, func(e launch.Exit, _ string) bool { return e.Status == 7 }},
		{"signal", []string{"/bin/sh", "-c", "kill -SEGV $$"}, func(e launch.Exit, _ string) bool { return e.Signal == syscall.SIGSEGV }},
		{"script", []string{write("script", "#!/bin/sh\necho hello\n", 0o755)}, func(e launch.Exit, out string) bool { return out == "hello\n" }},
		{"own group killed", []string{"/bin/sh", "-c", "kill -9 0"}, func(e launch.Exit, _ string) bool { return e.Signal == syscall.SIGKILL }},
		{"open output", []string{"/bin/sh", "-c", "sleep 100 & echo done"}, func(e launch.Exit, out string) bool { return out == "done\n" }},
		{"much output", []string{"/bin/sh", "-c", "head -c 100000000 /dev/zero; echo end"}, func(e launch.Exit, out string) bool {
			return len(out) == 64<<10 && strings.HasSuffix(out, "end\n")
		}},
		{"no execute bit", []string{write("plain", "x", 0o644)}, notExecutable("chmod")},
		{"no program", []string{write("text", "hello", 0o755)}, notExecutable("neither")},
		{"no interpreter", []string{write("strange", "#!/no/such/interpreter\n", 0o755)}, notExecutable("interpreter")},
		{"no file", []string{filepath.Join(dir, "absent")}, notExecutable("no such file")},
	} {
		exit, out := run(t, box, c.args...)
		if !c.want(exit, out) {
			t.Errorf("%s: %+v, %.100q", c.name, exit, out)
		}
	}
}

func notExecutable(part string) func(launch.Exit, string) bool {
	return func(e launch.Exit, _ string) bool {
		var refused *launch.NotExecutableError
		return errors.As(e.Err, &refused) && strings.Contains(e.Err.Error(), part)
	}
}

// startVictim starts an initprof that has released a subject with daemons.
func startVictim(t *testing.T, program string) *exec.Cmd {
	t.Helper()
	victim := exec.Command(program)
	victim.Env = append(os.Environ(), "LAUNCH_TEST_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "released\n" {
		_ = victim.Process.Kill()
		_ = victim.Wait() // it was killed
		t.Fatalf("%q, %v", line[:n], err)
	}
	return victim
}

// Nothing is left when initprof is killed, nor when a box is closed.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	victim := startVictim(t, "/proc/self/exe")
	eventually(t, "the subject's processes run", func() bool { return len(sleepers(t)) == 2 })
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	eventually(t, "no process is left", func() bool { return len(sleepers(t)) == 0 })
	eventually(t, "no cgroup is left", func() bool {
		launch.CleanStale()
		found, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/initprof-%d-*", victim.Process.Pid))
		return len(found) == 0
	})

	mounts := func() string {
		b, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before, fds, routines := mounts(), openFiles(t), runtime.NumGoroutine()
	started := time.Now()
	const boxes = 50
	for range boxes {
		box, err := launch.New(t.Context(), launch.Options{Isolated: true, MemoryMB: 64, CPUs: 1})
		if err != nil {
			t.Fatal(err)
		}
		run(t, box, "/bin/true")
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%v a box", time.Since(started)/boxes)
	if now := mounts(); now != before {
		t.Errorf("mounts changed:\n%s\n%s", before, now)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= routines })
	if now := openFiles(t); now > fds {
		t.Errorf("%d descriptors before, %d after", fds, now)
	}
	if found, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/initprof-%d-*", os.Getpid())); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
}

// Another initprof's living box is nobody's to clean up, whatever that initprof
// is called.
func TestCleanStaleLeavesTheLivingAlone(t *testing.T) {
	needRoot(t)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	renamed := filepath.Join(t.TempDir(), "another-name")
	if err := os.WriteFile(renamed, program, 0o755); err != nil {
		t.Fatal(err)
	}
	other := startVictim(t, renamed)
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
		eventually(t, "no process is left", func() bool { return len(sleepers(t)) == 0 })
	}()
	eventually(t, "the subject's processes run", func() bool { return len(sleepers(t)) == 2 })
	launch.CleanStale()
	time.Sleep(50 * time.Millisecond)
	if n := len(sleepers(t)); n != 2 {
		t.Errorf("%d of 2 processes of a living box are left", n)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// sleepers are the processes that the victim's subject started.
func sleepers(t *testing.T) (pids []string) {
	t.Helper()
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range found {
		if b, err := os.ReadFile(f); err == nil && string(b) == "sleep\x001000.125\x00" {
			pids = append(pids, f)
		}
	}
	return pids
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("not within 2 s: %s", what)
}

func TestNetworkOfTheBox(t *testing.T) {
	needRoot(t)
	box := newBox(t, launch.Options{Isolated: true})
	l, err := box.Listen("tcp", "127.0.0.1:9001")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	exit, out := run(t, box, "/bin/bash", "-c", "cat < /dev/tcp/127.0.0.1/9001")
	if exit.Status != 0 || out != "hello" {
		t.Errorf("%+v %q", exit, out)
	}
	if c, err := net.Dial("tcp", "127.0.0.1:9001"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the box's port is the host's too: %v, %v", c, err)
	}
}

package launch_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/launch"
)

// What wait4 counts must be the subject's: not the faults and the peak memory
// of initprof, from which its holder descends.
func TestUsageIsTheSubjects(t *testing.T) {
	box := newBox(t, launch.Options{})
	ballast := bytes.Repeat([]byte{1}, 64<<20)
	exit, _ := run(t, box, "/bin/true")
	if exit.Usage.Maxrss<<10 > 16<<20 {
		t.Errorf("peak memory of true: %d KiB; this process has %d MiB", exit.Usage.Maxrss, len(ballast)>>20)
	}
	if f := exit.Usage.Minflt; f < 20 || f > 400 {
		t.Errorf("minor faults of true: %d", f)
	}
	if exit.At == 0 {
		t.Error("no time of the end")
	}
}

// A subject gets the limits that initprof was given, not those that it has made.
func TestLimitsOfInitprofStayItsOwn(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	lower := unix.Rlimit{Cur: 12345 << 10, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &lower); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &was); err != nil {
			t.Error(err)
		}
	})
	box := newBox(t, launch.Options{})
	if _, out := run(t, box, "/bin/sh", "-c", "ulimit -c"); strings.Contains(out, "12345") {
		t.Errorf("the subject got a limit that initprof set: %q", out)
	}
}

// A signal that the caller of initprof ignores, as under nohup, is back to its
// default in the subject.
func TestIgnoredSignals(t *testing.T) {
	if os.Getenv("LAUNCH_TEST_NOHUP") == "" {
		again := exec.Command("/bin/sh", "-c", `trap "" HUP USR1; exec "$0" -test.run='^TestIgnoredSignals$'`, "/proc/self/exe")
		again.Args[3] = os.Args[0]
		again.Env = append(os.Environ(), "LAUNCH_TEST_NOHUP=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	box := newBox(t, launch.Options{})
	_, out := run(t, box, "/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
	if strings.Count(out, "0000000000000000") != 2 {
		t.Errorf("the subject ignores or blocks signals:\n%s", out)
	}
}

func TestRootStaysOutside(t *testing.T) {
	needRoot(t)
	nobody, err := launch.LookupUser("nobody")
	if err != nil {
		t.Fatal(err)
	}
	box := newBox(t, launch.Options{Isolated: true, User: nobody, CPUs: 1, CPUQuota: 1, MemoryMB: 64})
	for _, c := range []struct{ name, script, want string }{
		{"signals to initprof", fmt.Sprintf("kill -0 %d 2>&1 | grep -c 'No such process'", os.Getpid()), "1"},
		{"signals to PID 1", "kill -9 1 2>&1 | grep -c 'not permitted'", "1"},
		{"its cgroup", "echo 0 2>/dev/null > /sys/fs/cgroup/cpu/initprof*/tasks || echo refused", "refused"},
		{"its groups", "id -G", "65534"},
		{"its session", "test $(cut -d' ' -f6 /proc/self/stat) = $$ && echo leader", "leader"},
	} {
		if exit, out := run(t, box, "/bin/bash", "-c", c.script); strings.TrimSpace(out) != c.want {
			t.Errorf("%s: %q, %+v", c.name, out, exit)
		}
	}
}

// The watchdog itself removes the cgroup, without a CleanStale.
func TestWatchdogCleansUp(t *testing.T) {
	needRoot(t)
	victim := startVictim(t, "/proc/self/exe")
	cgroups := func() []string {
		var all []string
		for _, pattern := range []string{"/sys/fs/cgroup/*/initprof-%d-*", "/sys/fs/cgroup/initprof-%d-*"} {
			found, _ := filepath.Glob(fmt.Sprintf(pattern, victim.Process.Pid))
			all = append(all, found...)
		}
		return all
	}
	if launch.CleanStale(); len(cgroups()) == 0 {
		t.Fatal("no cgroup, or the living one's was removed")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	eventually(t, "no cgroup is left", func() bool { return len(cgroups()) == 0 })
}

func TestCloseEndsDaemons(t *testing.T) {
	for _, c := range []struct {
		name string
		opts launch.Options
	}{{"isolated", launch.Options{Isolated: true}}, {"plain", launch.Options{}}} {
		t.Run(c.name, func(t *testing.T) {
			box := newBox(t, c.opts)
			run(t, box, "/bin/sh", "-c", "setsid sleep 1000.125 & setsid sh -c 'setsid sleep 1000.125 & sleep 1000.125' & sleep 0.05")
			if len(sleepers(t)) != 3 {
				t.Fatalf("%d daemons run", len(sleepers(t)))
			}
			if err := box.Close(); err != nil {
				t.Error(err)
			}
			if left := sleepers(t); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if _, err := box.Hold(launch.Command{Path: "/bin/true"}); !errors.Is(err, launch.ErrClosed) {
				t.Errorf("Hold in a closed box: %v", err)
			}
			if _, err := box.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, launch.ErrClosed) {
				t.Errorf("Listen in a closed box: %v", err)
			}
		})
	}
}

// As another user, which the test can only be when it is root, the box is plain.
func TestPlainBox(t *testing.T) {
	if os.Geteuid() == 0 && os.Getenv("LAUNCH_TEST_PLAIN") == "" {
		// The test binary lies where only root may look.
		file := filepath.Join("/var/tmp", "launch-test-"+strconv.Itoa(os.Getpid()))
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, self, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Remove(file) }()
		again := exec.Command(file, "-test.run=^(TestPlainBox|TestOutcomes|TestCloseEndsDaemons|TestUsageIsTheSubjects)$", "-test.v")
		again.Dir = "/"
		again.Env = []string{"LAUNCH_TEST_PLAIN=1", "PATH=/bin:/usr/bin", "TMPDIR=/var/tmp"}
		again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := again.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	box := newBox(t, launch.Options{Isolated: true, CPUs: 1, CPUQuota: 1, MemoryMB: 64, Hosts: map[string]string{"a": "127.0.0.1"}})
	s := box.Settings()
	missing := strings.Join(s.Missing, "\n")
	for _, what := range []string{"own namespaces", "own network", "/etc/hosts", "visible CPUs", "cpu quota", "memory limit"} {
		if !strings.Contains(missing, what) {
			t.Errorf("settings do not say that %s is missing:\n%s", what, missing)
		}
	}
	if s.Namespaces || s.Isolated || s.CPUQuota != 0 || s.MemoryMB != 0 {
		t.Errorf("settings: %+v", s)
	}
	if _, out := run(t, box, "/bin/sh", "-c", "nproc; ls /proc/self/fd | tr '\n' ' '"); out != "1\n0 1 2 3 " {
		t.Errorf("one CPU by affinity, and no descriptors: %q", out)
	}
	if _, err := launch.New(t.Context(), launch.Options{User: &launch.User{Name: "root"}}); err == nil {
		t.Error("another user without root")
	}
}

// Where initprof is in a chroot, its subjects are.
func TestChroot(t *testing.T) {
	needRoot(t)
	if os.Getenv("LAUNCH_TEST_CHROOT") == "" {
		dir := t.TempDir()
		script := `mount --make-rprivate / && mount --rbind / "$1" && mount -t tmpfs tmpfs "$1/mnt" && echo inside >"$1/mnt/marker" &&
			exec chroot "$1" "$0" '-test.run=^TestChroot$'`
		again := exec.Command("unshare", "-m", "/bin/sh", "-c", script, os.Args[0], dir)
		again.Env = append(os.Environ(), "LAUNCH_TEST_CHROOT=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	box := newBox(t, launch.Options{Isolated: true, Hosts: map[string]string{"a.box": "127.0.0.9"}})
	if exit, out := run(t, box, "/bin/sh", "-c", "cat /mnt/marker; grep -c a.box /etc/hosts"); out != "inside\n1\n" {
		t.Errorf("%+v %q, settings %+v", exit, out, box.Settings())
	}
}

func TestHeldProcess(t *testing.T) {
	box := newBox(t, launch.Options{})
	p, err := box.Hold(launch.Command{Path: "/bin/true"})
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID()))
	if err != nil || string(name) != "initprof-hold\n" {
		t.Errorf("the held process is %q, %v", name, err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if exit := p.Wait(); !errors.Is(exit.Err, launch.ErrDismissed) || exit.Signal != syscall.SIGKILL {
		t.Errorf("%+v", exit)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to a process that ended: %v", err)
	}

	var got []string
	var echo bytes.Buffer
	p, err = box.Hold(launch.Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", `printf 'a\nb\n' >&2; printf c; printf "$X"`}, Env: []string{"X=d"},
		Line: func(l []byte) { got = append(got, string(l)) }, Echo: &echo,
	})
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	at, err := p.Release()
	if err != nil || at < before.Nano() || at > before.Nano()+int64(time.Second) {
		t.Errorf("released at %d, %v; it was %d", at, err, before.Nano())
	}
	if _, err := p.Release(); err == nil {
		t.Error("released twice")
	}
	<-p.Executed()
	if exit := p.Wait(); exit.Status != 0 || exit.Err != nil {
		t.Errorf("%+v", exit)
	}
	if err := box.Close(); err != nil { // the last line comes at the end
		t.Error(err)
	}
	if fmt.Sprint(got) != "[a b cd]" || echo.String() != "a\nb\ncd" {
		t.Errorf("lines %q, echo %q", got, echo.String())
	}
}

func TestBadCommands(t *testing.T) {
	box := newBox(t, launch.Options{})
	for _, c := range []launch.Command{
		{},
		{Path: "/bin/true", Args: []string{"a\x00b"}},
		{Path: "/bin/true", Env: []string{"a=\x00"}},
		{Path: "/bin/true", Dir: "/no/such/directory"},
	} {
		if p, err := box.Hold(c); err == nil {
			t.Errorf("%+v was held as %d", c, p.PID())
		}
	}
	for _, opts := range []launch.Options{
		{CPUs: -1},
		{CPUPeriod: time.Microsecond},
		{Hosts: map[string]string{"a b": "127.0.0.1"}},
		{Copies: []string{"relative"}},
	} {
		if _, err := launch.New(t.Context(), opts); err == nil {
			t.Errorf("%+v made a box", opts)
		}
	}
}

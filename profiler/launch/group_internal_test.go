package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// unifiedRoot is a cgroup v2 hierarchy, with or without controllers.
func unifiedRoot(t *testing.T) string {
	t.Helper()
	root := cgroupRoot
	if cgroups.Mode() == cgroups.Hybrid {
		root = filepath.Join(cgroupRoot, "unified")
	}
	if os.Geteuid() != 0 || cgroups.Mode() == cgroups.Unavailable || cgroups.Mode() == cgroups.Legacy {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" && os.Geteuid() != 0 {
			t.Fatal("cgroup v2 needs root")
		}
		t.Skip("no cgroup v2 that may be changed")
	}
	return root
}

// A process begins in its cgroup v2, whether or not it has controllers.
func TestGroup2(t *testing.T) {
	root := unifiedRoot(t)
	g, missing := newGroup2(root, boxPrefix+"0-1", limits{cpus: given.cpus, quota: 0.5, period: defaultPeriod, memory: 64 << 20})
	if g == nil {
		t.Fatal(missing)
	}
	if g.quota && g.memory == (len(missing) > 0) {
		t.Errorf("quota %v, memory %v, missing %q", g.quota, g.memory, missing)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	box := &Box{name: g.name, group: g, null: null}
	box.settings.CPUs = given.cpus
	if err := box.isolate(); err != nil {
		t.Fatal(err)
	}
	p, err := box.Hold(Command{Path: "/bin/cat", Args: []string{"cat", "/proc/self/cgroup"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Release(); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if out := string(p.LastOutput()); !strings.Contains(out, "0::/"+g.name+"\n") {
		t.Errorf("cgroups of the process:\n%s", out)
	}
	box.Settings()
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, g.name)); err == nil {
		t.Error("the cgroup is left")
	}
}

func TestMissingControllers(t *testing.T) {
	g, missing := newGroup1(t.TempDir(), boxPrefix+"0-2", limits{cpus: []int{0}, quota: 1, period: time.Second, memory: 1 << 20})
	if g != nil || len(missing) != 3 {
		t.Errorf("%+v, %q", g, missing)
	}
	for _, m := range missing {
		if !strings.Contains(m, "not mounted") {
			t.Error(m)
		}
	}
	if g, missing := newGroup2(filepath.Join(t.TempDir(), "absent"), "x", limits{}); g != nil || len(missing) == 0 {
		t.Errorf("%+v, %q", g, missing)
	}
}

// Only what a dead initprof owned is stale.
func TestStale(t *testing.T) {
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := func(pid int) string {
		d := filepath.Join(t.TempDir(), boxPrefix+strconv.Itoa(pid)+"-1")
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	gone := dir(dead.Process.Pid)
	if !stale(gone) {
		t.Error("the directory of a dead process is not stale")
	}
	lock, err := lockDir(gone, 0)
	if err != nil {
		t.Fatal(err)
	}
	if stale(gone) {
		t.Error("a locked directory is stale")
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	if stale(dir(os.Getpid())) {
		t.Error("our own directory is stale")
	}
	if stale(filepath.Join(t.TempDir(), "initprof-x")) {
		t.Error("a stranger's name is stale")
	}

	// A PID that went to another program since.
	other := exec.Command("/bin/sleep", "100")
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	if !stale(dir(other.Process.Pid)) {
		t.Error("the directory of a PID that is another program's now is not stale")
	}
}

// The image also starts from a file, where memory may not be executed.
func TestImageFromFile(t *testing.T) {
	p := newProgram()
	p.call(unix.SYS_EXIT_GROUP, 42)
	p.ends(statusFD)
	image, err := p.image()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/dev/shm", "/var/tmp"} {
		file, err := unlinkedFile(dir, image)
		if err != nil {
			t.Logf("%s: %v", dir, err)
			continue
		}
		pid, err := execFile(file, &syscall.ProcAttr{})
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if status, _, err := wait4(pid); err != nil || status.ExitStatus() != 42 {
			t.Errorf("%s: %v, %v", dir, status, err)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), 2)
	f.Add(append(make([]byte, keptOutput+1), '\n'), 5)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		chunk = max(1, chunk%1000)
		var got []byte
		var partial []byte
		line := func(l []byte) {
			if len(l) > keptOutput {
				t.Fatalf("a line of %d bytes", len(l))
			}
			got = append(got, l...)
		}
		for rest := data; len(rest) > 0; {
			n := min(chunk, len(rest))
			partial = lines(append(partial, rest[:n]...), line)
			rest = rest[n:]
		}
		got = append(got, partial...)
		if want := strings.ReplaceAll(string(data), "\n", ""); string(got) != want {
			t.Errorf("%q became %q", data, got)
		}
	})
}

// Command guest is what runs inside the emulated arm64 machine: as PID 1 of
// the initramfs it brings the machine up, and as /check of the disk it runs the
// checks. Its last line is the verdict that the host waits for.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	captured()
	if os.Getpid() != 1 {
		// Outside its own machine it changes nothing.
		if len(os.Args) < 2 {
			fmt.Fprintln(os.Stderr, "usage: check bpf|capture|stacks|record|startup …")
			os.Exit(2)
		}
		os.Exit(check(os.Args[1:]))
	}
	err := boot()
	if err != nil {
		fmt.Println("boot:", err)
		fmt.Println("initprof-arm64: failed")
	} else {
		fmt.Println("initprof-arm64: ok")
	}
	time.Sleep(50 * time.Millisecond) // the serial line's last bytes
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

type mount struct{ source, target, kind, data string }

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// boot mounts the disk, runs its /check, and tells whether it passed.
func boot() error {
	if err := (mount{"dev", "/dev", "devtmpfs", ""}).do(); err != nil {
		return err
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, module := range modules {
		if err := load(module); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(module), err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/dev/vda"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no disk /dev/vda after 10 s")
		}
	}
	for _, m := range []mount{
		{"/dev/vda", "/disk", "ext4", ""},
		{"dev", "/disk/dev", "devtmpfs", ""},
		{"proc", "/disk/proc", "proc", ""},
		{"sys", "/disk/sys", "sysfs", ""},
		{"tracefs", "/disk/sys/kernel/tracing", "tracefs", ""},
		{"cgroup2", "/disk/sys/fs/cgroup", "cgroup2", ""},
		{"tmp", "/disk/tmp", "tmpfs", "mode=1777"},
		{"run", "/disk/run", "tmpfs", "mode=755"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// The disk becomes the root of the mount namespace, as switch_root does it:
	// with chroot alone, setns to a mount namespace would lead back here.
	if err := os.Chdir("/disk"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		return err
	}
	for name, value := range map[string]string{"kernel/kptr_restrict": "0", "kernel/perf_event_max_sample_rate": "20000"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	steps, err := os.ReadFile("/steps")
	if err != nil {
		return err
	}
	cmd := exec.Command("/check", strings.Fields(string(steps))...)
	cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "INITPROF_FORBID_SKIP=1", "INITPROF_CHAINS=/chains"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err == unix.EEXIST { // built in
		return nil
	}
	return err
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq)
}

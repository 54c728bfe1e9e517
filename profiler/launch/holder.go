package launch

import (
	"bytes"
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HolderMagic is the first argument of the getppid by which a holder announces
// itself to BPF; Command.Nonce is the second. The kernel ignores both. The
// thread that makes this call is the one that will exec. "initprof" in ASCII.
const HolderMagic = 0x696e697470726f66

// Descriptors of a holder, and of a watchdog.
const (
	holdFD      = 3 // released by a byte, dismissed by end of file
	statusFD    = 4
	firstFreeFD = 5
)

const (
	// closeAll is the last descriptor of all: initprof's caller may have left
	// some open that initprof does not know of.
	closeAll = 1<<32 - 1
	fdCwd    = 1<<64 - 100 // AT_FDCWD
)

// holding is all that the holder's program depends on.
type holding struct {
	path      string
	args, env []string
	dir       string
	nonce     uint64
	user      *User // nil: stay who we are
	cpus      []int
	rlimits   []rlimit
	unignore  []int  // signals that initprof ignores
	joins     []int  // descriptors, in the holder, of cgroup v1 tasks files
	cgroup2   int    // descriptor of the cgroup v2 directory, 0: none
	procs2    int    // descriptor of its cgroup.procs
	box       int    // pidfd of the watchdog, 0: none
	spaces    uint64 // which of its namespaces to enter
	root      int    // descriptor of its root directory
	plain     bool   // die with the thread that started it
}

// holderProgram writes the holder down, in its two stages.
func holderProgram(h *holding) *program {
	p := newProgram()
	zero := p.bytes(make([]byte, 64))
	path, argv, envp := p.string(h.path), p.strings(h.args), p.strings(h.env)
	dir, name, self := p.string(h.dir), p.string("initprof-hold"), p.string("0")

	// A task that moves itself by way of tasks needs no global lock. One that
	// is moved by cgroup.procs waits for a grace period: 7 ms here.
	for _, fd := range h.joins {
		p.must(p.call(unix.SYS_WRITE, uint64(fd), self, 1), opCgroup)
	}
	if h.box != 0 {
		p.must(p.call(unix.SYS_SETNS, uint64(h.box), h.spaces), opNamespaces)
		// Entering a mount namespace leaves a chroot: go back into it.
		p.must(p.call(unix.SYS_FCHDIR, uint64(h.root)), opRoot)
		p.must(p.call(unix.SYS_CHROOT, p.string(".")), opRoot)
	}
	// CLONE_PARENT makes the second stage initprof's own child, with a rusage
	// that begins at zero and a peak memory of a few pages: the first stage
	// carries the peak of initprof, out of whose address space it came.
	forked := func(clone label) {
		p.onPositive(clone, p.here())
		p.send(statusFD, clone, tagClone)
		p.call(unix.SYS_EXIT_GROUP, 0)
	}
	var into label
	if h.cgroup2 != 0 {
		arguments := p.words(unix.CLONE_PARENT|unix.CLONE_INTO_CGROUP, 0, 0, 0, 0, 0, 0, 0, 0, 0, uint64(h.cgroup2))
		into = p.call(unix.SYS_CLONE3, arguments, 88)
		p.must(p.call(unix.SYS_WRITE, uint64(h.procs2), self, 1), opCgroup) // clone3 may be forbidden
	}
	clone := p.call(unix.SYS_CLONE, unix.CLONE_PARENT|uint64(unix.SIGCHLD))
	p.must(clone, opClone)
	forked(clone)
	if h.cgroup2 != 0 {
		forked(into)
		p.onZero(into, p.here())
	}
	p.onZero(clone, p.here())

	p.must(p.call(unix.SYS_SETSID), opSession)
	p.call(unix.SYS_PRCTL, unix.PR_SET_NAME, name)
	p.call(unix.SYS_CLOSE_RANGE, firstFreeFD, closeAll, 0)
	p.call(unix.SYS_FCNTL, holdFD, unix.F_SETFD, unix.FD_CLOEXEC)
	p.call(unix.SYS_FCNTL, statusFD, unix.F_SETFD, unix.FD_CLOEXEC)
	for _, s := range h.unignore {
		p.call(unix.SYS_RT_SIGACTION, uint64(s), zero, 0, 8)
	}
	for _, l := range h.rlimits {
		p.call(unix.SYS_PRLIMIT64, 0, uint64(l.resource), p.words(l.Cur, l.Max), 0)
	}
	mask := cpuMask(h.cpus)
	p.call(unix.SYS_SCHED_SETAFFINITY, 0, uint64(len(mask)), p.bytes(mask))
	p.dropTo(h.user, zero)
	if h.plain {
		p.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL))
	}
	if h.dir != "" {
		p.must(p.call(unix.SYS_CHDIR, dir), opDir)
	}
	// Touch the pages that execve will read, lest their faults become the
	// subject's, and lest BPF find the path not present. What this unblocks,
	// the step behind it resets.
	for at := uint64(dataBase); at < dataBase+uint64(len(p.blob)); at += pageSize {
		p.call(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, at, 0, 8)
	}
	p.call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, zero, 0, 8)
	announce := p.call(unix.SYS_GETPPID, HolderMagic, h.nonce)
	p.send(statusFD, announce, tagReady)
	wait := p.call(unix.SYS_READ, holdFD, zero+32, 1)
	p.onNegative(wait, wait) // interrupted
	p.must(p.call(unix.SYS_EXECVE, path, argv, envp), opExec)
	p.onZero(wait, p.here()) // end of file: initprof is gone
	p.call(unix.SYS_EXIT_GROUP, 127)
	p.ends(statusFD)
	return p
}

// dropTo gives up what root has: the identity, and every capability that would
// outlive it. File capabilities of the subject keep working.
func (p *program) dropTo(u *User, zero uint64) {
	p.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	if u == nil {
		return
	}
	if os.Geteuid() == 0 {
		p.call(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0)
		groups := make([]byte, 0, 4*len(u.Groups))
		for _, g := range u.Groups {
			groups = binary.LittleEndian.AppendUint32(groups, g)
		}
		p.must(p.call(unix.SYS_SETGROUPS, uint64(len(u.Groups)), p.bytes(groups)), opGroups)
	}
	gid, uid := uint64(u.GID), uint64(u.UID)
	p.must(p.call(unix.SYS_SETRESGID, gid, gid, gid), opGID)
	p.must(p.call(unix.SYS_SETRESUID, uid, uid, uid), opUID)
	if uid != 0 {
		p.call(unix.SYS_CAPSET, p.words(unix.LINUX_CAPABILITY_VERSION_3), zero)
	}
}

// cpuMask is the bit mask that sched_setaffinity(2) takes.
func cpuMask(cpus []int) []byte {
	mask := make([]byte, 128)
	for _, c := range cpus {
		if c/8 < len(mask) {
			mask[c/8] |= 1 << (c % 8)
		}
	}
	return mask
}

// ignoredSignals lists the signals that this process ignores: execve passes
// that on. It reads SigIgn of proc_pid_status(5).
func ignoredSignals() (list []int) {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(status) {
		rest, ok := strings.CutPrefix(string(line), "SigIgn:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		if err != nil {
			return nil
		}
		for s := 1; s <= 64; s++ {
			if mask&(1<<(s-1)) != 0 {
				list = append(list, s)
			}
		}
	}
	return list
}

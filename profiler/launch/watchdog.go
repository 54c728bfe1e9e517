package launch

import (
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Tags of the messages of holders and watchdogs: ready, or which step failed.
const (
	tagReady = 1 + iota
	tagPrivate
	tagHosts
	tagProc
	tagExec
)

const (
	// closeAll is the last descriptor of all: initprof's caller may have left
	// some open that initprof does not know of.
	closeAll = 1<<32 - 1
	fdCwd    = 1<<64 - 100 // AT_FDCWD
)

// watchdogProgram makes the mounts, says that it is ready, and waits for the end
// of file on descriptor 3. Descriptor 4 takes its messages.
func watchdogProgram(hosts map[string]string) *program {
	const lifeline, report, lowestFree = 3, 4, 5
	p := newProgram()
	p.call(unix.SYS_CLOSE_RANGE, lowestFree, closeAll, 0)
	ignore := p.words(1, 0, 0, 0) // struct sigaction: SIG_IGN
	p.call(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), ignore, 0, 8)
	root, none, proc := p.string("/"), p.string("none"), p.string("/proc")

	// Each failure is told by a message and goes on behind it.
	tell := func(of label, tag uint64) {
		skip := p.call(unix.SYS_GETPID)
		p.onNegative(of, p.here())
		p.send(report, of, tag)
		p.onPositive(skip, p.here())
	}
	tell(p.call(unix.SYS_MOUNT, none, root, 0, unix.MS_REC|unix.MS_PRIVATE, 0), tagPrivate)
	if len(hosts) > 0 {
		// A tmpfs on /proc for a moment: a place that exists everywhere and
		// that no one else sees.
		content := hostsFile(hosts)
		file, etc := p.string("/proc/hosts"), p.string("/etc/hosts")
		text := p.bytes([]byte(content))
		tmpfs := p.call(unix.SYS_MOUNT, none, proc, p.string("tmpfs"), 0, 0)
		open := p.call(unix.SYS_OPENAT, fdCwd, file, unix.O_CREAT|unix.O_WRONLY, 0o644)
		p.call(unix.SYS_WRITE, lowestFree, text, uint64(len(content)))
		p.call(unix.SYS_CLOSE, lowestFree)
		bind := p.call(unix.SYS_MOUNT, file, etc, none, unix.MS_BIND, 0)
		p.call(unix.SYS_UMOUNT2, proc, unix.MNT_DETACH)
		tell(bind, tagHosts)
		p.onNegative(tmpfs, p.here())
		p.onNegative(open, p.here())
	}
	tell(p.call(unix.SYS_MOUNT, none, proc, p.string("proc"), unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0), tagProc)
	p.send(report, p.call(unix.SYS_GETPID), tagReady)
	p.call(unix.SYS_CLOSE, report)
	wait := p.call(unix.SYS_READ, lifeline, p.words(0), 8)
	p.onNegative(wait, wait) // EINTR
	p.onPositive(wait, wait)
	end(p, 0)
	return p
}

// end appends the program's exit.
func end(p *program, status uint64) label {
	l := p.call(unix.SYS_EXIT_GROUP, status)
	for _, on := range []func(label, label){p.onNegative, p.onZero, p.onPositive} {
		on(l, l)
	}
	return l
}

// hostsFile is the host's own file with names added in front.
func hostsFile(names map[string]string) string {
	own, err := os.ReadFile("/etc/hosts")
	if err != nil {
		own = []byte("127.0.0.1 localhost\n")
	}
	var lines []string
	for name, address := range names {
		lines = append(lines, address+" "+name+"\n")
	}
	sort.Strings(lines)
	return strings.Join(lines, "") + string(own)
}

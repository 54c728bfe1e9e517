package trace

import "strconv"

//go:generate go run gen_syscalls.go

// SyscallName returns the kernel's name of system call nr on arch (a GOARCH:
// "amd64" or "arm64"), or "syscall_NR" where the number or the architecture is
// not known.
func SyscallName(arch string, nr int) string {
	if names := syscallTable(arch); nr >= 0 && nr < len(names) && names[nr] != "" {
		return names[nr]
	}
	return "syscall_" + strconv.Itoa(nr)
}

// SyscallNumber is the inverse of SyscallName; ok is false for a name that the
// architecture does not have.
func SyscallNumber(arch, name string) (nr int, ok bool) {
	for nr, n := range syscallTable(arch) {
		if n == name && n != "" {
			return nr, true
		}
	}
	return 0, false
}

func syscallTable(arch string) []string {
	switch arch {
	case "amd64":
		return amd64Syscalls
	case "arm64":
		return arm64Syscalls
	}
	return nil
}

// effect is what a system call does to the table of file descriptors.
type effect uint8

const (
	effectNone effect = iota
	effectOpen        // returns a descriptor of the path given
	effectNew         // returns a descriptor of something without a path
	effectDup
	effectDup2
	effectFcntl
	effectClose
	effectCloseRange
	effectChdir
	effectFchdir
)

// semantics is what a timeline needs to know of a system call.
type semantics struct {
	effect  effect
	kind    DescriptorKind // of what effectNew returns
	fd      int8           // index of the argument that is the descriptor worked on, -1: none
	dirfd   int8           // index of the argument that a relative path starts at, -1: the working directory
	cloexec int8           // index of the argument whose 0x80000 means close-on-exec, -1: none, -2: always
	reads   bool           // the result counts bytes that came in through fd
	writes  bool           // the result counts bytes that went out through fd
	accepts bool           // it returns one end of a connection
}

func (s semantics) withFlags(argument int8) semantics { s.cloexec = argument; return s }

func (s semantics) accepting() semantics { s.accepts = true; return s }

func onFD(argument int8) semantics { return semantics{fd: argument, dirfd: -1, cloexec: -1} }

func onPath(dirfd int8) semantics { return semantics{fd: -1, dirfd: dirfd, cloexec: -1} }

func newFD(kind DescriptorKind) semantics {
	return semantics{effect: effectNew, kind: kind, fd: -1, dirfd: -1, cloexec: -1}
}

func (s semantics) does(e effect) semantics { s.effect = e; return s }

// semanticsOf describes the calls that touch descriptors or paths, after their
// manual pages; all others have neither.
var semanticsOf = func() map[string]semantics {
	m := map[string]semantics{
		"open":    onPath(-1).does(effectOpen).withFlags(1),
		"openat":  onPath(0).does(effectOpen).withFlags(2),
		"openat2": onPath(0).does(effectOpen), // its flags are behind a pointer
		"creat":   onPath(-1).does(effectOpen),

		"dup":         onFD(0).does(effectDup),
		"dup2":        onFD(0).does(effectDup2),
		"dup3":        onFD(0).does(effectDup2).withFlags(2),
		"fcntl":       onFD(0).does(effectFcntl),
		"close":       onFD(0).does(effectClose),
		"close_range": onPath(-1).does(effectCloseRange),
		"chdir":       onPath(-1).does(effectChdir),
		"fchdir":      onFD(0).does(effectFchdir),

		"socket":         newFD(DescriptorSocket).withFlags(1),
		"accept":         newFD(DescriptorSocket).accepting(),
		"accept4":        newFD(DescriptorSocket).withFlags(3).accepting(),
		"epoll_create":   newFD(DescriptorOther),
		"epoll_create1":  newFD(DescriptorOther).withFlags(0),
		"eventfd":        newFD(DescriptorOther),
		"eventfd2":       newFD(DescriptorOther).withFlags(1),
		"timerfd_create": newFD(DescriptorOther).withFlags(1),
		"signalfd4":      newFD(DescriptorOther).withFlags(3),
		"inotify_init":   newFD(DescriptorOther),
		"inotify_init1":  newFD(DescriptorOther).withFlags(0),
		"memfd_create":   newFD(DescriptorOther),
		"pidfd_open":     newFD(DescriptorOther).withFlags(-2),
		"pidfd_getfd":    newFD(DescriptorOther).withFlags(-2),
		"userfaultfd":    newFD(DescriptorOther).withFlags(0),
		"io_uring_setup": newFD(DescriptorOther).withFlags(-2),

		"mmap":            onFD(4),
		"sendfile":        onFD(1), // the file that is read, not the socket
		"copy_file_range": onFD(0),
		"splice":          onFD(0),
		"name_to_handle_at": {
			fd: -1, dirfd: 0, cloexec: -1,
		},
	}
	for _, name := range []string{"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg"} {
		s := onFD(0)
		s.reads = true
		m[name] = s
	}
	for _, name := range []string{"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg"} {
		s := onFD(0)
		s.writes = true
		m[name] = s
	}
	for _, name := range []string{"sendfile", "copy_file_range", "splice"} {
		s := m[name]
		s.reads = true
		m[name] = s
	}
	for _, name := range []string{
		"recvmmsg", "sendmmsg", "fstat", "lseek", "fsync", "fdatasync", "ftruncate", "fallocate", "ioctl",
		"flock", "fadvise64", "readahead", "fstatfs", "getdents", "getdents64", "fchmod", "fchown",
		"fgetxattr", "flistxattr", "sync_file_range", "connect", "bind", "listen", "shutdown",
		"getsockname", "getpeername", "getsockopt", "setsockopt", "epoll_ctl", "epoll_wait",
		"epoll_pwait", "epoll_pwait2", "timerfd_settime", "timerfd_gettime",
	} {
		m[name] = onFD(0)
	}
	for _, name := range []string{
		"stat", "lstat", "access", "readlink", "statfs", "mkdir", "rmdir", "unlink", "chmod", "chown", "lchown",
		"truncate", "getxattr", "lgetxattr", "listxattr", "inotify_add_watch", "statx", "utime", "utimes",
	} {
		m[name] = onPath(-1)
	}
	for _, name := range []string{
		"newfstatat", "statx", "faccessat", "faccessat2", "readlinkat", "mkdirat", "unlinkat", "fchmodat",
		"fchmodat2", "fchownat", "utimensat",
	} {
		m[name] = onPath(0)
	}
	return m
}()

// fcntl commands and flags, the same on all architectures that have a table.
const (
	fcntlDup        = 0
	fcntlSetFlags   = 2
	fcntlDupCloexec = 1030

	closeOnExec       = 1       // FD_CLOEXEC
	openCloexec       = 0x80000 // O_CLOEXEC, SOCK_CLOEXEC, EFD_CLOEXEC, …
	closeRangeCloexec = 4       // CLOSE_RANGE_CLOEXEC
	mapAnonymous      = 0x20    // MAP_ANONYMOUS
	atWorkingDir      = -100    // AT_FDCWD
)

// callTable resolves numbers of one architecture once, instead of a name at
// every call.
type callTable struct {
	names     []string
	semantics []semantics
}

func newCallTable(arch string) *callTable {
	t := &callTable{names: syscallTable(arch)}
	t.semantics = make([]semantics, len(t.names))
	for nr, name := range t.names {
		s, ok := semanticsOf[name]
		if !ok {
			s = onPath(-1)
		}
		t.semantics[nr] = s
	}
	return t
}

func (t *callTable) of(nr int) semantics {
	if nr < 0 || nr >= len(t.semantics) {
		return onPath(-1)
	}
	return t.semantics[nr]
}

func (t *callTable) is(nr int, name string) bool {
	return nr >= 0 && nr < len(t.names) && t.names[nr] == name
}

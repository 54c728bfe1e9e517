package launch

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// NotExecutableError says that the kernel refused to exec the command.
type NotExecutableError struct {
	Path string
	Err  syscall.Errno
}

func (e *NotExecutableError) Error() string {
	if hint := executionHint(e.Path, e.Err); hint != "" {
		return fmt.Sprintf("cannot execute %s: %v: %s", e.Path, e.Err, hint)
	}
	return fmt.Sprintf("cannot execute %s: %v", e.Path, e.Err)
}

// Unwrap returns the error of execve.
func (e *NotExecutableError) Unwrap() error { return e.Err }

// executionHint looks at a file that execve refused and says what is wrong with
// it; "" when that cannot be seen.
func executionHint(path string, errno syscall.Errno) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "" // the error number says it
	case info.IsDir():
		return "it is a directory"
	case errno == unix.EACCES && info.Mode()&0o111 == 0:
		return "it is not executable (chmod +x)"
	case errno == unix.EACCES:
		return "the subject's user may not execute it, or search a directory on its path"
	case info.Size() == 0:
		return "it is empty"
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) == 0 {
			return "its first line names no interpreter"
		}
		if strings.HasSuffix(string(line), "\r") {
			return "its first line ends in CR LF"
		}
		if errno == unix.ENOENT {
			return fmt.Sprintf("its interpreter %s is missing", words[0])
		}
		return fmt.Sprintf("its interpreter %s cannot be executed", words[0])
	}
	program, err := elf.NewFile(f)
	if err != nil {
		if errno == unix.ENOEXEC {
			return "it is neither an ELF file nor a script with a #! line"
		}
		return ""
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if program.Machine != machine {
		return fmt.Sprintf("it is for another machine (%s; this is %s)", program.Machine, runtime.GOARCH)
	}
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_INTERP || segment.Filesz > 4096 {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		if err == nil && errno == unix.ENOENT {
			return fmt.Sprintf("its loader %s is missing: built for another C library?", bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

package capture

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// UnavailableError says why nothing can be traced on this host, and the cure.
type UnavailableError struct {
	Reason string
	Cure   string
	Err    error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Cure) }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

const withoutTracing = "or use --signals none, which needs neither and still measures release → /next and phases by request"

func unavailable(err error) error {
	_, noBTF := os.Stat("/sys/kernel/btf/vmlinux")
	return explain(err, noBTF == nil, os.Geteuid() == 0)
}

// explain says why an error of loading or attaching means that this host
// allows no tracing, or returns it as it is.
func explain(err error, btf, root bool) error {
	if !btf && root {
		return &UnavailableError{
			Reason: "this kernel has no BTF (/sys/kernel/btf/vmlinux)", Err: err,
			Cure: "boot a kernel built with CONFIG_DEBUG_INFO_BTF, such as those of Amazon Linux 2023 and Debian 12, " + withoutTracing,
		}
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		cure := "run initprof with sudo, " + withoutTracing
		if root {
			cure = "allow CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN to this container, or run it on the host, " + withoutTracing
		}
		return &UnavailableError{Reason: "no permission to trace", Cure: cure, Err: err}
	case errors.Is(err, unix.ENOSYS), errors.Is(err, ebpf.ErrNotSupported):
		return &UnavailableError{
			Reason: fmt.Sprintf("this kernel cannot run initprof's BPF programs (%v)", err), Err: err,
			Cure: "use Linux 5.10 or newer with CONFIG_BPF_SYSCALL, " + withoutTracing,
		}
	}
	return err
}

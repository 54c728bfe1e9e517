package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// startImage executes an image with the given attributes. Where the host
// forbids to execute a memfd (vm.memfd_noexec) the image is an unlinked file.
func startImage(image []byte, attr *syscall.ProcAttr) (int, error) {
	file, err := memoryFile(image)
	if err != nil {
		return 0, err
	}
	pid, err := execFile(file, attr)
	if !errors.Is(err, unix.EACCES) {
		return pid, err
	}
	for _, dir := range []string{"/dev/shm", "/run", os.TempDir(), "/var/tmp"} {
		file, err := unlinkedFile(dir, image)
		if err != nil {
			continue
		}
		if pid, err := execFile(file, attr); err == nil {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("the host lets neither memory nor any temporary directory be executed: %w", err)
}

func execFile(file *os.File, attr *syscall.ProcAttr) (int, error) {
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(int(file.Fd())), []string{"initprof"}, attr)
	runtime.KeepAlive(attr)
	return pid, errors.Join(err, file.Close())
}

func memoryFile(image []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("initprof", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("initprof", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return outOfTheWay(fd, image)
}

// outOfTheWay writes the image, and gives it a number beyond those which a child's
// descriptors are laid over: it is opened by its number after that.
func outOfTheWay(fd int, image []byte) (*os.File, error) {
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return nil, fmt.Errorf("holder image: %w", err)
	}
	file := os.NewFile(uintptr(high), "holder image")
	if err := writeImage(file, image); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// writeImage leaves the gap between the segments a hole.
func writeImage(file *os.File, image []byte) error {
	_, err := file.WriteAt(image[:codeOffset+maxCodeSize], 0)
	if err == nil {
		_, err = file.WriteAt(image[dataOffset:], dataOffset)
	}
	if err != nil {
		return fmt.Errorf("holder image: %w", err)
	}
	return nil
}

// unlinkedFile is the image in a file without a name, opened for reading only:
// what is open for writing cannot be executed.
func unlinkedFile(dir string, image []byte) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return nil, err
	}
	writable := os.NewFile(uintptr(fd), "holder image")
	defer func() { _ = writable.Close() }()
	if err := errors.Join(writeImage(writable, image), writable.Chmod(0o755)); err != nil {
		return nil, err
	}
	read, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	high, err := unix.FcntlInt(uintptr(read), unix.F_DUPFD_CLOEXEC, 64)
	if err := errors.Join(err, unix.Close(read)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(high), "holder image"), nil
}

// wait4 waits for a child of this process.
func wait4(pid int) (unix.WaitStatus, unix.Rusage, error) {
	var status unix.WaitStatus
	var usage unix.Rusage
	for {
		_, err := unix.Wait4(pid, &status, 0, &usage)
		if !errors.Is(err, unix.EINTR) {
			return status, usage, err
		}
	}
}

package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen listens inside the box's network namespace, as net.Listen does. Names
// are those of the box's hosts file.
func (b *Box) Listen(network, address string) (net.Listener, error) {
	address, err := b.resolve(address)
	if err != nil {
		return nil, err
	}
	var l net.Listener
	err = b.inside(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// DialContext connects from inside the box's network namespace, as a
// net.Dialer's DialContext does. Names are those of the box's hosts file.
func (b *Box) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	address, err := b.resolve(address)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	err = b.inside(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// resolve replaces the names that the hosts file inside knows. In the network
// namespace of its own there is no name server.
func (b *Box) resolve(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	switch host {
	case "localhost":
		host = "127.0.0.1"
	default:
		if to, ok := b.opts.Hosts[host]; ok {
			host = to
		}
	}
	if b.settings.Isolated && host != "" && net.ParseIP(host) == nil {
		return "", fmt.Errorf("%s: no such host in the box", host)
	}
	return net.JoinHostPort(host, port), nil
}

// inside runs f on a thread that is in the box's network namespace. Sockets
// belong to the namespace of the thread that makes them.
func (b *Box) inside(f func() error) error {
	fd, err := b.networkFD()
	if err != nil {
		return err
	}
	if fd < 0 {
		return f()
	}
	dog := os.NewFile(uintptr(fd), "watchdog")
	defer func() { _ = dog.Close() }()
	result := make(chan error, 1)
	go func() { result <- onOwnThread(fd, f) }()
	return <-result
}

// onOwnThread enters the namespace and goes back. A thread that cannot go back
// ends with its goroutine.
func onOwnThread(pidfd int, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = unix.Close(home) }()
	if err := unix.Setns(pidfd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the box's network: %w", err)
	}
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave the box's network: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// networkFD is a copy of the pidfd by which the network namespace is entered;
// -1 where the network is the host's.
func (b *Box) networkFD() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return -1, ErrClosed
	}
	if !b.settings.Isolated {
		return -1, nil
	}
	return unix.FcntlInt(uintptr(b.dog.pidfd), unix.F_DUPFD_CLOEXEC, 0)
}

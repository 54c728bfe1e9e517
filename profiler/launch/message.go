package launch

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tags of the messages that come through a status pipe. A failure's tag is
// tagFailed plus the operation.
const (
	tagReady  = 1
	tagFailed = 1 << 16
	tagClone  = tagFailed + uint64(opClone) // a positive result is the PID
)

// operation names a step whose failure ends the holder or the watchdog.
type operation uint16

const (
	opCgroup operation = iota + 1
	opNamespaces
	opClone
	opSession
	opGroups
	opGID
	opUID
	opDir
	opExec
	opMountPrivate
	opMountTemporary
	opHosts
	opMountProc
	opLoopback
	opCover
	opRoot
)

var operations = map[operation]string{
	opCgroup: "join the cgroup", opNamespaces: "enter the box's namespaces", opClone: "clone",
	opSession: "setsid", opGroups: "setgroups", opGID: "setresgid", opUID: "setresuid",
	opDir: "enter the working directory", opExec: "execve",
	opMountPrivate: "make the mounts private", opMountTemporary: "mount a tmpfs",
	opHosts: "put names into /etc/hosts", opMountProc: "mount /proc", opLoopback: "bring the loopback interface up",
	opCover: "bind a private copy", opRoot: "enter the box's root directory",
}

func (o operation) String() string {
	if s, ok := operations[o]; ok {
		return s
	}
	return "step " + strconv.Itoa(int(o))
}

// failure is a step that must succeed.
type failure struct {
	at label
	op operation
}

// must makes a failure of the step l end the program with a message.
func (p *program) must(l label, op operation) {
	p.fails = append(p.fails, failure{l, op})
}

// ends appends, for all steps that must succeed, what happens when one does
// not: a message through fd, and exit.
func (p *program) ends(fd int) {
	for _, f := range p.fails {
		p.onNegative(f.at, p.here())
		p.send(fd, f.at, tagFailed+uint64(f.op))
		p.call(unix.SYS_EXIT_GROUP, 127)
	}
	p.fails = nil
	// The last step has nothing behind it.
	last := label(len(p.steps) - 1)
	p.onNegative(last, last)
	p.onZero(last, last)
	p.onPositive(last, last)
}

// message is what a step sent through the status pipe.
type message struct {
	tag    uint64
	result int64
}

// readMessage reads what program.send sent.
func readMessage(from io.Reader) (message, error) {
	var b [16]byte
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return message{}, err
	}
	return message{binary.LittleEndian.Uint64(b[:]), int64(binary.LittleEndian.Uint64(b[8:]))}, nil
}

// failed tells whether the message reports a failure, and which.
func (m message) failed() (operation, syscall.Errno, bool) {
	if m.tag < tagFailed || m.result >= 0 {
		return 0, 0, false
	}
	return operation(m.tag - tagFailed), syscall.Errno(-m.result), true
}

func (m message) error() error {
	if op, errno, ok := m.failed(); ok {
		return fmt.Errorf("%v: %w", op, errno)
	}
	return fmt.Errorf("unexpected message %d", m.tag)
}

package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawner is the thread that starts the processes of a plain box. It lives as
// long as the box: PR_SET_PDEATHSIG means the thread that forked, not the
// process.
type spawner struct {
	work chan func()
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *spawner) do(f func() error) error {
	result := make(chan error)
	s.work <- func() { result <- f() }
	return <-result
}

func (s *spawner) stop() { close(s.work) }

// guard is an image like the watchdog: it kills the process group of a plain
// box's process when initprof dies. What made a group of its own escapes it; only
// a PID namespace holds that.
type guard struct {
	pid  int
	pipe *os.File
}

func startGuard(group int, null *os.File) (*guard, error) {
	p := newProgram()
	p.call(unix.SYS_SETSID)
	p.call(unix.SYS_PRCTL, unix.PR_SET_NAME, p.string("initprof-guard"))
	p.call(unix.SYS_CLOSE_RANGE, holdFD+1, closeAll, 0)
	watch := p.call(unix.SYS_READ, holdFD, p.words(0), 1)
	p.onNegative(watch, watch) // interrupted
	p.call(unix.SYS_KILL, uint64(-int64(group)), uint64(unix.SIGKILL))
	p.onPositive(watch, p.here()) // dismissed
	p.call(unix.SYS_EXIT_GROUP, 0)
	p.ends(statusFD)
	image, err := p.image()
	if err != nil {
		return nil, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	fds := (&inherited{files: []*os.File{null, null, null, theirs}}).fds()
	pid, err := startImage(image, &syscall.ProcAttr{Dir: "/", Files: fds})
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), ours.Close())
	}
	return &guard{pid, ours}, nil
}

// dismiss ends the guard after the end of the process. Its group may still have
// members: Close ends them.
func (g *guard) dismiss() {
	if g != nil {
		_, _ = g.pipe.Write([]byte{1}) // a guard that died cannot be dismissed
		_ = g.pipe.Close()
		_, _, _ = wait4(g.pid)
	}
}

// task is a process as proc_pid_stat(5) shows it.
type task struct {
	pid, parent, session int
	state                byte
}

// tasks lists the processes of the host.
func tasks() []task {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var list []task
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		text := string(stat)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 4 {
			continue
		}
		t := task{pid: pid, state: fields[0][0]}
		t.parent, _ = strconv.Atoi(fields[1])
		t.session, _ = strconv.Atoi(fields[3])
		list = append(list, t)
	}
	return list
}

// killSessions ends what a plain box started: its sessions, all descendants of
// them, and the orphans that came to initprof as their subreaper.
func (b *Box) killSessions() {
	if len(b.held) == 0 {
		return
	}
	ours, guards := map[int]bool{}, map[int]bool{}
	for _, p := range b.held {
		ours[p.pid] = true
		if p.guard != nil {
			guards[p.guard.pid] = true
		}
	}
	self, own := os.Getpid(), map[int]bool{}
	ownSession, _ := unix.Getsid(0)
	for deadline := time.Now().Add(closeTimeout); time.Now().Before(deadline); {
		found := false
		list := tasks()
		for grown := true; grown; { // descendants, to any depth
			grown = false
			for _, t := range list {
				orphan := t.parent == self && t.session != ownSession && !guards[t.pid]
				if !own[t.pid] && (ours[t.pid] || ours[t.session] || own[t.parent] || orphan) {
					own[t.pid], grown = true, true
				}
			}
		}
		for _, t := range list {
			switch {
			case !own[t.pid]:
			case t.state == 'Z' && t.parent == self && !ours[t.pid]:
				_, _, _ = wait4(t.pid)
			case t.state != 'Z':
				found = true
				if err := unix.Kill(t.pid, unix.SIGKILL); errors.Is(err, unix.EPERM) {
					found = false // set-user-ID: nothing more can be done
				}
			}
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

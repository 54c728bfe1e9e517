package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
)

// Events that an extension can register for.
const (
	eventInvoke   = "INVOKE"
	eventShutdown = "SHUTDOWN"
)

// process is one party of the environment: an extension or the runtime. The
// environment's lock guards it.
type process struct {
	name     string // file name of an extension, Runtime for the runtime
	id       string // Lambda-Extension-Identifier
	internal bool   // an extension inside the runtime's process
	events   []string
	machine  machine
	times    ProcessTimes

	// mail is the event that the process will be given by its next next.
	mail *event
	// given is the runtime's event of the running invoke, which it gets again
	// if it asks again.
	given *event
	// wake has room for one: mail has come.
	wake chan struct{}

	errorType string // what it reported itself
	exited    bool
}

func newProcess(name string, table transitions) *process {
	return &process{
		name: name, id: newUUID(),
		machine: machine{table: table, at: stateStarted},
		wake:    make(chan struct{}, 1),
	}
}

func (p *process) wants(event string) bool { return slices.Contains(p.events, event) }

// registered tells whether the process ever did.
func (p *process) registered() bool { return p.times.Registered != 0 }

// post leaves an event for the process, in place of one it never fetched.
func (p *process) post(e *event) {
	p.mail = e
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// event is what a next returns.
type event struct {
	header [][2]string
	body   []byte
	posted int64 // when it was released
}

// await blocks until there is mail for p, takes it, and moves p to Running. It
// returns nil when ctx ended first, as it does with the environment.
func (e *Env) await(ctx context.Context, p *process) *event {
	for {
		e.mu.Lock()
		if ctx.Err() != nil {
			if p.mail != nil {
				p.post(p.mail) // somebody else may be waiting
			}
			e.mu.Unlock()
			return nil
		}
		if mail := p.mail; mail != nil && p.machine.to(stateRunning) == nil {
			p.mail = nil
			p.given = mail
			e.mu.Unlock()
			return mail
		}
		e.mu.Unlock()
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
}

// newUUID is a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// isUUID tells whether s has the form of a UUID, in hexadecimal of either case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

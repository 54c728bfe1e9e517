// Package logging writes the extension's own log: plain lines on standard
// error, which Lambda takes into the function's log group. Everything in
// extension logs through it; it imports nothing of the extension.
package logging

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// Level is how much is logged.
type Level uint8

// The levels, as DD_LOG_LEVEL names them.
const (
	Off Level = iota
	Error
	Warn
	Info
	Debug
)

var names = [...]string{"OFF", "ERROR", "WARN", "INFO", "DEBUG"}

// ParseLevel reads a DD_LOG_LEVEL. Empty stands for Warn.
func ParseLevel(s string) (Level, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "":
		return Warn, nil
	case "off":
		return Off, nil
	case "critical", "error":
		return Error, nil
	case "warn", "warning":
		return Warn, nil
	case "info":
		return Info, nil
	case "debug", "trace":
		return Debug, nil
	}
	return Warn, fmt.Errorf("unknown log level %q (off, error, warn, info, debug)", s)
}

// Logger writes lines of a level and above. The zero value writes warnings and
// errors to standard error. It may be used concurrently.
type Logger struct {
	mu     sync.Mutex
	out    io.Writer
	level  atomic.Uint32 // 1 more than the level; 0 stands for Warn
	hidden []string
	once   map[string]struct{}
}

// maxOnce bounds how many different lines Once remembers.
const maxOnce = 1000

// New makes a logger. A nil out stands for standard error.
func New(out io.Writer, level Level) *Logger {
	l := &Logger{out: out}
	l.SetLevel(level)
	return l
}

// SetLevel changes how much is logged.
func (l *Logger) SetLevel(level Level) { l.level.Store(uint32(level) + 1) }

// Hide keeps a secret out of every later line, wherever it comes from.
func (l *Logger) Hide(secret string) {
	if len(secret) < 4 { // too short to be a secret, and likely to be part of other words
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hidden = append(l.hidden, secret)
}

// Enabled reports whether lines of that level are written.
func (l *Logger) Enabled(level Level) bool {
	set := l.level.Load()
	if set == 0 {
		set = uint32(Warn) + 1
	}
	return level != Off && uint32(level) < set
}

// Errorf logs what makes a part of the extension fail.
func (l *Logger) Errorf(format string, args ...any) { l.printf(Error, format, args) }

// Warnf logs what is lost or ignored.
func (l *Logger) Warnf(format string, args ...any) { l.printf(Warn, format, args) }

// Infof logs what was done.
func (l *Logger) Infof(format string, args ...any) { l.printf(Info, format, args) }

// Debugf logs details.
func (l *Logger) Debugf(format string, args ...any) { l.printf(Debug, format, args) }

// WarnOnce logs a warning the first time that it is called with key.
func (l *Logger) WarnOnce(key, format string, args ...any) {
	l.mu.Lock()
	_, seen := l.once[key]
	if !seen && len(l.once) < maxOnce {
		if l.once == nil {
			l.once = map[string]struct{}{}
		}
		l.once[key] = struct{}{}
	}
	l.mu.Unlock()
	if !seen {
		l.printf(Warn, format, args)
	}
}

func (l *Logger) printf(level Level, format string, args []any) {
	if !l.Enabled(level) {
		return
	}
	l.Line("DD_EXTENSION | " + names[level] + " | " + fmt.Sprintf(format, args...))
}

// Line writes one line whatever the level. Line breaks in it are replaced, and
// what Hide was told is left out.
func (l *Logger) Line(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, secret := range l.hidden {
		line = strings.ReplaceAll(line, secret, "[hidden]")
	}
	if strings.ContainsAny(line, "\r\n") {
		line = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(line)
	}
	out := l.out
	if out == nil {
		out = os.Stderr
	}
	_, _ = io.WriteString(out, line+"\n")
}

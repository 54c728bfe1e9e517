package coldstart

import (
	"bytes"
	"sync"
	"time"
)

// readyFinder looks for the line in which an extension says how long it took.
type readyFinder struct {
	mu sync.Mutex
	d  time.Duration
}

func (f *readyFinder) see(line []byte) {
	_, rest, ok := bytes.Cut(line, []byte("ready in "))
	if !ok {
		return
	}
	digits := bytes.IndexFunc(rest, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
	if digits <= 0 || !bytes.HasPrefix(bytes.TrimLeft(rest[digits:], " "), []byte("ms")) {
		return
	}
	d, err := time.ParseDuration(string(rest[:digits]) + "ms")
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.d == 0 {
		f.d = d
	}
}

func (f *readyFinder) found() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.d
}

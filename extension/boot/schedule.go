package boot

import (
	"sync"
	"time"

	"github.com/initprof/initprof/extension/config"
)

// The adaptive strategy flushes at the end of each invocation, which makes the
// environment wait, until that many have come, each within a minute of the one
// before. From then on it flushes by the clock: what waits is sent soon enough.
const (
	adaptiveAfter = 20
	adaptiveGap   = time.Minute
)

// schedule decides when to flush. The zero value has never flushed.
type schedule struct {
	strategy config.FlushStrategy

	mu         sync.Mutex
	lastInvoke time.Time
	lastFlush  time.Time
	frequent   int
}

// atEnd counts an invocation that begins, and says whether it is one to flush at
// the end of.
func (s *schedule) atEnd(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.lastInvoke) > adaptiveGap {
		s.frequent = 0
	}
	s.lastInvoke = now
	s.frequent++
	return s.strategy.Mode == "end" || s.strategy.Mode == "adaptive" && s.frequent <= adaptiveAfter
}

// due says whether the interval has passed since the last flush.
func (s *schedule) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strategy.Mode != "end" && now.Sub(s.lastFlush) >= s.strategy.Interval
}

func (s *schedule) flushed(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFlush = now
}

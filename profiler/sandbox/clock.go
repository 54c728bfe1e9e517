package sandbox

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// The clock exists on every Linux; an error means a broken build.
		panic("sandbox: clock_gettime(CLOCK_MONOTONIC): " + err.Error())
	}
	return ts.Nano()
}

// coarse is how long before a deadline sleepUntil stops trusting Go's timers:
// the runtime's poller rounds to milliseconds when nothing else is running.
const coarse = 2 * time.Millisecond

// sleepUntil returns when CLOCK_MONOTONIC has reached at, within some tens of
// microseconds, or earlier with ctx's error.
func sleepUntil(ctx context.Context, at int64) error {
	if far := time.Duration(at-monotonic()) - coarse; far > 0 {
		timer := time.NewTimer(far)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if at > monotonic() {
		// The kernel may wake a thread 50 µs late to save wake-ups; this one asks
		// for 1 ns meanwhile. 0 sets the default again (prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) == nil {
			defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()
		}
		ts := unix.NsecToTimespec(at)
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
		}
	}
	return ctx.Err()
}

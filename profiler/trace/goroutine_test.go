package trace

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// status is a change of goroutine g's status on a thread; its ID is g's number.
func status(at int64, tid int, g uint64, from, to GoStatus, reason ...string) *Goroutine {
	e := &Goroutine{Header: head(at, tid), G: 0xc000 + g, ID: g, From: from, To: to, Reason: strings.Join(reason, "")}
	if from == GoDead {
		e.StartPC, e.CreatedPC, e.Parent = 0x100*g, 0x10*g, g-1
	}
	return e
}

func seen(at int64, tid int, g uint64) *Goroutine {
	return &Goroutine{Header: head(at, tid), G: 0xc000 + g, ID: g, From: GoRunning, To: GoRunning, Seen: true}
}

// describeGoroutines writes one line an interval.
func describeGoroutines(tl *Timeline) string {
	var b strings.Builder
	for _, g := range tl.Goroutines {
		fmt.Fprintf(&b, "goroutine %d %d..%d\n", g.ID, g.Start, g.End)
		for _, i := range g.Intervals {
			fmt.Fprintf(&b, "  %d..%d %s", i.Start, i.End, i.State)
			if i.Thread != nil {
				fmt.Fprintf(&b, " on %d", i.Thread.TID)
			}
			if i.Call != nil {
				fmt.Fprintf(&b, " in %s", tl.SyscallName(i.Call.Syscall))
			}
			if i.Reason != "" {
				fmt.Fprintf(&b, " for %s", i.Reason)
			}
			if r := i.Ready; r != nil && i.State == GoCanRun {
				fmt.Fprintf(&b, " by %s", r.Source)
				if r.By != nil {
					fmt.Fprintf(&b, " %d", r.By.ID)
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestGoroutines(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []Event
		want   string
	}{
		{
			name: "running is divided by what the thread did, calls of the runtime are not system calls",
			events: []Event{
				status(100, 10, 1, GoDead, GoRunnable), status(110, 10, 1, GoRunnable, GoRunning),
				call(t, 10, "read", 120, 140, 1),
				&Fault{Header: head(150, 10), End: 155, Address: 1},
				swtch(160, 10, 99, SwitchPreempted), swtch(170, 99, 10, SwitchPreempted),
				call(t, 10, "madvise", 175, 180, 0),
				status(200, 10, 1, GoRunning, GoWaiting, "sleep"),
			},
			want: `
goroutine 1 100..300
  100..110 runnable by scheduler
  110..120 on_cpu on 10
  120..140 syscall on 10 in read
  140..150 on_cpu on 10
  150..155 fault on 10
  155..160 on_cpu on 10
  160..170 runqueue on 10
  170..200 on_cpu on 10
  200..300 waiting for sleep
`,
		},
		{
			name: "a goroutine wakes another, a timer, the network and the collector do too",
			events: []Event{
				status(10, 10, 1, GoDead, GoRunnable), status(11, 10, 1, GoRunnable, GoRunning),
				status(12, 10, 2, GoDead, GoRunnable), status(20, 10, 1, GoRunning, GoWaiting, "chan receive"),
				status(21, 10, 2, GoRunnable, GoRunning), status(30, 10, 1, GoWaiting, GoRunnable),
				status(40, 10, 2, GoRunning, GoWaiting, "IO wait"), status(50, 10, 2, GoWaiting, GoRunnable),
				status(51, 10, 2, GoRunnable, GoRunning), status(60, 10, 2, GoRunning, GoWaiting, "sleep"),
				status(70, 10, 2, GoWaiting, GoRunnable), status(71, 10, 2, GoRunnable, GoRunning),
				status(80, 10, 2, GoRunning, GoWaiting, "GC assist wait"), status(90, 10, 2, GoWaiting, GoRunnable),
			},
			want: `
goroutine 1 10..300
  10..11 runnable by scheduler
  11..20 on_cpu on 10
  20..30 waiting for chan receive
  30..300 runnable by goroutine 2
goroutine 2 12..300
  12..21 runnable by goroutine 1
  21..40 on_cpu on 10
  40..50 waiting for IO wait
  50..51 runnable by network
  51..60 on_cpu on 10
  60..70 waiting for sleep
  70..71 runnable by timer
  71..80 on_cpu on 10
  80..90 waiting for GC assist wait
  90..300 runnable by gc
`,
		},
		{
			name: "they end with their process, and what ran with its thread",
			events: []Event{
				status(10, 10, 1, GoDead, GoRunnable), status(11, 10, 1, GoRunnable, GoRunning), status(12, 10, 2, GoDead, GoRunnable),
				&Fork{Header: head(13, 10), ChildPID: 10, ChildTID: 11},
				status(14, 11, 2, GoRunnable, GoRunning), status(15, 10, 3, GoDead, GoRunnable),
				&Exit{Header: head(40, 11)}, swtch(41, 11, 99, SwitchDead),
				&Exit{Header: head(50, 10), GroupDead: true}, swtch(51, 10, 99, SwitchDead),
			},
			want: `
goroutine 1 10..51
  10..11 runnable by scheduler
  11..51 on_cpu on 10
goroutine 2 12..41
  12..14 runnable by goroutine 1
  14..41 on_cpu on 11
goroutine 3 15..51
  15..51 runnable by goroutine 1
`,
		},
		{
			name: "an exec ends those of the program before",
			events: []Event{
				status(10, 10, 1, GoDead, GoRunnable), status(11, 10, 1, GoRunnable, GoRunning),
				&Exec{Header: head(40, 10)}, status(60, 10, 1, GoDead, GoRunnable),
			},
			want: `
goroutine 1 10..40
  10..11 runnable by scheduler
  11..40 on_cpu on 10
goroutine 1 60..300
  60..300 runnable by scheduler
`,
		},
		{
			name: "statuses of Go 1.25's system calls change nothing that the kernel's own do not",
			events: []Event{
				status(10, 10, 1, GoDead, GoRunnable), status(11, 10, 1, GoRunnable, GoRunning),
				status(20, 10, 1, GoRunning, GoSyscall), call(t, 10, "write", 21, 29, 1), status(30, 10, 1, GoSyscall, GoRunning),
			},
			want: `
goroutine 1 10..300
  10..11 runnable by scheduler
  11..21 on_cpu on 10
  21..29 syscall on 10 in write
  29..300 on_cpu on 10
`,
		},
		{
			name: "preempted unseen: it left when its thread ran another, or began to wait",
			events: []Event{
				status(10, 10, 1, GoDead, GoRunnable), status(11, 10, 1, GoRunnable, GoRunning),
				status(12, 10, 2, GoDead, GoRunnable),
				status(30, 10, 2, GoRunnable, GoRunning), status(40, 11, 1, GoWaiting, GoRunnable),
				call(t, 10, "futex", 50, 90, 0), status(80, 11, 2, GoWaiting, GoRunnable),
			},
			want: `
goroutine 1 10..300
  10..11 runnable by scheduler
  11..30 on_cpu on 10
  30..40 waiting for preempted
  40..300 runnable by gc
goroutine 2 12..300
  12..30 runnable by goroutine 1
  30..50 on_cpu on 10
  50..80 waiting for preempted
  80..300 runnable by gc
`,
		},
		{
			name: "an ID that comes late, an address that is used again, and a life too short to show",
			events: []Event{
				&Goroutine{Header: head(10, 10), G: 0xc001, From: GoDead, To: GoRunnable},
				status(20, 10, 1, GoRunnable, GoRunning), status(30, 10, 1, GoRunning, GoDead),
				&Goroutine{Header: head(40, 10), G: 0xc001, From: GoDead, To: GoRunnable},
				&Goroutine{Header: head(50, 10), G: 0xc001, ID: 7, From: GoRunnable, To: GoRunning},
				status(60, 10, 9, GoDead, GoRunnable), status(60, 10, 9, GoRunnable, GoDead),
			},
			want: `
goroutine 1 10..30
  10..20 runnable by scheduler
  20..30 on_cpu on 10
goroutine 7 40..300
  40..50 runnable by scheduler
  50..300 on_cpu on 10
`,
		},
		{
			name: "cheap mode: seen at events of its thread, and between them only if the same was there",
			events: []Event{
				seen(10, 10, 1), call(t, 10, "read", 20, 30, 1), call(t, 10, "read", 40, 45, 1),
				seen(60, 10, 2), call(t, 10, "write", 61, 70, 1),
				&Goroutine{Header: head(90, 10), Seen: true, From: GoRunning, To: GoRunning},
			},
			want: `
goroutine 1 10..300
  10..20 on_cpu on 10
  20..30 syscall on 10 in read
  30..40 on_cpu on 10
  40..45 syscall on 10 in read
  45..300 waiting for not seen
goroutine 2 60..300
  60..61 on_cpu on 10
  61..70 syscall on 10 in write
  70..300 waiting for not seen
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl, err := Build(c.events, BuildOptions{Arch: "amd64", Stop: 300})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), describeGoroutines(tl)); diff != "" {
				t.Errorf("- want, + got:\n%s", diff)
			}
		})
	}
}

// What a thread was running is known at each instant.
func TestGoroutineAt(t *testing.T) {
	tl, err := Build([]Event{
		status(10, 10, 1, GoDead, GoRunnable), status(20, 10, 1, GoRunnable, GoRunning), status(30, 10, 1, GoRunning, GoWaiting, "sleep"),
		status(12, 10, 2, GoDead, GoRunnable), status(40, 10, 2, GoRunnable, GoRunning),
	}, BuildOptions{Arch: "amd64", Stop: 100})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int64]uint64{10: 0, 20: 1, 29: 1, 30: 0, 39: 0, 40: 2, 99: 2, 100: 0} {
		got := uint64(0)
		if g := tl.Threads[0].GoroutineAt(at); g != nil {
			got = g.ID
		}
		if got != want {
			t.Errorf("at %d goroutine %d, want %d", at, got, want)
		}
	}
}

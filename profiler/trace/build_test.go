package trace

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Shorthands for hand-made streams: process 10 is the subject, times are ns.
func head(at int64, tid int) Header { return Header{Time: at, PID: 10, TID: tid, CPU: 0} }

func number(t *testing.T, name string) int {
	t.Helper()
	nr, ok := SyscallNumber("amd64", name)
	if !ok {
		t.Fatalf("no system call %s", name)
	}
	return nr
}

func call(t *testing.T, tid int, name string, begin, end, result int64, args ...uint64) *Syscall {
	s := &Syscall{Header: head(begin, tid), End: end, Number: number(t, name), Return: result}
	copy(s.Args[:], args)
	return s
}

// swtch is a switch on CPU 0; a TID of 99 is a foreign thread.
func swtch(at int64, from, to int, state SwitchState) *Switch {
	pid := func(tid int) int {
		switch tid {
		case 0:
			return 0
		case 99:
			return 99
		}
		return 10
	}
	return &Switch{Header: Header{Time: at, PID: pid(from), TID: from}, State: state, Comm: fmt.Sprint("t", from), NextPID: pid(to), NextTID: to, NextComm: fmt.Sprint("t", to)}
}

func waking(at int64, by, target int) *Waking {
	return &Waking{Header: Header{Time: at, PID: 99, TID: by}, TargetPID: 10, TargetTID: target}
}

// describe writes one line an interval.
func describe(tl *Timeline) string {
	var b strings.Builder
	for _, t := range tl.Threads {
		fmt.Fprintf(&b, "thread %d %d..%d\n", t.TID, t.Start, t.End)
		for _, i := range t.Intervals {
			fmt.Fprintf(&b, "  %d..%d %s", i.Start, i.End, i.State)
			if i.Syscall != nil {
				fmt.Fprintf(&b, " in %s", tl.SyscallName(i.Syscall.Syscall))
			}
			if i.Fault != nil {
				fmt.Fprintf(&b, " fault %#x", i.Fault.Address)
			}
			if i.Behind != nil {
				fmt.Fprintf(&b, " behind %d", i.Behind.TID)
			}
			if i.Waker != nil {
				fmt.Fprintf(&b, " waker %d", i.Waker.TID)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name    string
		events  []Event
		stop    int64
		want    string
		repairs Repairs
	}{
		{
			name: "sleep, fault in a call, runnable behind a foreign thread",
			events: []Event{
				call(t, 10, "nanosleep", 100, 400, 0), swtch(110, 10, 0, SwitchSleeping),
				waking(300, 0, 10), swtch(320, 0, 99, 0), swtch(350, 99, 10, 0),
				call(t, 10, "read", 500, 600, 5), &Fault{Header: head(520, 10), End: 560, Address: 0x1000, Kernel: true},
				swtch(700, 10, 99, SwitchPreempted), swtch(750, 99, 10, SwitchPreempted),
			},
			stop: 800,
			want: `thread 10 100..800
  100..110 kernel in nanosleep
  110..300 waiting in nanosleep waker 0
  300..320 runnable in nanosleep behind 0 waker 0
  320..350 runnable in nanosleep behind 99 waker 0
  350..400 kernel in nanosleep
  400..500 user
  500..520 kernel in read
  520..560 fault in read fault 0x1000
  560..600 kernel in read
  600..700 user
  700..750 runnable behind 99
  750..800 user
`,
		},
		{
			name: "a new thread returns from clone without an entry, and exits",
			events: []Event{
				call(t, 10, "clone", 100, 150, 11), &Fork{Header: head(120, 10), ChildPID: 10, ChildTID: 11},
				swtch(200, 10, 11, SwitchSleeping),
				&Syscall{Header: Header{PID: 10, TID: 11}, End: 220, Number: number(t, "clone")},
				call(t, 11, "exit", 250, 0, 0), &Exit{Header: head(260, 11)}, swtch(270, 11, 0, SwitchDead),
			},
			stop: 300,
			want: `thread 10 100..300
  100..150 kernel in clone
  150..200 user
  200..300 waiting
thread 11 120..270
  120..200 runnable in clone behind 10
  200..220 kernel in clone
  220..250 user
  250..260 kernel in exit
  260..270 kernel in exit
`,
		},
		{
			name: "a wake-up that crosses the sleep",
			events: []Event{
				call(t, 10, "read", 100, 200, 1), waking(109, 99, 10), swtch(110, 10, 0, SwitchSleeping), swtch(115, 0, 10, 0),
			},
			want: `thread 10 100..200
  100..110 kernel in read
  110..115 runnable in read behind 0 waker 99
  115..200 kernel in read
`,
		},
		{
			name: "lost edges are bridged",
			events: []Event{
				call(t, 10, "read", 100, 0, 0), swtch(110, 10, 0, SwitchSleeping), call(t, 10, "write", 150, 160, 1),
			},
			stop: 200,
			want: `thread 10 100..200
  100..110 kernel in read
  110..150 waiting in read
  150..160 kernel in write
  160..200 user
`,
			repairs: Repairs{Switches: 1, Calls: 1},
		},
		{
			name: "exec by a thread that is not the leader",
			events: []Event{
				call(t, 10, "futex", 90, 0, 0), swtch(95, 10, 11, SwitchSleeping),
				call(t, 11, "execve", 100, 200, 0), waking(110, 11, 10), swtch(111, 11, 10, SwitchSleeping),
				&Exit{Header: head(120, 10)}, swtch(130, 10, 11, SwitchDead),
				&Exec{Header: head(150, 10), OldTID: 11, Path: "/bin/x"},
				call(t, 10, "brk", 250, 260, 0),
			},
			stop: 300,
			want: `thread 10 90..130
  90..95 kernel in futex
  95..110 waiting in futex waker 11
  110..111 runnable in futex behind 11 waker 11
  111..120 kernel in futex
  120..130 kernel in futex
thread 10 95..300
  95..100 user
  100..111 kernel in execve
  111..130 waiting in execve
  130..200 kernel in execve
  200..250 user
  250..260 kernel in brk
  260..300 user
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl, err := Build(c.events, BuildOptions{Arch: "amd64", Stop: c.stop})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, describe(tl)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.repairs, tl.Repairs); diff != "" {
				t.Error(diff)
			}
			// The order of records does not matter.
			shuffled := append([]Event(nil), c.events...)
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if tl, err = Build(shuffled, BuildOptions{Arch: "amd64", Stop: c.stop}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, describe(tl)); diff != "" {
				t.Error("shuffled:", diff)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	open := call(t, 10, "openat", 100, 110, 3, 0xffffff9c, 0, 0x80000)
	open.Path = "/etc/ssl/cert.pem"
	tl, err := Build([]Event{
		open,
		call(t, 10, "fcntl", 111, 112, 7, 3, fcntlDup),
		call(t, 10, "read", 120, 130, 1000, 3),
		call(t, 10, "close", 131, 132, 0, 3),
		call(t, 10, "read", 140, 150, 24, 7),
		call(t, 10, "mmap", 151, 152, 0x10000, 0, 8192, ProtRead, 2, 7, 0),
		&Fault{Header: head(160, 10), End: 170, Address: 0x11fff},
		call(t, 10, "close", 180, 182, 0, 7),
		call(t, 10, "read", 190, 191, -9, 7),
	}, BuildOptions{Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	want := []FileUse{{Path: "/etc/ssl/cert.pem", Opens: 1, Read: 1024, NS: 10 + 1 + 10 + 1 + 10 + 1 + 2}}
	if diff := cmp.Diff(want, tl.Files(0, 1000)); diff != "" {
		t.Error(diff)
	}
	if got := tl.Faults[0].Region; got != (Region{"/etc/ssl/cert.pem", "rodata"}) {
		t.Errorf("fault in %+v", got)
	}
	if d := tl.Calls[0].File; d.Closed != 180 {
		t.Errorf("file closed at %d, want 180: when its last descriptor was", d.Closed)
	}
}

func TestSyscallName(t *testing.T) {
	for _, c := range []struct {
		arch string
		nr   int
		want string
	}{{"amd64", 0, "read"}, {"arm64", 63, "read"}, {"amd64", 262, "newfstatat"}, {"arm64", 79, "newfstatat"}, {"amd64", -1, "syscall_-1"}, {"riscv64", 3, "syscall_3"}} {
		if got := SyscallName(c.arch, c.nr); got != c.want {
			t.Errorf("SyscallName(%s, %d) = %s, want %s", c.arch, c.nr, got, c.want)
		}
	}
}

// decode makes events of arbitrary bytes: few IDs, CPUs and times, so that
// they meet.
func decode(data []byte) []Event {
	var events []Event
	for len(data) >= 6 {
		a, rest := data[:6], data[6:]
		data = rest
		h := Header{Time: int64(a[1]) * 3, CPU: int(a[2] & 1), PID: 10 + int(a[2]>>1&1), TID: 10 + int(a[2]>>2&3)}
		end := int64(0)
		if a[3] != 0 {
			end = h.Time + int64(a[3])
		}
		switch a[0] % 12 {
		case 0, 1:
			e := &Syscall{Header: h, End: end, Number: int(a[4]), Return: int64(int8(a[5])), Args: [6]uint64{uint64(a[5] & 7), uint64(a[4] & 7), uint64(a[3])}}
			if a[5]&16 != 0 {
				e.Time = 0
			}
			if a[5]&32 != 0 {
				e.Path = "etc/x"
			}
			events = append(events, e)
		case 2, 3:
			e := &Switch{Header: h, State: SwitchState(a[3] % 5), NextPID: 10 + int(a[4]&3), NextTID: 10 + int(a[5]&3)}
			events = append(events, e)
		case 4:
			events = append(events, &Waking{Header: h, TargetPID: 10 + int(a[4]&1), TargetTID: 10 + int(a[5]&3)})
		case 5:
			events = append(events, &Fork{Header: h, ChildPID: 10 + int(a[4]&1), ChildTID: 10 + int(a[5]&3)})
		case 6:
			events = append(events, &Exec{Header: h, OldTID: 10 + int(a[5]&3)})
		case 7:
			events = append(events, &Exit{Header: h, GroupDead: a[4]&1 == 1})
		case 8:
			events = append(events, &Fault{Header: h, End: end, Kernel: a[4]&1 == 1, Address: uint64(a[5]) << 8})
		case 9:
			events = append(events, &Sample{Header: h, Kernel: a[4]&1 == 1})
		case 10, 11:
			events = append(events, &Goroutine{
				Header: h, G: uint64(a[3] & 3), ID: uint64(a[3] >> 2 & 7), From: GoStatus(a[4] % 11), To: GoStatus(a[4] >> 4), Seen: a[5]&15 == 0,
			})
		}
	}
	return events
}

// checkTiling compares sums with lifetimes by a way of its own.
func checkTiling(t *testing.T, tl *Timeline) {
	t.Helper()
	for _, th := range tl.Threads {
		var sum int64
		for _, i := range th.Intervals {
			sum += i.NS()
		}
		if sum != th.End-th.Start {
			t.Errorf("thread %d: intervals sum to %d, it lived %d", th.TID, sum, th.End-th.Start)
		}
		var clipped int64
		mid := (th.Start + th.End) / 2
		for i := range th.Between(th.Start, mid) {
			clipped += i.NS()
		}
		for i := range th.Between(mid, th.End) {
			clipped += i.NS()
		}
		if clipped != sum {
			t.Errorf("thread %d: parts sum to %d, the whole to %d", th.TID, clipped, sum)
		}
	}
	for _, g := range tl.Goroutines {
		var sum int64
		for i := range g.Between(g.Start, g.End) {
			sum += i.NS()
		}
		if sum != g.End-g.Start {
			t.Errorf("goroutine %d: intervals sum to %d, it lived %d", g.ID, sum, g.End-g.Start)
		}
	}
}

func TestRandomStreamsTile(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		data := make([]byte, 6*(1+r.IntN(60)))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		tl, err := Build(decode(data), BuildOptions{Arch: "amd64", Stop: int64(r.IntN(2)) * 500})
		if err != nil {
			t.Fatal(err)
		}
		checkTiling(t, tl)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add([]byte("\x00\x20\x00\x10\x00\x00\x02\x28\x00\x01\x00\x01"), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, stop int64) {
		tl, err := Build(decode(data), BuildOptions{Arch: "arm64", Stop: max(stop, 0)})
		if err != nil {
			t.Fatal(err)
		}
		checkTiling(t, tl)
	})
}

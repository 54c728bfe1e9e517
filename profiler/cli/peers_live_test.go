package cli_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/testdata/subjects"
)

// A goroutine that waits in a read of a loopback socket is made ready by the
// goroutine that wrote, which is the one that accepted, whichever thread polled.
func TestPeerOfNetworkWait(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	subject := filepath.Join(dir, "goroutines")
	build := exec.Command("go", "build", "-o", subject, "../../testdata/subjects/go/goroutines/main.go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(dir, "peer.initprof")
	const n = 5
	code, _, errOut := initprof("record", "-q", "-n", "5", "--untraced", "0", "-o", path, "--", subject, filepath.Join(dir, "trace"))
	if code != 3 { // it ends before it asks for an event
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	run, err := record.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	waits, named := 0, 0
	for k := 1; k <= n; k++ {
		c, err := run.ColdStart(k)
		if err != nil {
			t.Fatal(err)
		}
		accepted := acceptor(c.Timeline)
		if accepted == nil {
			t.Fatal("no goroutine accepted a connection")
		}
		peers := ledger.NewPeers(ledger.Input{Timeline: c.Timeline, Phases: c.Phases, Goroutines: true})
		for _, g := range c.Timeline.Goroutines {
			for i := range g.Between(c.Phases.Start, c.Phases.End) {
				if i.State != trace.GoWaits || i.Reason != "IO wait" || g == accepted || i.Ready == nil || i.NS() < 5e6 {
					continue // not the read: connecting needs nobody's write
				}
				waits++
				if peer := peers.Of(g, i.Ready); peer.Goroutine == accepted {
					named++
				} else {
					t.Errorf("cold start %d: goroutine %d was made ready by %+v, not by goroutine %d", k, g.ID, peer, accepted.ID)
				}
			}
		}
	}
	t.Logf("named %d of %d", named, waits)
	if named == 0 {
		t.Error("no peer was named")
	}
}

// acceptor returns the goroutine that accepted a connection.
func acceptor(tl *trace.Timeline) *trace.GoroutineLife {
	for _, c := range tl.Calls {
		if tl.SyscallName(c.Syscall) == "accept4" && c.Returned() && !c.Failed() {
			return c.Thread.GoroutineAt(c.Until - 1)
		}
	}
	return nil
}

// A goroutine that reads answers of the environment was made ready by the answer
// of the request, whichever thread polled.
func TestEnvironmentIsThePeer(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "go.initprof")
	if code, _, errOut := initprof("record", "-q", "-n", "5", "--untraced", "0", "-o", path, "--", subjects.Build(t, subjects.GoStripped)); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	seen := map[string]bool{}
	for _, k := range []string{"1", "2", "3", "4", "5"} {
		for _, g := range report(t, path, "--run", k).Goroutines {
			for _, w := range g.Waiting {
				if w.Reason == "IO wait" && strings.HasPrefix(w.ReadyBy, "environment: answer of ") {
					seen[w.ReadyBy] = true
				}
			}
		}
	}
	for got := range seen {
		if !strings.HasSuffix(got, "/register") && !strings.HasSuffix(got, "/telemetry") {
			t.Errorf("made ready by %s, which is no request of the subject's INIT", got)
		}
	}
	if len(seen) == 0 {
		t.Error("no wait is for an answer of the environment")
	}
}

package usage

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// proc writes a copy of /proc.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const netDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  9999      1    0    0    0     0          0         0     9999      1    0    0    0     0       0          0
`

func TestSince(t *testing.T) {
	before, err := Read(proc(t, map[string]string{
		"stat":    "cpu  100 7 50 1000 3 0 0 0 0 0\ncpu0 60 0 30 500 0 0 0 0 0 0\ncpu1 40 0 20 500 0 0 0 0 0 0\nintr 5\n",
		"uptime":  "100.00 190.00\n",
		"net/dev": netDev + "  eth0: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Read(proc(t, map[string]string{
		"stat":    "cpu  150 7 60 1120 3 0 0 0 0 0\ncpu0 110 0 40 520 0 0 0 0 0 0\ncpu1 40 0 20 600 0 0 0 0 0 0\n",
		"uptime":  "101.00 191.20\n",
		"net/dev": netDev + "  eth0: 1500 2 0 0 0 0 0 0 2100 2 0 0 0 0 0 0\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	after.Since(&before, func(name string, v float64) { got[name] = v })
	want := map[string]float64{
		"cpu_user_time": 500, "cpu_system_time": 100, "cpu_total_time": 600, "num_cores": 2,
		"rx_bytes": 500, "tx_bytes": 100, "total_network": 600,
		"cpu_total_utilization_pct": 40, "cpu_total_utilization": 0.8, "cpu_max_utilization": 80, "cpu_min_utilization": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNetworkOfLambda(t *testing.T) {
	var s Snapshot
	s.dev([]byte(netDev + "  eth0: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\nvinternal_1: 30 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0\n x: broken\n"))
	if s.Received != 30 || s.Sent != 40 {
		t.Errorf("%+v", s)
	}
}

func TestHeld(t *testing.T) {
	root := proc(t, map[string]string{
		"1/fd/0": "", "1/fd/1": "", "1/task/1/x": "", "1/limits": "Limit                     Soft Limit           Hard Limit           Units\nMax processes             100                  200                  processes\nMax open files            1024                 4096                 files\n",
		"22/fd/0": "", "22/task/22/x": "", "22/task/23/x": "", "22/limits": "Max processes             unlimited            unlimited            processes\nMax open files            512                  4096                 files\n",
		"self/fd/0": "",
	})
	got := map[string]float64{}
	Held(root, "/nonexistent", func(name string, v float64) { got[name] = v })
	want := map[string]float64{"fd_use": 3, "threads_use": 3, "fd_max": 512, "threads_max": 100}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestThisMachine reads the real files: a second of work is seen.
func TestThisMachine(t *testing.T) {
	before, err := Read("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
	}
	after, err := Read("/proc")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	add := func(name string, v float64) { got[name] = v }
	after.Since(&before, add)
	Held("/proc", "/tmp", add)
	if got["cpu_total_time"] <= 0 || got["cpu_max_utilization"] <= 0 || got["fd_use"] < 3 || got["threads_use"] < 1 || got["tmp_max"] <= 0 {
		t.Errorf("%v", got)
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte("cpu 1 2 3 4\ncpu0 1 2 3 4\n"), []byte(netDev))
	f.Fuzz(func(_ *testing.T, stat, dev []byte) {
		var s Snapshot
		_ = s.stat(stat)
		s.dev(dev)
		_ = limit(stat, "Max")
	})
}

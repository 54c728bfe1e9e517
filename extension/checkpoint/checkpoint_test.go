package checkpoint

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReachAllocatesNothing(t *testing.T) {
	LogTo(nil)
	for name, call := range map[string]func(){
		"Reach": func() { Reach("config_parse") },
		"Begin": func() { Begin("subscribe", 1) },
		"End":   func() { End("subscribe", 1) },
	} {
		if got := testing.AllocsPerRun(1000, call); got != 0 {
			t.Errorf("%s allocates %v times", name, got)
		}
	}
}

func logged(t *testing.T, calls func()) []string {
	t.Helper()
	var out bytes.Buffer
	LogTo(&out)
	t.Cleanup(func() { LogTo(nil) })
	calls()
	LogTo(nil)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestLog(t *testing.T) {
	lines := logged(t, func() {
		Reach("first")
		Begin("work", 7)
		Reach("second\nline")
		End("work", 7)
		End("never_begun", 1)
	})
	want := []string{
		`^DD_EXTENSION \| DEBUG \| checkpoint available_parallelism=\d+ num_cpu=\d+$`,
		`^DD_EXTENSION \| DEBUG \| checkpoint first delta_ms=\d+\.\d{6} since_process_start_in_go_ms=\d+\.\d{6}$`,
		`^DD_EXTENSION \| DEBUG \| checkpoint second_line delta_ms=\d+\.\d{6} since_process_start_in_go_ms=\d+\.\d{6}$`,
		`^DD_EXTENSION \| DEBUG \| span work id=7 own_ms=\d+\.\d{6} since_process_start_in_go_ms=\d+\.\d{6}$`,
		`^DD_EXTENSION \| DEBUG \| span never_begun id=1 since_process_start_in_go_ms=\d+\.\d{6}$`,
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), strings.Join(lines, "\n"))
	}
	for i := range want {
		if !regexp.MustCompile(want[i]).MatchString(lines[i]) {
			t.Errorf("line %d is %q, want %s", i, lines[i], want[i])
		}
	}
}

func TestOpenSpansAreBounded(t *testing.T) {
	logged(t, func() {
		for id := range uint64(10 * maxOpenSpans) {
			Begin("leak", id)
		}
	})
	if len(state.open) > maxOpenSpans {
		t.Errorf("%d open spans are remembered", len(state.open))
	}
	state.open = nil
}

func TestProcessStart(t *testing.T) {
	now := time.Now()
	start := processStart(now)
	if age := now.Sub(start); age <= 0 || age > time.Hour {
		t.Errorf("the process is %v old", age)
	}
	later := processStart(time.Now())
	if d := later.Sub(start).Abs(); d > time.Microsecond {
		t.Errorf("two origins differ by %v", d)
	}
}

func TestAppendMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                              "0.000000",
		1:                              "0.000001",
		1234567:                        "1.234567",
		24970*time.Microsecond + 1:     "24.970001",
		-1500 * time.Microsecond:       "-1.500000",
		3*time.Second + 20*time.Second: "23000.000000",
	} {
		if got := string(appendMilliseconds(nil, d)); got != want {
			t.Errorf("%d ns: %s, want %s", int64(d), got, want)
		}
	}
}

func BenchmarkReach(b *testing.B) {
	LogTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		Reach("config_parse")
	}
}

func BenchmarkReachLogged(b *testing.B) {
	LogTo(io.Discard)
	defer LogTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		state.recorded = 0
		Reach("config_parse")
	}
}

func TestSummary(t *testing.T) {
	lines := logged(t, func() {
		Reach("first")
		for range maxRecords + 3 {
			Reach(`"second"`)
		}
		Summary()
	})
	var got struct {
		Checkpoints []map[string]any `json:"checkpoints"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Checkpoints) != maxRecords {
		t.Errorf("%d checkpoints", len(got.Checkpoints))
	}
	first := got.Checkpoints[0]
	want := []string{
		"delta_ns", "gc_cycles", "heap_bytes", "involuntary_switches", "major_faults", "max_rss_bytes", "minor_faults",
		"name", "since_process_start_in_go_ns", "system_ns", "user_ns", "voluntary_switches",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(first))); diff != "" || first["name"] != "first" {
		t.Errorf("%v %s", first, diff)
	}
	for _, key := range []string{"minor_faults", "max_rss_bytes", "heap_bytes"} {
		if v, _ := first[key].(float64); v <= 0 {
			t.Errorf("%s is %v", key, first[key])
		}
	}
}

// TestRecord does known work between two records.
func TestRecord(t *testing.T) {
	const pages, size = 4096, 32 << 20
	var before, after record
	state.Lock()
	defer state.Unlock()
	before.measure()
	mapped, err := syscall.Mmap(-1, 0, pages*os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Madvise(mapped, syscall.MADV_NOHUGEPAGE)
	for i := range pages {
		mapped[i*os.Getpagesize()] = 1
	}
	_ = syscall.Munmap(mapped)
	held := make([]byte, size)
	for range 3 {
		runtime.GC()
	}
	time.Sleep(time.Millisecond) // a voluntary switch
	after.measure()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	runtime.KeepAlive(held)
	if d := after.minorFaults - before.minorFaults; d < pages {
		t.Errorf("%d minor faults of %d pages", d, pages)
	}
	if d := after.gcCycles - before.gcCycles; d < 3 {
		t.Errorf("%d GC cycles, 3 were forced", d)
	}
	if after.heap < size || math.Abs(float64(after.heap)-float64(m.HeapAlloc)) > 1<<20 {
		t.Errorf("a heap of %d bytes, runtime.ReadMemStats says %d", after.heap, m.HeapAlloc)
	}
	if after.voluntary == before.voluntary || after.user+after.system <= before.user+before.system {
		t.Errorf("%+v, then %+v", before, after)
	}
}

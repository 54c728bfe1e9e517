package capture

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Unwinding and naming 100,000 events: those of python importing ssl and
// http.client, over and over, on two CPUs. It needs root.
func BenchmarkUnwind100000(b *testing.B) {
	tracer, err := New(Options{Unwinders: 2})
	if err != nil {
		b.Skip(err)
	}
	defer func() { _ = tracer.Close() }()
	nonce := rand.Uint64()
	if err := tracer.Arm(nonce, 0); err != nil {
		b.Fatal(err)
	}
	holder := exec.Command("/proc/self/exe", "/usr/bin/python3", "-c", "import ssl, json, http.client")
	holder.Env = []string{"CAPTURE_TEST_NONCE=" + strconv.FormatUint(nonce, 10)}
	holder.Stdin = strings.NewReader("x")
	if out, err := holder.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	one, stacks, err := tracer.halt()
	if err != nil {
		b.Fatal(err)
	}
	tracer.addMappings(one)
	// Repeated copies go through the same doors as those from the ring buffer.
	defer func(n int) { runtime.GOMAXPROCS(n) }(runtime.GOMAXPROCS(2))
	const events = 100_000
	for b.Loop() {
		b.StopTimer()
		raw, many := *one, copies{}
		raw.Records = nil
		for n := 0; n < events; n += len(stacks.list) {
			replica := map[uint32]*copiedThread{}
			for i := range stacks.list {
				e := &stacks.list[i]
				if replica[e.head.H.Tid] == nil {
					replica[e.head.H.Tid] = &copiedThread{}
				}
				many.add(recordOf(e, replica[e.head.H.Tid].restore(e)))
			}
			raw.Records = append(raw.Records, one.Records...)
		}
		runtime.GC()
		peak := watchHeap()
		b.StartTimer()
		decoded, err := raw.Decode()
		if err != nil {
			b.Fatal(err)
		}
		tracer.unwindStacks(&raw, &many, decoded)
		if decoded, err = raw.Decode(); err != nil {
			b.Fatal(err)
		}
		_, summary, err := symbolize.Collect(context.Background(), decoded, symbolize.Options{
			Parallel: 2,
			Open: func(path string, _ *trace.Mapping) (io.ReaderAt, io.Closer, error) {
				f, err := os.Open(path)
				return f, f, err
			},
		})
		if err != nil || summary.Named == 0 {
			b.Fatal(summary, err)
		}
		b.StopTimer()
		b.ReportMetric(float64(peak())/1e6, "peak-MB")
		b.ReportMetric(float64(len(many.list)), "stacks")
		b.StartTimer()
	}
}

// recordOf makes the EVENT_STACK record of a copy.
func recordOf(e *copied, memory []byte) []byte {
	return append(slices.Clone(bytesOf(&e.head)), memory...)
}

// watchHeap follows the heap until its result is asked for.
func watchHeap() (peak func() uint64) {
	stop, result := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				result <- most
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(stop); return <-result }
}

package symbolize

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/testdata/subjects"
)

// BenchmarkCollect names 100,000 distinct addresses, spread over all the code of
// a Go program and of a Rust one with DWARF, and then resolves them; ns/address
// is of one, peak-MB the most memory that the process had until then.
func BenchmarkCollect(b *testing.B) {
	path, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("go", func(b *testing.B) { benchmarkCollect(b, path) })
	b.Run("rust", func(b *testing.B) { benchmarkCollect(b, subjects.Build(b, subjects.RustExtension)) })
}

func benchmarkCollect(b *testing.B, path string) {
	const n = 100_000
	o := openObject(b, path)
	mapping := mappingOf(o, path, 1, 1, 0)
	text := o.code[0]
	for _, c := range o.code {
		if c.end-c.start > text.end-text.start {
			text = codeRange{max(c.start, mapping.Start), min(c.end, mapping.Limit)}
		}
	}
	events := []trace.Event{mapping}
	var stack []uint64
	step := max(1, (text.end-text.start)/n)
	for i := range uint64(n) {
		stack = append(stack, text.start+i*step)
		if len(stack) == 50 {
			events = append(events, stackEvent(1, 2, stack, nil))
			stack = nil
		}
	}
	b.Run("collect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, s, err := Collect(context.Background(), events, Options{Open: openFile}); err != nil || s.Named < n*9/10 {
				b.Fatal(s, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/address")
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
			b.ReportMetric(float64(usage.Maxrss)/1024, "peak-MB")
		}
	})
	store, _, err := Collect(context.Background(), events, Options{Open: openFile})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("resolve", func(b *testing.B) {
		r := store.Resolver(events)
		b.ReportAllocs()
		for b.Loop() {
			for _, e := range events[1:] {
				for i, a := range e.(*trace.Sample).Stack.User {
					r.Resolve(1, 2, a, false, i > 0)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/address")
	})
}

func BenchmarkReadKernel(b *testing.B) {
	for b.Loop() {
		if _, err := ReadKernel(); err != nil {
			b.Skip(err)
		}
	}
}

package symbolize

import (
	"context"
	"os"
	"testing"

	"github.com/initprof/initprof/profiler/trace"
)

// BenchmarkCollect names 100,000 distinct addresses of a Go program and then
// resolves them; ns/address is of one.
func BenchmarkCollect(b *testing.B) {
	path, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	o := openObject(b, path)
	t := o.goTable()
	if t == nil {
		b.Fatal(o.Err())
	}
	const n = 100_000
	start, end := t.entry(0), t.entry(t.funcs)
	events := []trace.Event{mappingOf(o, path, 1, 1, 0)}
	var stack []uint64
	step := max(1, (end-start)/n)
	for i := range uint64(n) {
		stack = append(stack, start+i*step)
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

package capture_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/trace"
)

func userStack(e trace.Event) trace.Stack {
	switch e := e.(type) {
	case *trace.Syscall:
		return e.Stack
	case *trace.Switch:
		return e.Stack
	case *trace.Fault:
		return e.Stack
	case *trace.Sample:
		return e.Stack
	}
	return trace.Stack{}
}

func TestAny(t *testing.T) {
	command := os.Getenv("ANY")
	if command == "" {
		t.Skip()
	}
	tracer := needBPF(t, capture.Options{})
	raw, events := record(t, tracer, strings.Split(command, "\x01")...)
	fmt.Println("lost", raw.Losses, "events", len(events), "bytes", len(raw.Records))
	spaces := trace.NewSpaces(events)
	counts := map[string]int{}
	where := map[string]int{}
	var depths []int
	started := false
	for _, e := range events {
		if x, ok := e.(*trace.Exec); ok && x.Path == strings.Split(command, "\x01")[0] {
			started = true
		}
		s := userStack(e)
		if len(s.User) == 0 || !started {
			continue
		}
		kind := fmt.Sprintf("%T", e)
		counts[kind+" "+trace.Truncations[s.Truncated]]++
		counts["all "+trace.Truncations[s.Truncated]]++
		depths = append(depths, len(s.User))
		if s.Truncated != trace.Complete {
			last := s.User[len(s.User)-1]
			path := "?"
			if m := spaces.Mapping(e.Head().PID, e.Head().Time, last); m != nil {
				path = fmt.Sprintf("%s+%#x", m.Path, last-m.Start+m.Offset)
			}
			where[trace.Truncations[s.Truncated]+" "+path]++
		}
	}
	slices.Sort(depths)
	fmt.Println(counts)
	fmt.Println("median depth", depths[len(depths)/2], "max", depths[len(depths)-1])
	var keys []string
	for k := range where {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return where[b] - where[a] })
	for _, k := range keys[:min(20, len(keys))] {
		fmt.Println(where[k], k)
	}
}

package launch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/launch"
)

// BenchmarkColdStart is a whole box with one process, step by step.
func BenchmarkColdStart(b *testing.B) {
	for _, c := range []struct {
		name string
		opts launch.Options
	}{
		{"isolated", launch.Options{Isolated: true, CPUs: 2, CPUQuota: 1, MemoryMB: 1024, Hosts: map[string]string{"sandbox.localdomain": "127.0.0.1"}}},
		{"no_limits", launch.Options{Isolated: true, NoLimits: true}},
		{"host_network", launch.Options{CPUs: 2, CPUQuota: 1, MemoryMB: 1024}},
	} {
		b.Run(c.name, func(b *testing.B) {
			steps := []string{"new", "hold", "run", "close"}
			took := make([][]time.Duration, len(steps))
			for range b.N {
				last, step := time.Now(), 0
				lap := func() {
					now := time.Now()
					took[step] = append(took[step], now.Sub(last))
					step, last = step+1, now
				}
				box, err := launch.New(b.Context(), c.opts)
				if err != nil {
					b.Fatal(err)
				}
				lap()
				p, err := box.Hold(launch.Command{Path: "/bin/true"})
				if err != nil {
					b.Fatal(err)
				}
				lap()
				if _, err := p.Release(); err != nil {
					b.Fatal(err)
				}
				p.Wait()
				lap()
				if err := box.Close(); err != nil {
					b.Fatal(err)
				}
				lap()
			}
			for i, name := range steps {
				slices.Sort(took[i])
				b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds()), name+"_µs")
				b.ReportMetric(float64(took[i][len(took[i])-1].Microseconds()), name+"_max_µs")
			}
		})
	}
}

package cli

import (
	"io"
	"path/filepath"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/reports/perfetto"
	"github.com/initprof/initprof/reports/timeline"
)

// writeTraces writes what shows a single cold start: the one whose wall time is
// nearest to the median. There is none to show if no cold start went well.
func writeTraces(run *record.Run, report *analysis.Report) error {
	index := analysis.NearestMedian(report.Runs)
	if index == 0 {
		return nil
	}
	c, err := run.ColdStart(index)
	if err != nil {
		return err
	}
	function := func(g *trace.GoroutineLife) string { return analysis.StartFunction(c.Names, g) }
	title := filepath.Base(run.Manifest.Head.Subject.Command[0])
	if err := writeFile(filepath.Join(run.Dir, "trace.json.gz"), func(w io.Writer) error {
		return perfetto.Write(w, perfetto.ColdStart{Timeline: c.Timeline, Phases: c.Phases, Title: title, Function: function})
	}); err != nil || c.Goroutines == "" {
		return err
	}
	return writeFile(filepath.Join(run.Dir, "goroutines.svg"), func(w io.Writer) error {
		return timeline.Render(w, timeline.ColdStart{Timeline: c.Timeline, Phases: c.Phases, Title: title + ": goroutines", Function: function})
	})
}

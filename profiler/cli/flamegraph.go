package cli

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	pprofile "github.com/google/pprof/profile"
	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/reports/flame"
)

func flamegraphCommand() *cobra.Command {
	var phase, signal, out string
	c := &cobra.Command{
		Use:   "flamegraph RUN",
		Short: "Draw a run's flame graph as one self-contained SVG",
		Example: `  initprof flamegraph my-extension.initprof -o all.svg
  initprof flamegraph my-extension.initprof --phase register --signal off_cpu -o register.svg
  initprof flamegraph my-extension.initprof --phase all -o flamegraphs/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(profile.Signals, profile.Signal(signal)) {
				return usage("--signal is one of %s, not %s", signalList(profile.Signals, ", "), signal)
			}
			run, err := record.Open(args[0])
			if err != nil {
				return err
			}
			report, err := run.Report(0)
			if err != nil {
				return err
			}
			g, err := newGraphs(run, report, profile.Signal(signal))
			if err != nil {
				return err
			}
			if phase != profile.AllPhases && !slices.Contains(g.phases, phase) {
				return usage("no phase %s in this run; it has %s", phase, strings.Join(g.phases, ", "))
			}
			if phase == profile.AllPhases && isDirectory(out) {
				return g.drawAll(out)
			}
			return writeTo(cmd.OutOrStdout(), out, func(w io.Writer) error { return g.draw(phase, w) })
		},
	}
	c.Flags().StringVar(&phase, "phase", "all", "a phase's name, or all")
	c.Flags().StringVar(&signal, "signal", string(profile.Wall), signalList(profile.Signals, ", "))
	c.Flags().StringVarP(&out, "output", "o", "", "a `file`, or a directory for one graph a phase (default: standard output)")
	return c
}

// graphs are the flame graphs of one signal of a run.
type graphs struct {
	run     *record.Run
	signal  profile.Signal
	profile *pprofile.Profile
	phases  []string
}

// newGraphs reads the signal's profile; the phases are those of the run's report.
func newGraphs(run *record.Run, report *analysis.Report, signal profile.Signal) (*graphs, error) {
	p, err := run.Profile(signal)
	if err != nil {
		return nil, err
	}
	g := &graphs{run: run, signal: signal, profile: p}
	for _, p := range report.Phases {
		g.phases = append(g.phases, p.Name)
	}
	return g, nil
}

// drawAll draws one graph a phase and one for all.
func (g *graphs) drawAll(dir string) error {
	return drawInto(dir, append(slices.Clone(g.phases), profile.AllPhases), g.draw)
}

// isDirectory tells whether -o names a directory, or asks for one.
func isDirectory(out string) bool {
	info, err := os.Stat(out)
	return err == nil && info.IsDir() || strings.HasSuffix(out, "/")
}

// drawInto draws one graph a phase into a directory.
func drawInto(dir string, phases []string, draw func(phase string, w io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range phases {
		name := strings.Map(func(c rune) rune {
			if c == '/' || c < ' ' {
				return '_'
			}
			return c
		}, p)
		if err := writeFile(filepath.Join(dir, name+".svg"), func(w io.Writer) error { return draw(p, w) }); err != nil {
			return err
		}
	}
	return nil
}

// nouns say what each signal's value is a sum of.
var nouns = map[profile.Signal]string{
	profile.Wall: "time on the critical path", profile.CPU: "on-CPU time", profile.OffCPU: "time off the CPU", profile.Syscalls: "time in system calls", profile.Faults: "time in page faults",
	profile.Goroutines: "time of goroutines",
}

func (g *graphs) draw(phase string, w io.Writer) error {
	subject := g.run.Manifest.Head.Subject
	title := filepath.Base(subject.Command[0]) + ": " + string(g.signal)
	if phase != profile.AllPhases {
		title += ", phase " + phase
	}
	return flame.Render(w, flameSamples(profile.Stacks(g.profile, phase), subject), flame.Options{
		Title: title, Subtitle: "exec → /next", Noun: nouns[g.signal], ColdStarts: g.run.Traced(),
		Empty: "no " + string(g.signal) + " event fell into this phase",
	})
}

// flameSamples are stacks with the kinds of their frames.
func flameSamples(stacks []profile.WeightedStack, subject analysis.Subject) []flame.Sample {
	var samples []flame.Sample
	for _, s := range stacks {
		out := flame.Sample{Value: s.Value, Count: s.Count}
		for _, f := range s.Stack {
			isGo := subject.Language == symbolize.LanguageGo && len(subject.Command) > 0 && f.Module == subject.Command[0]
			out.Stack = append(out.Stack, flame.Frame{Name: f.Function, Module: f.Module, Kind: flame.Classify(f.Module, f.Function, isGo)})
		}
		samples = append(samples, out)
	}
	return samples
}

package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Options describes a session.
type Options struct {
	ColdStart coldstart.Options
	Runs      int    // traced cold starts
	Untraced  int    // interleaved untraced ones
	Out       string // the run's directory
	Replace   bool   // an existing run at Out
	Capture   capture.Options
	NoTracing bool   // --signals none
	Symbols   string // unstripped twin of the subject
	PageCold  bool
	Owner     *launch.User // who gets the files; nil: whoever runs initprof
	Version   string
	Secrets   []string // never to be written
	Progress  func(done, all int)
}

// session is a session under way.
type session struct {
	opts      Options
	dir       string // temporary
	manifest  Manifest
	tracer    *capture.Tracer
	store     *symbolize.Store
	collector *symbolize.Collector
	files     []*os.File
	throttled time.Duration
}

// Record runs the session and writes the run. The manifest is that of what was
// recorded, also when an interrupt or the subject cut it short.
func Record(ctx context.Context, opts Options) (_ *Manifest, err error) {
	if _, err := os.Lstat(opts.Out); err == nil {
		if _, err := os.Stat(filepath.Join(opts.Out, "manifest.json")); err != nil {
			return nil, fmt.Errorf("%s exists and is not a run of initprof: choose another -o", opts.Out)
		}
	}
	s := &session{opts: opts, store: symbolize.NewStore()}
	if s.dir, err = os.MkdirTemp(filepath.Dir(opts.Out), "."+filepath.Base(opts.Out)+"-"); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	defer s.close()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.runAll(ctx); err != nil {
		return nil, err
	}
	return &s.manifest, s.finish()
}

func (s *session) close() {
	if s.tracer != nil {
		_ = s.tracer.Close() // the run is what counts
	}
	for _, f := range s.files {
		_ = f.Close()
	}
}

// prepare reads the subject's file and attaches the tracer.
func (s *session) prepare() error {
	s.manifest = Manifest{Version: manifestVersion, Head: s.head()}
	for _, d := range []string{"events", "profiles"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	var plan probe.Plan
	subject, err := s.open(s.opts.ColdStart.Command[0])
	var object *symbolize.Object
	if err == nil {
		object, err = symbolize.OpenObject(subject)
	}
	if err == nil {
		language, version := object.Language()
		s.manifest.Head.Subject.Language, s.manifest.Head.Subject.LanguageVersion = language, version
		s.manifest.Head.Subject.Linkage = object.Info.Linkage
		s.manifest.Head.Subject.BuildID = object.Info.BuildID
		plan = probe.For(probe.Program{
			Object: object, Entry: object.Info.Entry, Dynamic: object.Info.Interpreter != "",
			Arch: object.Info.Machine, Go: language == symbolize.LanguageGo,
		})
	} else if errors.Is(err, symbolize.ErrNotELF) {
		s.manifest.Head.Subject.Language = "script"
	}
	if s.opts.NoTracing {
		return nil
	}
	if s.tracer, err = capture.New(s.opts.Capture); err != nil {
		return err
	}
	s.tracer.AttachMarks(points(s.opts.ColdStart.Command[0], plan))
	for _, m := range plan.Missing {
		s.manifest.Head.Probes = append(s.manifest.Head.Probes, analysis.Probe{Name: "mark", Status: analysis.ProbeUnavailable, Reason: m})
	}
	kernel, err := symbolize.ReadKernel()
	if err != nil {
		s.manifest.Head.Warnings = append(s.manifest.Head.Warnings, err.Error())
	}
	s.collector = symbolize.NewCollector(s.store, kernel)
	return s.useSymbols(object)
}

// useSymbols takes the names of a stripped subject from its unstripped twin.
func (s *session) useSymbols(subject *symbolize.Object) error {
	if s.opts.Symbols == "" || subject == nil {
		return nil
	}
	f, err := s.open(s.opts.Symbols)
	if err != nil {
		return err
	}
	twin, err := symbolize.OpenObject(f)
	if err != nil {
		return fmt.Errorf("%s: %w", s.opts.Symbols, err)
	}
	if twin.Info.BuildID != subject.Info.BuildID || twin.Info.BuildID == "" {
		if !symbolize.SameCode(twin, subject) {
			return fmt.Errorf("%s does not belong to the subject: build ID %q, the subject's is %q, and their code differs",
				s.opts.Symbols, twin.Info.BuildID, subject.Info.BuildID)
		}
	}
	s.collector.Use(subject.Info.BuildID, twin)
	return nil
}

func (s *session) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, f)
	return f, nil
}

var markKinds = map[probe.Kind]trace.MarkKind{
	probe.Checkpoint: trace.MarkCheckpoint, probe.Entry: trace.MarkEntry, probe.Main: trace.MarkMain,
}

func points(path string, plan probe.Plan) []capture.Point {
	var all []capture.Point
	for _, p := range plan.Points {
		all = append(all, capture.Point{Path: path, Offset: p.Offset, Kind: markKinds[p.Kind], Name: p.Name})
	}
	return all
}

// order tells which cold starts are traced: the untraced ones are spread evenly.
func order(traced, untraced int) []bool {
	all := traced + untraced
	list := make([]bool, all)
	for i := range all {
		list[i] = (i+1)*traced/all > i*traced/all
	}
	return list
}

func (s *session) runAll(ctx context.Context) error {
	plan := order(s.opts.Runs, s.opts.Untraced)
	if s.opts.NoTracing {
		plan = make([]bool, s.opts.Runs)
	}
	// One that nobody looks at warms the page cache and this process.
	if !s.opts.PageCold {
		if _, err := coldstart.Run(ctx, s.opts.ColdStart, nil, nil); err != nil {
			return err
		}
	}
	for i, traced := range plan {
		if s.opts.Progress != nil {
			s.opts.Progress(i, len(plan))
		}
		stop, err := s.one(ctx, i+1, traced)
		if err != nil {
			return err
		}
		if stop || ctx.Err() != nil {
			return nil
		}
	}
	s.manifest.Complete = true
	return nil
}

// one runs a cold start and keeps what it showed. It says whether going on makes
// no sense.
func (s *session) one(ctx context.Context, index int, traced bool) (stop bool, err error) {
	if s.opts.PageCold {
		if err := launch.EvictPageCache([]string{s.opts.ColdStart.Command[0]}); err != nil {
			return false, err
		}
	}
	var tracer coldstart.Tracer
	if traced {
		tracer = s.tracer
	}
	result, err := coldstart.Run(ctx, s.opts.ColdStart, tracer, func(r *coldstart.Result) {
		if r.Raw != nil {
			s.collect(r)
		}
	})
	if err != nil {
		return false, err
	}
	e := Entry{Run: s.run(result, index, traced), Released: result.Released, Ready: int64(result.Ready)}
	for _, q := range result.Requests {
		e.Received = append(e.Received, phase.Received{Method: q.Method, Path: q.Path, At: q.Received, Answered: q.Answered, Status: q.Status})
	}
	if result.Raw != nil {
		e.Events = fmt.Sprintf("events/%03d.zst", index)
		if err := s.write(e.Events, result.Raw.Write); err != nil {
			return false, err
		}
	}
	s.settings(result)
	s.manifest.ColdStarts = append(s.manifest.ColdStarts, e)
	return result.Outcome == coldstart.NotExecutable || result.Outcome == coldstart.Interrupted, nil
}

func (s *session) write(name string, write func(io.Writer) error) error {
	f, err := os.Create(filepath.Join(s.dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// collect names the addresses while the subject still waits for its first event.
func (s *session) collect(r *coldstart.Result) {
	events, _ := r.Raw.Decode() // the report tells what cannot be decoded
	root := fmt.Sprintf("/proc/%d", r.TracedProcess)
	s.collector.Collect(events, func(m *trace.Mapping) (io.ReaderAt, error) {
		if m.Path == symbolize.VDSOModule {
			return nil, errors.New("no file")
		}
		path := strings.TrimSuffix(m.Path, " (deleted)")
		f, err := s.open(root + "/root" + path)
		if err != nil || path != m.Path {
			if f, err = s.open(fmt.Sprintf("%s/map_files/%x-%x", root, m.Start, m.Limit)); err != nil {
				f, err = s.open(path)
			}
		}
		if err != nil {
			return nil, err
		}
		return f, nil
	})
}

func (s *session) run(r *coldstart.Result, index int, traced bool) analysis.Run {
	run := analysis.Run{
		Index: index, Traced: traced, Outcome: r.Outcome, OutcomeDetail: s.redact(r.Detail), SubscribeOutcome: r.Subscribe,
	}
	if r.Outcome == coldstart.Interrupted {
		run.Outcome = analysis.OutcomeKilled
	}
	if r.Outcome != coldstart.OK {
		lines := strings.Split(strings.TrimRight(s.redact(string(r.LastOutput)), "\n"), "\n")
		for _, l := range lines[max(0, len(lines)-10):] {
			if l != "" {
				run.LastOutput = append(run.LastOutput, strings.ToValidUTF8(l[:min(len(l), 400)], "?"))
			}
		}
	}
	between := func(from, to int64) *int64 {
		if from == 0 || to == 0 {
			return nil
		}
		d := to - from
		return &d
	}
	run.ReleaseToNextNS = between(r.Released, r.FirstNext)
	run.InitNS = between(r.InitStart, r.InitEnd)
	if r.FirstInvoke > 0 {
		ns := int64(r.FirstInvoke)
		run.FirstInvokeNS = &ns
	}
	if run.InitNS != nil && run.ReleaseToNextNS != nil {
		slack := r.InitEnd - r.FirstNext
		run.SlackNS = &slack
	}
	if r.Raw != nil {
		h, lost := r.Raw.Hits, int64(r.Raw.Losses.Total())
		events := int64(h.Syscalls + h.Sched + h.Faults/2 + h.Samples + h.Marks)
		run.Events, run.LostEvents = &events, &lost
	}
	return run
}

// redact replaces secrets.
func (s *session) redact(text string) string {
	for _, secret := range s.opts.Secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}

func (s *session) settings(r *coldstart.Result) {
	out := &s.manifest.Head.Settings
	out.Network = "host"
	if r.Box.Isolated {
		out.Network = "isolated"
	}
	for _, m := range append(r.Box.Missing, r.Warnings...) {
		if !slices.Contains(s.manifest.Head.Warnings, m) {
			s.manifest.Head.Warnings = append(s.manifest.Head.Warnings, m)
		}
	}
	if r.Box.CgroupVersion == 0 {
		return
	}
	n := len(r.Box.CPUs)
	out.CPUs = &n
	if r.Box.MemoryMB > 0 {
		mb := int64(r.Box.MemoryMB)
		out.MemoryMB = &mb
	}
	if r.Box.CPUQuota > 0 {
		q, p := r.Box.CPUQuota, int64(r.Box.CPUPeriod)
		s.throttled += r.Box.Throttled
		t := int64(s.throttled) / int64(len(s.manifest.ColdStarts)+1)
		out.CPUQuota, out.CPUPeriodNS, out.ThrottledNS = &q, &p, &t
	}
}

// finish writes what needs all cold starts and gives the run its name.
func (s *session) finish() error {
	if s.tracer != nil {
		for _, p := range s.tracer.Probes() {
			out := analysis.Probe{Name: p.Name, Status: analysis.ProbeAttached, Reason: p.Reason}
			if p.Reason != "" {
				out.Status = analysis.ProbeUnavailable
			} else {
				hits := float64(p.Hits)
				out.Hits = &hits
			}
			s.manifest.Head.Probes = append(s.manifest.Head.Probes, out)
		}
	}
	if err := s.store.Write(filepath.Join(s.dir, "symbols")); err != nil {
		return err
	}
	if err := s.write("manifest.json", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s.manifest)
	}); err != nil {
		return err
	}
	if err := s.profiles(); err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return fmt.Errorf("name the run: %w", err)
	}
	return nil
}

// publish gives the run its owner, mode and name.
func (s *session) publish() error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if err := Own(s.dir, s.opts.Owner); err != nil {
		return err
	}
	if err := os.RemoveAll(s.opts.Out); err != nil { // checked: it is a run
		return err
	}
	return os.Rename(s.dir, s.opts.Out)
}

// Own gives all files under dir to a user, where initprof may do so.
func Own(dir string, u *launch.User) error {
	if u == nil || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(u.UID), int(u.GID))
	})
}

func (s *session) profiles() error {
	if s.opts.NoTracing {
		return nil
	}
	run := &Run{Dir: s.dir, Manifest: s.manifest, Symbols: s.store}
	for _, signal := range profile.All {
		head := s.manifest.Head
		b := profile.NewBuilder(signal, head.Subject.Command[0], head.Subject.BuildID, []string{
			"initprof " + head.Tool.Version, "kernel " + head.Host.Kernel,
			fmt.Sprintf("cold starts %d (-divide_by gives one)", s.opts.Runs), fmt.Sprintf("lost events %d", s.lost()),
		})
		if _, err := run.Samples(signal, b.Add); err != nil {
			return err
		}
		if err := s.write("profiles/"+signal+".pb.gz", b.Write); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) lost() (total int64) {
	for _, e := range s.manifest.ColdStarts {
		if e.Run.LostEvents != nil {
			total += *e.Run.LostEvents
		}
	}
	return total
}

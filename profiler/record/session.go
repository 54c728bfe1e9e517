package record

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/profiler/unwind"
)

// Options describes a session.
type Options struct {
	ColdStart coldstart.Options
	Runs      int    // traced cold starts
	Untraced  int    // interleaved untraced ones
	Out       string // the run's directory
	Replace   bool   // an existing run at Out
	Capture   capture.Options
	NoTracing bool          // --signals none
	Rules     *ledger.Rules // of categories; nil: the built-in ones
	Symbols   string        // unstripped twin of the subject
	// StepProbes allows probes on instructions that the kernel single-steps.
	StepProbes bool
	PageCold   bool
	Owner      *launch.User // who gets the files; nil: whoever runs initprof
	Version    string
	Secrets    []string // never to be written
	Progress   func(done, all int)
}

// session is a session under way.
type session struct {
	opts       Options
	dir        string // temporary
	manifest   Manifest
	tracer     *capture.Tracer
	collector  *symbolize.Collector
	cache      pageCache
	points     []capture.Point  // that are probed
	hits       map[string]int64 // of points, by name, over all cold starts
	objects    loader.Objects   // facts of the objects that were mapped
	goroutines goroutinePlan
	root       string // of the subject that is being named
	files      []*os.File
}

// Record runs the session and writes the run. The manifest is that of what was
// recorded, also when an interrupt or the subject cut it short.
func Record(ctx context.Context, opts Options) (_ *Manifest, err error) {
	if _, err := os.Lstat(opts.Out); err == nil {
		if _, err := os.Stat(filepath.Join(opts.Out, "manifest.json")); err != nil {
			return nil, fmt.Errorf("%s exists and is not a run of initprof: choose another -o", opts.Out)
		}
	}
	s := &session{opts: opts, hits: map[string]int64{}, objects: loader.Objects{}}
	removeUnfinished(opts.Out)
	if s.dir, err = os.MkdirTemp(filepath.Dir(opts.Out), fmt.Sprintf("%s%d-", unfinished(opts.Out), os.Getpid())); err != nil {
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

// unfinished is how the temporary names of a run begin, before the PID of the
// initprof that writes it.
func unfinished(out string) string { return "." + filepath.Base(out) + "-" }

// removeUnfinished removes what an initprof that was killed left of a run.
func removeUnfinished(out string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), unfinished(out)+"*")) // a name with wildcards finds nothing
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), unfinished(out)), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = os.RemoveAll(dir) // it is in nobody's way
		}
	}
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
	var framed probe.Framed
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
		program := probe.Program{
			Object: object, Entry: object.Info.Entry, Arch: object.Info.Machine, Go: language == symbolize.LanguageGo,
		}
		framed = program.Framed()
	} else if errors.Is(err, symbolize.ErrNotELF) {
		s.manifest.Head.Subject.Language = "script"
	}
	if s.opts.NoTracing {
		return nil
	}
	if s.tracer, err = capture.New(s.opts.Capture); err != nil {
		return err
	}
	if err := s.tracer.TrustFramePointers(framed); err != nil {
		return err
	}
	kernel, err := symbolize.ReadKernel()
	if err != nil {
		s.manifest.Head.Warnings = append(s.manifest.Head.Warnings, err.Error())
	}
	naming := symbolize.Options{Open: s.openMapping, Kernel: kernel}
	if naming.VDSO, err = unwind.ReadVDSO(); err != nil {
		s.manifest.Head.Warnings = append(s.manifest.Head.Warnings, fmt.Sprintf("vDSO: %v", err))
	}
	twin, err := s.twin(object)
	if err != nil {
		return err
	}
	if twin != nil {
		naming.Symbols = append(naming.Symbols, twin)
	}
	s.collector = symbolize.NewCollector(naming)
	return nil
}

// twin opens the unstripped twin of a stripped subject.
func (s *session) twin(subject *symbolize.Object) (*symbolize.Object, error) {
	if s.opts.Symbols == "" || subject == nil {
		return nil, nil
	}
	f, err := s.open(s.opts.Symbols)
	if err != nil {
		return nil, err
	}
	twin, err := symbolize.OpenObject(f)
	if err == nil {
		err = symbolize.SymbolsMatch(subject, twin)
	}
	if err != nil {
		return nil, fmt.Errorf("--symbols %s: %w", s.opts.Symbols, err)
	}
	return twin, nil
}

func (s *session) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, f)
	return f, nil
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
	events, err := s.rehearse(ctx)
	if err != nil {
		return err
	}
	if s.opts.PageCold {
		s.cache.find(s.opts.ColdStart.Command[0], events)
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
		if err := s.prepareCache(); err != nil {
			return false, err
		}
	}
	var tracer coldstart.Tracer
	if traced {
		tracer = s.tracer
	}
	var collectErr error
	result, err := coldstart.Run(ctx, s.opts.ColdStart, tracer, func(r *coldstart.Result) {
		if r.Raw != nil {
			collectErr = s.collect(ctx, r)
		}
	})
	if err != nil {
		return false, err
	}
	if collectErr != nil && ctx.Err() == nil {
		return false, collectErr
	}
	e := s.entry(result, index, traced)
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
func (s *session) collect(ctx context.Context, r *coldstart.Result) error {
	events, err := r.Raw.Decode()
	if errors.Is(err, capture.ErrLayout) { // the report tells what else cannot be decoded
		s.tracer.WatchGoroutines(nil, err)
	}
	s.root = fmt.Sprintf("/proc/%d", r.TracedProcess)
	s.readObjects(events)
	extra := goroutineAddresses(events)
	for _, e := range events {
		switch e := e.(type) {
		case *trace.FunctionCall:
			s.hits[e.Name]++
			if e.End != 0 {
				s.hits[e.Name+" return"]++
			}
		case *trace.Mark:
			name := cmp.Or(markNames[e.Kind], e.Name)
			if e.Kind == trace.MarkLeave {
				name += " return"
			}
			s.hits[name]++
			if e.Value != 0 {
				extra = append(extra, symbolize.Address{PID: e.PID, Time: e.Time, Value: e.Value})
			}
		}
	}
	_, err = s.collector.Collect(ctx, events, extra...)
	return err
}

// markNames are the names of points whose marks carry others.
var markNames = map[trace.MarkKind]string{
	trace.MarkCheckpoint: "checkpoint.mark", trace.MarkSpanBegin: "checkpoint.mark", trace.MarkSpanEnd: "checkpoint.mark",
}

func (s *session) entry(r *coldstart.Result, index int, traced bool) Entry {
	e := Entry{Index: index, Traced: traced, Outcome: r.Outcome, Detail: s.redact(r.Detail), Released: r.Released}
	if r.Outcome == coldstart.Interrupted {
		e.Outcome = analysis.OutcomeKilled
	}
	if r.Outcome != coldstart.OK {
		lines := strings.Split(strings.TrimRight(s.redact(string(r.LastOutput)), "\n"), "\n")
		for _, l := range lines[max(0, len(lines)-10):] {
			if l != "" {
				e.LastOutput = append(e.LastOutput, strings.ToValidUTF8(l[:min(len(l), 400)], "?"))
			}
		}
	}
	between := func(from, to int64) *int64 {
		if from == 0 || to == 0 {
			return nil
		}
		return new(to - from)
	}
	e.ReleaseToNextNS = between(r.Released, r.FirstNext)
	e.InitNS = between(r.InitStart, r.InitEnd)
	e.SlackNS = between(r.FirstNext, r.InitEnd)
	e.Init = initTimes(r)
	if r.FirstInvoke > 0 {
		e.FirstInvokeNS = new(int64(r.FirstInvoke))
	}
	if r.Ready > 0 {
		e.ReadyNS = new(int64(r.Ready))
	}
	if r.Box.CPUQuota > 0 {
		e.ThrottledNS = new(int64(r.Box.Throttled))
	}
	if r.Raw != nil {
		h := r.Raw.Hits
		e.EventCount = new(int64(h.Syscalls + h.Sched + h.Faults/2 + h.Samples + h.Marks + h.Calls/2 + h.Goroutines))
		e.LostEvents = new(int64(r.Raw.Losses.Total()))
	}
	return e
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
	missing := r.Warnings
	if len(s.manifest.ColdStarts) == 0 { // the others lack the same
		missing = append(missing, r.Box.Missing...)
	}
	for _, m := range missing {
		s.warn(m)
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
		out.CPUQuota, out.CPUPeriodNS = new(r.Box.CPUQuota), new(int64(r.Box.CPUPeriod))
	}
}

// finish writes what needs all cold starts and gives the run its name.
func (s *session) finish() error {
	if s.tracer != nil {
		s.listProbes()
	}
	if err := s.symbols().Write(filepath.Join(s.dir, "symbols")); err != nil {
		return err
	}
	if err := s.write(objectsName, func(w io.Writer) error { return json.NewEncoder(w).Encode(s.objects) }); err != nil {
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

// symbols is what was named; nothing without tracing.
func (s *session) symbols() *symbolize.Store {
	if s.collector == nil {
		return symbolize.NewStore()
	}
	return s.collector.Store()
}

func (s *session) profiles() error {
	if s.opts.NoTracing {
		return nil
	}
	run := &Run{Dir: s.dir, Manifest: s.manifest, Symbols: s.symbols(), Objects: s.objects, Rules: s.opts.Rules}
	profiles := run.profiles()
	for _, signal := range profile.Signals {
		if err := s.write(profileName(signal), func(w io.Writer) error { return profiles.Write(signal, w) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) traced() (n int) {
	for _, e := range s.manifest.ColdStarts {
		if e.Traced {
			n++
		}
	}
	return n
}

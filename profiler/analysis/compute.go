package analysis

import (
	"cmp"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/trace"
)

// ColdStart is one cold start as it was recorded.
type ColdStart struct {
	Run      Run             // what is known without events
	Timeline *trace.Timeline // nil: untraced
	Found    phase.Result
	Ready    int64
}

// Builder computes a report from one cold start after another. It keeps sums
// and one value a figure and cold start, never the events.
type Builder struct {
	report   Report
	traced   int64
	phases   map[string]*phaseSums
	order    []string
	spans    map[string]*spanSums
	syscalls map[string]*Syscall
	faults   map[string]*MappingFault
	files    map[string]*File
	threads  map[string]*Thread
	requests []*Request
	answered map[*Request]int64

	walls, tracedReleases, untraced, inits, invokes []int64
	faultSums                                       Faults
	anyFaults                                       bool
	truncated                                       map[string]float64
	complete                                        float64
	events                                          float64
}

type phaseSums struct {
	source            string
	deltas, cumulated []int64
}

type spanSums struct{ own, overlap []int64 }

// NewBuilder starts a report; what is known of the run as a whole stands in head.
func NewBuilder(head Report) *Builder {
	head.Schema = ReportSchema
	if head.Warnings == nil {
		head.Warnings = []string{}
	}
	return &Builder{
		report: head, phases: map[string]*phaseSums{}, spans: map[string]*spanSums{}, syscalls: map[string]*Syscall{},
		faults: map[string]*MappingFault{}, files: map[string]*File{}, threads: map[string]*Thread{},
		answered: map[*Request]int64{}, truncated: map[string]float64{},
	}
}

func ptr(v int64) *int64 { return &v }

// Add adds one cold start. Only those that reached the end of their window
// count in sums and distributions.
func (b *Builder) Add(c ColdStart) {
	run := c.Run
	if c.Found.End != 0 && c.Timeline != nil {
		wall := c.Found.End - c.Found.Start
		run.WallNS, run.ExecToNextNS = ptr(wall), ptr(wall)
	}
	for _, p := range c.Found.Phases {
		run.Phases = append(run.Phases, RunPhase{Name: p.Name, StartNS: p.Start - c.Found.Start, DeltaNS: p.End - p.Start})
	}
	for _, s := range c.Found.Spans {
		run.Spans = append(run.Spans, RunSpan{Name: s.Name, ID: s.ID, StartNS: s.Start - c.Found.Start, NS: s.End - s.Start, OverlapNS: ptr(s.Overlap)})
	}
	b.report.Runs = append(b.report.Runs, run)
	if run.Outcome != OutcomeOK {
		return
	}
	if run.InitNS != nil {
		b.inits = append(b.inits, *run.InitNS)
	}
	if run.FirstInvokeNS != nil {
		b.invokes = append(b.invokes, *run.FirstInvokeNS)
	}
	if c.Timeline == nil {
		if run.ReleaseToNextNS != nil {
			b.untraced = append(b.untraced, *run.ReleaseToNextNS)
		}
		if b.report.Settings.Signals != nil && len(b.report.Settings.Signals) == 0 {
			b.addPhases(c)
		}
		return
	}
	if run.WallNS == nil {
		return
	}
	b.traced++
	b.walls = append(b.walls, *run.WallNS)
	if run.ReleaseToNextNS != nil {
		b.tracedReleases = append(b.tracedReleases, *run.ReleaseToNextNS)
	}
	if run.Events != nil {
		b.events += float64(*run.Events)
	}
	b.addPhases(c)
	b.addTimeline(c.Timeline, c.Found)
	b.addRequests(c.Found)
}

func (b *Builder) addPhases(c ColdStart) {
	at := 0
	for _, p := range c.Found.Phases {
		sums := b.phases[p.Name]
		if sums == nil {
			sums = &phaseSums{source: p.Source}
			b.phases[p.Name] = sums
			b.order = slices.Insert(b.order, min(at, len(b.order)), p.Name)
		}
		if i := slices.Index(b.order, p.Name); i >= at {
			at = i + 1
		}
		sums.deltas = append(sums.deltas, p.End-p.Start)
		sums.cumulated = append(sums.cumulated, p.End-c.Found.Start)
	}
	for _, s := range c.Found.Spans {
		sums := b.spans[s.Name]
		if sums == nil {
			sums = &spanSums{}
			b.spans[s.Name] = sums
		}
		sums.own = append(sums.own, s.End-s.Start)
		sums.overlap = append(sums.overlap, s.Overlap)
	}
}

func entry[T any](m map[string]*T, key string) *T {
	if m[key] == nil {
		m[key] = new(T)
	}
	return m[key]
}

func (b *Builder) addTimeline(tl *trace.Timeline, found phase.Result) {
	from, to := found.Start, found.End
	for _, c := range tl.Calls {
		b.countStack(c.Stack)
		// The call that carries /next begins where the window ends, and belongs to it.
		if c.Begin < from || c.Begin > to {
			continue
		}
		s := entry(b.syscalls, tl.SyscallName(c.Syscall))
		s.Count++
		if c.Failed() {
			s.Errors++
		}
		s.NS += min(c.Until, to) - c.Begin
	}
	b.anyFaults = b.anyFaults || len(tl.Faults) > 0
	for _, f := range tl.Faults {
		b.countStack(f.Stack)
		if f.Begin < from || f.Begin >= to {
			continue
		}
		m := entry(b.faults, f.Region.Path+"\x00"+f.Region.Kind)
		m.Mapping, m.Kind = f.Region.Path, f.Region.Kind
		ns := min(f.Until, to) - f.Begin
		m.NS += ns
		b.faultSums.NS += ns
		if f.Major {
			m.Major++
			b.faultSums.Major++
		} else {
			m.Minor++
			b.faultSums.Minor++
		}
	}
	for _, s := range tl.Samples {
		b.countStack(s.Stack)
	}
	for _, f := range tl.Files(from, to) {
		out := entry(b.files, f.Path)
		out.Path = f.Path
		out.Opens += float64(f.Opens)
		out.Bytes += float64(f.Read)
		out.NS += f.NS
	}
	for _, t := range tl.Threads {
		var out *Thread
		for i := range t.Between(from, to) {
			if out == nil {
				out = entry(b.threads, t.Label())
				out.Name, out.TID = t.Label(), t.TID
			}
			switch {
			case i.State.OnCPU():
				out.OnCPUNS += i.NS()
			case i.State == trace.StateRunnable:
				out.RunnableNS += i.NS()
			default:
				out.WaitingNS += i.NS()
			}
		}
	}
}

var truncationNames = map[trace.Truncation]string{
	trace.TruncatedDepth:  "deeper than is kept",
	trace.TruncatedMemory: "a frame could not be read",
	trace.TruncatedFrame:  "code without frame pointers",
}

func (b *Builder) countStack(s trace.Stack) {
	switch {
	case len(s.User) == 0:
	case s.Truncated == trace.Complete:
		b.complete++
	default:
		b.truncated[truncationNames[s.Truncated]]++
	}
}

// addRequests sums the requests that are alike in method, path and place.
func (b *Builder) addRequests(found phase.Result) {
	next := 0
	for _, q := range found.Requests {
		at := slices.IndexFunc(b.requests[next:], func(r *Request) bool { return r.Method == q.Method && r.Path == q.Path })
		if at < 0 {
			b.requests = append(b.requests, &Request{Method: q.Method, Path: q.Path})
			at = len(b.requests) - 1 - next
		}
		r := b.requests[next+at]
		next += at + 1
		r.StartNS += q.Start - found.Start
		if q.End != 0 && q.End <= found.End {
			ns := q.End - q.Start
			if r.NS != nil {
				ns += *r.NS
			}
			r.NS = &ns
		}
		b.answered[r]++
		if q.Status != 0 {
			status := q.Status
			r.Status = &status
		}
	}
}

// Report returns the report of what was added.
func (b *Builder) Report() *Report {
	r := b.report
	if r.Runs == nil {
		r.Runs = []Run{}
	}
	r.Wall, r.Untraced = summary(b.walls), summary(b.untraced)
	r.Init, r.FirstInvoke = summary(b.inits), summary(b.invokes)
	for _, name := range b.order {
		p := b.phases[name]
		r.Phases = append(r.Phases, Phase{
			Name: name, Source: p.source, Delta: stat.Summarize(p.deltas), Cumulative: stat.Summarize(p.cumulated),
		})
	}
	for name, s := range b.spans {
		r.Spans = append(r.Spans, SpanStatistic{Name: name, Own: stat.Summarize(s.own), Overlap: summary(s.overlap)})
	}
	slices.SortFunc(r.Spans, func(x, y SpanStatistic) int { return strings.Compare(x.Name, y.Name) })
	if b.traced > 0 {
		b.sums(&r)
	}
	if t, u := summary(b.tracedReleases), r.Untraced; t != nil {
		r.Overhead = &Overhead{TracedP50NS: &t.P50}
		if u != nil && u.P50 > 0 {
			ratio := float64(t.P50) / float64(u.P50)
			r.Overhead.UntracedP50NS, r.Overhead.Ratio = &u.P50, &ratio
		}
		perRun := b.events / float64(b.traced)
		r.Overhead.EventsPerRun = &perRun
	}
	return &r
}

func summary(values []int64) *Summary {
	if len(values) == 0 {
		return nil
	}
	s := stat.Summarize(values)
	return &s
}

// sums turns totals into means per cold start.
func (b *Builder) sums(r *Report) {
	n := float64(b.traced)
	for name, s := range b.syscalls {
		r.Syscalls = append(r.Syscalls, Syscall{Name: name, Count: s.Count / n, Errors: s.Errors / n, NS: s.NS})
	}
	byTime(r.Syscalls, func(s Syscall) (int64, string) { return s.NS, s.Name })
	divide(r.Syscalls, b.traced, func(s *Syscall) *int64 { return &s.NS })
	if b.anyFaults {
		f := Faults{Minor: b.faultSums.Minor / n, Major: b.faultSums.Major / n, NS: stat.Divide([]int64{b.faultSums.NS}, b.traced)[0]}
		for _, m := range b.faults {
			f.ByMapping = append(f.ByMapping, MappingFault{Mapping: m.Mapping, Kind: m.Kind, Minor: m.Minor / n, Major: m.Major / n, NS: m.NS})
		}
		byTime(f.ByMapping, func(m MappingFault) (int64, string) { return m.NS, m.Mapping + m.Kind })
		divide(f.ByMapping, b.traced, func(m *MappingFault) *int64 { return &m.NS })
		r.Faults = &f
	}
	for _, f := range b.files {
		r.Files = append(r.Files, File{Path: f.Path, Opens: f.Opens / n, Bytes: f.Bytes / n, NS: f.NS})
	}
	byTime(r.Files, func(f File) (int64, string) { return f.NS, f.Path })
	divide(r.Files, b.traced, func(f *File) *int64 { return &f.NS })
	for _, t := range b.threads {
		out := *t
		if b.traced > 1 {
			out.TID = 0
		}
		r.Threads = append(r.Threads, out)
	}
	byTime(r.Threads, func(t Thread) (int64, string) { return t.OnCPUNS, t.Name })
	divide(r.Threads, b.traced, func(t *Thread) *int64 { return &t.OnCPUNS })
	divide(r.Threads, b.traced, func(t *Thread) *int64 { return &t.RunnableNS })
	divide(r.Threads, b.traced, func(t *Thread) *int64 { return &t.WaitingNS })
	for _, q := range b.requests {
		out, answers := *q, b.answered[q]
		out.StartNS /= answers
		if out.NS != nil {
			mean := *out.NS / answers
			out.NS = &mean
		}
		r.Requests = append(r.Requests, out)
	}
	slices.SortStableFunc(r.Requests, func(x, y Request) int { return cmp.Compare(x.StartNS, y.StartNS) })
	r.Stacks = &Stacks{Complete: b.complete / n, Truncated: []TruncatedStacks{}}
	for reason, count := range b.truncated {
		r.Stacks.Truncated = append(r.Stacks.Truncated, TruncatedStacks{Reason: reason, Count: count / n})
	}
	slices.SortFunc(r.Stacks.Truncated, func(x, y TruncatedStacks) int { return strings.Compare(x.Reason, y.Reason) })
}

func byTime[T any](list []T, key func(T) (int64, string)) {
	slices.SortFunc(list, func(x, y T) int {
		xn, xs := key(x)
		yn, ys := key(y)
		return cmp.Or(cmp.Compare(yn, xn), strings.Compare(xs, ys))
	})
}

// divide makes totals means whose sum is the mean of the sum.
func divide[T any](list []T, n int64, at func(*T) *int64) {
	totals := make([]int64, len(list))
	for i := range list {
		totals[i] = *at(&list[i])
	}
	for i, v := range stat.Divide(totals, n) {
		*at(&list[i]) = v
	}
}

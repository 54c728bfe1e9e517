package analysis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Header is what holds for all cold starts of a run. Settings.Signals tells
// which figures are known: what was not recorded stays absent.
type Header struct {
	Session    string
	BlockCount int
	Tool       Tool
	Host       Host
	Subject    Subject
	Settings   Settings
	Probes     []Probe
	Warnings   []string
}

// ColdStart is what a recording knows of one cold start. Durations are
// nanoseconds; nil is unknown.
type ColdStart struct {
	Index         int // from 1
	Traced        bool
	Outcome       string // OutcomeOK, …
	OutcomeDetail string
	LastOutput    []string

	ReleaseToNextNS *int64
	InitNS          *int64
	SlackNS         *int64 // the subject's /next → the end of INIT
	FirstInvokeNS   *int64
	ThrottledNS     *int64
	TracerCPUNS     *int64
	Events          *int64
	LostEvents      *int64

	Init *InitTimes // nil: INIT did not end, or nothing is known of it

	Phases   *phase.Result   // nil: nothing is known of the window
	Timeline *trace.Timeline // nil: not traced
	Startup  *startup.Result // nil: not accounted for
	Ledger   *ledger.Result  // nil: not accounted for
	Names    Names           // nil: functions of goroutines stay without names

	Goroutines string // GoroutinesFull, GoroutinesCheap, or empty: not watched
}

// Names names addresses: a *symbolize.Resolver.
type Names interface {
	Resolve(pid int, at int64, address uint64, kernel, returnAddress bool) symbolize.Location
}

// Options chooses what a report shows.
type Options struct {
	Run int // the index of the only cold start to show; 0: all
}

// Accumulator adds up cold starts one at a time, and keeps of each only what
// stands in Report.Runs and in distributions.
type Accumulator struct {
	header Header
	opts   Options

	runs     []Run
	added    int
	bad      int // traced cold starts that did not go well
	warnings []string
	repaired []int // indexes of cold starts whose timelines had to be bridged

	// Sums are over cold starts that went well, or, if none did, over those
	// that did not.
	ok, failed sums

	untraced, tracedNext, inits, slacks, invokes, throttled, tracerCPU, events []int64
}

// NewAccumulator returns one without any cold start.
func NewAccumulator(h Header, opts Options) *Accumulator {
	return &Accumulator{header: h, opts: opts, ok: newSums(), failed: newSums()}
}

// Compute is an Accumulator for cold starts that are all at hand.
func Compute(h Header, coldStarts []ColdStart, opts Options) (*Report, error) {
	a := NewAccumulator(h, opts)
	for _, c := range coldStarts {
		if err := a.Add(c); err != nil {
			return nil, err
		}
	}
	return a.Report()
}

// Add takes in a cold start. It fails if its phases do not tile its window or
// its timelines do not tile its threads, which no report may rest on.
func (a *Accumulator) Add(c ColdStart) error {
	a.added++
	if a.opts.Run != 0 && c.Index != a.opts.Run {
		return nil
	}
	if c.Phases != nil {
		if err := c.Phases.Check(); err != nil {
			return fmt.Errorf("cold start %d: %w", c.Index, err)
		}
	}
	if c.Timeline != nil {
		if err := c.Timeline.Check(); err != nil {
			return fmt.Errorf("cold start %d: %w", c.Index, err)
		}
	}
	if c.Ledger != nil {
		if err := c.Ledger.Check(); err != nil {
			return fmt.Errorf("cold start %d: %w", c.Index, err)
		}
	}
	run := newRun(c)
	a.runs = append(a.runs, run)
	if c.Timeline != nil && c.Timeline.Repairs.Total() > 0 {
		a.repaired = append(a.repaired, c.Index)
	}
	if c.Phases != nil {
		for _, w := range c.Phases.Warnings {
			a.warn(w)
		}
	}
	collect := func(to *[]int64, value *int64) {
		if value != nil {
			*to = append(*to, *value)
		}
	}
	if c.Outcome == OutcomeOK {
		if c.Traced {
			collect(&a.tracedNext, c.ReleaseToNextNS)
		} else {
			collect(&a.untraced, c.ReleaseToNextNS)
		}
		collect(&a.inits, c.InitNS)
		collect(&a.slacks, c.SlackNS)
		collect(&a.invokes, c.FirstInvokeNS)
	}
	collect(&a.throttled, c.ThrottledNS)
	// Without any signal the environment's receipts are all there is.
	if !c.Traced && (a.header.Settings.Signals == nil || len(a.header.Settings.Signals) > 0) {
		return nil
	}
	collect(&a.tracerCPU, c.TracerCPUNS)
	collect(&a.events, c.Events)
	if c.Outcome == OutcomeOK {
		a.ok.add(c, run)
	} else {
		a.bad++
		a.failed.add(c, run)
	}
	return nil
}

// warn keeps each warning once.
func (a *Accumulator) warn(text string) {
	if !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
}

func newRun(c ColdStart) Run {
	run := Run{
		Index: c.Index, Traced: c.Traced, Outcome: c.Outcome, OutcomeDetail: c.OutcomeDetail, LastOutput: c.LastOutput,
		ReleaseToNextNS: c.ReleaseToNextNS, InitNS: c.InitNS, SlackNS: c.SlackNS, FirstInvokeNS: c.FirstInvokeNS,
		Events: c.Events, LostEvents: c.LostEvents,
	}
	p := c.Phases
	if p == nil {
		return run
	}
	run.SubscribeOutcome = p.SubscribeOutcome
	if p.Traced && p.Reached {
		run.WallNS = new(p.End - p.Start)
		if p.FirstNext == p.End {
			run.ExecToNextNS = run.WallNS
		}
	}
	run.Phases = []RunPhase{}
	for _, x := range p.Phases {
		run.Phases = append(run.Phases, RunPhase{Name: x.Name, StartNS: x.Start - p.Start, DeltaNS: x.End - x.Start})
	}
	for _, s := range p.Spans {
		run.Spans = append(run.Spans, RunSpan{Name: s.Name, ID: s.ID, StartNS: s.Start - p.Start, NS: s.End - s.Start, OverlapNS: new(s.OverlapNS)})
	}
	return run
}

// Report sums up what was added. It fails if --run asked for a cold start that
// was not.
func (a *Accumulator) Report() (*Report, error) {
	h := a.header
	if a.opts.Run != 0 && len(a.runs) == 0 {
		return nil, fmt.Errorf("there is no cold start %d: the run holds %d", a.opts.Run, a.added)
	}
	r := &Report{
		Schema: ReportSchema, Session: h.Session, BlockCount: h.BlockCount, Tool: h.Tool, Host: h.Host,
		Subject: h.Subject, Settings: h.Settings, Probes: h.Probes, Runs: slices.Clone(a.runs),
		Warnings: append([]string{}, h.Warnings...),
	}
	if r.Runs == nil {
		r.Runs = []Run{}
	}
	if len(a.throttled) > 0 {
		r.Settings.ThrottledNS = new(stat.Summarize(a.throttled).Mean)
	}
	r.Untraced, r.Init, r.FirstInvoke = summary(a.untraced), summary(a.inits), summary(a.invokes)
	r.Slack = summary(a.slacks)
	s := &a.ok
	if s.n == 0 && a.failed.n > 0 {
		s = &a.failed
		r.Warnings = append(r.Warnings, "no traced cold start went well: the figures are of those that did not")
	} else if a.bad > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("of %d cold starts that did not end well nothing is in the means", a.bad))
	}
	if err := s.report(r, a.opts.Run != 0); err != nil {
		return nil, err
	}
	r.Overhead = a.overhead()
	r.Warnings = append(append(r.Warnings, a.warnings...), a.caveats(s)...)
	return r, nil
}

func summary(values []int64) *Summary {
	if len(values) == 0 {
		return nil
	}
	return new(stat.Summarize(values))
}

// overhead compares release → /next of traced and untraced cold starts.
func (a *Accumulator) overhead() *Overhead {
	o := &Overhead{}
	if s := summary(a.tracedNext); s != nil {
		o.TracedP50NS = &s.P50
	}
	if s := summary(a.untraced); s != nil {
		o.UntracedP50NS = &s.P50
	}
	if o.TracedP50NS != nil && o.UntracedP50NS != nil && *o.UntracedP50NS > 0 {
		o.Ratio = new(float64(*o.TracedP50NS) / float64(*o.UntracedP50NS))
	}
	if len(a.events) > 0 {
		var sum int64
		for _, n := range a.events {
			sum += n
		}
		o.EventsPerRun = new(float64(sum) / float64(len(a.events)))
	}
	if s := summary(a.tracerCPU); s != nil {
		o.TracerCPUNS = &s.Mean
	}
	var estimated int64
	known := false
	for _, p := range a.header.Probes {
		if p.EstimatedNS != nil {
			estimated, known = estimated+*p.EstimatedNS, true
		}
	}
	if known {
		o.EstimatedNS = &estimated
	}
	if *o == (Overhead{}) {
		return nil
	}
	return o
}

// caveats lists what a reader must know before trusting the figures.
func (a *Accumulator) caveats(s *sums) []string {
	var warnings []string
	var lost int64
	for _, r := range a.runs {
		if r.LostEvents != nil {
			lost += *r.LostEvents
		}
	}
	if lost > 0 {
		warnings = append(warnings, fmt.Sprintf("%d events were lost: counts and times are too small", lost))
	}
	if len(a.repaired) > 0 {
		warnings = append(warnings, fmt.Sprintf("threads' timelines lack edges and were bridged in cold starts %s", list(a.repaired)))
	}
	warnings = append(warnings, s.ledger.caveats()...)
	if len(s.otherOrder) > 0 {
		warnings = append(warnings, fmt.Sprintf("cold starts %s pass the phases in another order than cold start %d", list(s.otherOrder), s.orderOf))
	}
	return warnings
}

// list writes at most ten numbers.
func list(numbers []int) string {
	var text []string
	for n, number := range numbers {
		if n == 10 {
			text = append(text, fmt.Sprintf("and %d more", len(numbers)-n))
			break
		}
		text = append(text, fmt.Sprint(number))
	}
	return strings.Join(text, ", ")
}

// NearestMedian returns the index of the traced cold start whose wall time is
// nearest to the median of all that went well, 0 if there is none.
func NearestMedian(runs []Run) int {
	var walls []int64
	for _, r := range runs {
		if r.Traced && r.Outcome == OutcomeOK && r.WallNS != nil {
			walls = append(walls, *r.WallNS)
		}
	}
	if len(walls) == 0 {
		return 0
	}
	median := stat.Summarize(walls).P50
	best, distance := 0, int64(0)
	for _, r := range runs {
		if !r.Traced || r.Outcome != OutcomeOK || r.WallNS == nil {
			continue
		}
		d := max(*r.WallNS-median, median-*r.WallNS)
		if best == 0 || cmp.Less(d, distance) {
			best, distance = r.Index, d
		}
	}
	return best
}

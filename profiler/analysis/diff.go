package analysis

import "github.com/initprof/initprof/profiler/stat"

// DiffSchema is the value of Diff.Schema.
const DiffSchema = "initprof/diff/v1"

// Diff is what became of a run's cold starts in another run. All durations are
// means per cold start; those of Ledger, Phases and Causes are of traced ones,
// and their deltas sum to Traced.DeltaNS.
//
// Whether a delta is more than chance is said only of the whole, in Wall.
type Diff struct {
	Schema string      `json:"schema"`
	Before DiffRun     `json:"before"`
	After  DiffRun     `json:"after"`
	Wall   *DiffWall   `json:"wall,omitzero"`   // absent: a run has no untraced cold start
	Traced *DiffTraced `json:"traced,omitzero"` // absent, as all below: a run has no ledger

	Phases    []DiffPhase    `json:"phases,omitzero"`    // in the order of the window
	Causes    []DiffCause    `json:"causes,omitzero"`    // the ledger by phase × category, the greatest change first
	Ledger    []DiffCell     `json:"ledger,omitzero"`    // the greatest change first
	Functions []DiffFunction `json:"functions,omitzero"` // on the critical path, the greatest change of their own time first

	// What a run did not record is absent. What is equal in both is not listed.
	Binding    []Change `json:"binding,omitzero"`    // symbols, object: symbol
	Packages   []Change `json:"packages,omitzero"`   // of Go, initialised
	Certs      []Change `json:"certs,omitzero"`      // files, and functions that load embedded ones
	Goroutines []Change `json:"goroutines,omitzero"` // by first function: running and in system calls
	Syscalls   []Change `json:"syscalls,omitzero"`
	Files      []Change `json:"files,omitzero"`
	Requests   []Change `json:"requests,omitzero"`
	Dlopens    []Change `json:"dlopens,omitzero"`
	Allocator  []Change `json:"allocator,omitzero"`

	Warnings []string `json:"warnings"`

	oneSided []string // lists that only one run has
}

// DiffRun is one of the two runs.
type DiffRun struct {
	Run      string   `json:"run"` // its directory
	Command  []string `json:"command"`
	SHA256   string   `json:"sha256,omitempty"`
	Session  string   `json:"session,omitempty"`
	Traced   int      `json:"traced"`   // cold starts that went well
	Untraced int      `json:"untraced"` // likewise
	Failed   int      `json:"failed"`
}

// DiffWall compares release → /next of the untraced cold starts.
type DiffWall struct {
	Before  Summary   `json:"before"`
	After   Summary   `json:"after"`
	ShiftNS int64     `json:"shift_ns"`      // Hodges–Lehmann
	CI95    *[2]int64 `json:"ci95,omitzero"` // of the shift; absent below 6 cold starts in a run
}

// DiffTraced compares the means of t0 → the chosen end of traced cold starts.
type DiffTraced struct {
	BeforeNS int64 `json:"before_ns"`
	AfterNS  int64 `json:"after_ns"`
	DeltaNS  int64 `json:"delta_ns"`
	// MeasurementDeltaNS is the part of DeltaNS that is initprof's own.
	MeasurementDeltaNS int64 `json:"measurement_delta_ns"`
	// RunnableDeltaNS is the part of it that threads waited for a CPU, initprof's
	// own share apart: other load decides it as much as the change does.
	RunnableDeltaNS int64 `json:"runnable_delta_ns"`
}

// DiffPhase is a phase of either run: its cells' sum.
type DiffPhase struct {
	Name     string `json:"name"`
	Status   string `json:"status,omitempty"` // StatusAppeared or StatusVanished
	BeforeNS int64  `json:"before_ns"`
	AfterNS  int64  `json:"after_ns"`
	DeltaNS  int64  `json:"delta_ns"`
}

// DiffCause is a category of a phase, all states together.
type DiffCause struct {
	Phase    string `json:"phase"`
	Category string `json:"category"`
	BeforeNS int64  `json:"before_ns"`
	AfterNS  int64  `json:"after_ns"`
	DeltaNS  int64  `json:"delta_ns"`
	Through
}

// DiffCell is a cell of the ledger of either run.
type DiffCell struct {
	Phase    string `json:"phase"`
	Category string `json:"category"`
	State    string `json:"state"`
	BeforeNS int64  `json:"before_ns"`
	AfterNS  int64  `json:"after_ns"`
	DeltaNS  int64  `json:"delta_ns"`
	Through
}

// Through is the innermost function that most of a change goes through, with
// all it calls; none if several share it.
type Through struct {
	Function   string `json:"function,omitempty"`
	FunctionNS *int64 `json:"function_delta_ns,omitzero"`
}

// DiffFunction is a function on the critical path of either run. What it waits
// for, and initprof's share of it, count as functions that it calls, in brackets.
type DiffFunction struct {
	Key           string `json:"key"` // its name
	Module        string `json:"module,omitempty"`
	Status        string `json:"status"`
	BeforeNS      int64  `json:"before_ns"` // itself
	AfterNS       int64  `json:"after_ns"`
	TotalBeforeNS int64  `json:"total_before_ns"` // with all it calls
	TotalAfterNS  int64  `json:"total_after_ns"`
	Phase         string `json:"phase"` // in which it changed most
}

// What became of something.
const (
	StatusAppeared = "appeared"
	StatusVanished = "vanished"
	StatusGrew     = "grew"
	StatusShrank   = "shrank"
)

// Change is what became of something that both runs list, or only one. Times
// are nanoseconds, absent where they are unknown; whatever is in one run alone
// has a time or a count there alone.
type Change struct {
	Key         string   `json:"key"`
	Status      string   `json:"status"` // by time if both are known, else by count
	Before      *int64   `json:"before,omitzero"`
	After       *int64   `json:"after,omitzero"`
	BeforeCount *float64 `json:"before_count,omitzero"`
	AfterCount  *float64 `json:"after_count,omitzero"`
}

// Delta is by how much its time changed, if that is known: what was not there
// took none, but what was, and whose time was not measured, is no 0.
func (c *Change) Delta() (ns int64, known bool) {
	both := c.Status == StatusGrew || c.Status == StatusShrank
	if c.Before == nil && c.After == nil || both && (c.Before == nil || c.After == nil) {
		return 0, false
	}
	var d int64
	if c.After != nil {
		d = *c.After
	}
	if c.Before != nil {
		d -= *c.Before
	}
	return d, true
}

// Verdict says what the interval of the shift allows to say.
func (w *DiffWall) Verdict() string {
	switch {
	case w.CI95 == nil:
		return VerdictUndecided
	case w.CI95[1] < 0:
		return VerdictPays
	case w.CI95[0] > 0:
		return VerdictHurts
	}
	return VerdictUndecided
}

// Exceeds tells whether all of the shift's interval lies above so many per cent
// of the median before. ok is false where there is no interval.
func (w *DiffWall) Exceeds(percent float64) (exceeds, ok bool) {
	if w == nil || w.CI95 == nil || w.Before.P50 <= 0 {
		return false, false
	}
	return float64(w.CI95[0]) > percent/100*float64(w.Before.P50), true
}

const (
	leastForInterval = 6      // as stat.Summary has it
	mostForInterval  = 10_000 // cold starts, beyond which only their first are compared
)

// diffSeed fixes the bootstrap, so that the same runs give the same diff.
const diffSeed = 1

func newDiffWall(before, after []int64) (*DiffWall, string) {
	if len(before) == 0 || len(after) == 0 {
		return nil, ""
	}
	w := &DiffWall{Before: stat.Summarize(before), After: stat.Summarize(after)}
	warning := ""
	if len(before) > mostForInterval || len(after) > mostForInterval {
		warning = "the shift is that of the first 10,000 untraced cold starts"
		before, after = before[:min(len(before), mostForInterval)], after[:min(len(after), mostForInterval)]
	}
	shift, ci := stat.HodgesLehmann(before, after, diffSeed)
	w.ShiftNS = shift
	if min(len(before), len(after)) >= leastForInterval {
		w.CI95 = &ci
	} else {
		warning = "the shift has no interval, since that takes 6 untraced cold starts of each run: record with -n 25, or --untraced 12"
	}
	return w, warning
}

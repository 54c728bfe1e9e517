// Package analysis computes the answer of a run — the report — from its
// timelines, phases and symbols, and holds the shape of every answer as it
// stands in JSON. It stands between the recorded run and the reports: packages
// under reports/ render these structs and compute nothing of their own.
//
// A figure that is unknown (its signal was not recorded, the host or the
// binary does not allow it, the cold start did not get there) is absent: a nil
// pointer or a nil slice. A known zero is a pointer to 0, a known absence an
// empty slice, and both are printed. Durations are integer nanoseconds.
package analysis

import "github.com/initprof/initprof/profiler/stat"

// ReportSchema is the value of Report.Schema.
const ReportSchema = "initprof/report/v1"

// Summary describes a distribution over cold starts.
type Summary = stat.Summary

// Report is what a run says. Seen over all cold starts, sums (counts and
// durations outside of Runs) are means per traced cold start, and
// distributions are over cold starts; seen for one, every figure is its own
// and Runs holds it alone. Counts are therefore fractions where some cold
// starts differ; durations are rounded so that sums hold.
type Report struct {
	Schema     string   `json:"schema"`
	Session    string   `json:"session,omitempty"`     // equal for runs recorded interleaved
	BlockCount int      `json:"block_count,omitempty"` // randomised blocks of that session
	Tool       Tool     `json:"tool"`
	Host       Host     `json:"host"`
	Subject    Subject  `json:"subject"`
	Settings   Settings `json:"settings"`
	Probes     []Probe  `json:"probes,omitzero"`
	Stacks     *Stacks  `json:"stacks,omitzero"`
	Runs       []Run    `json:"runs"`

	Wall     *Summary `json:"wall,omitzero"`     // traced: t0 → the chosen end
	Untraced *Summary `json:"untraced,omitzero"` // untraced: release → /next
	Init     *Summary `json:"init,omitzero"`     // release of the first extension → the last first /next
	// Slack is how much later the subject could ask for its first event without
	// delaying INIT, which others end.
	Slack       *Summary        `json:"slack,omitzero"`
	FirstInvoke *Summary        `json:"first_invoke,omitzero"` // invoke sent → all asked next again
	Phases      []Phase         `json:"phases,omitzero"`       // in the order of the window
	Spans       []SpanStatistic `json:"spans,omitzero"`

	Ledger       *Ledger      `json:"ledger,omitzero"`
	InitPath     *InitPath    `json:"init_path,omitzero"`     // who all of INIT waited for
	CriticalPath []PathStep   `json:"critical_path,omitzero"` // of one cold start only
	Syscalls     []Syscall    `json:"syscalls,omitzero"`      // most time first
	Faults       *Faults      `json:"faults,omitzero"`
	Binding      *Binding     `json:"binding,omitzero"`
	Dlopens      []Dlopen     `json:"dlopens,omitzero"`
	Dlsyms       []Dlsym      `json:"dlsyms,omitzero"`
	Allocator    []Allocation `json:"allocator,omitzero"`
	Certs        []Cert       `json:"certs,omitzero"`
	Goroutines   []Goroutine  `json:"goroutines,omitzero"`
	Packages     []Package    `json:"packages,omitzero"` // most time first
	Parts        []Part       `json:"parts,omitzero"`    // of the phases loader and runtime_init
	Files        []File       `json:"files,omitzero"`    // most time first
	Imports      []Import     `json:"imports,omitzero"`  // in the order of their start
	Requests     []Request    `json:"requests,omitzero"` // in the order of their start
	Threads      []Thread     `json:"threads,omitzero"`  // most time on a CPU first

	Overhead *Overhead `json:"overhead,omitzero"`
	Warnings []string  `json:"warnings"`
}

// Tool is the initprof that recorded.
type Tool struct {
	Version string `json:"version"`
}

// Host is the machine that recorded.
type Host struct {
	Kernel   string `json:"kernel"` // release, as uname -r
	Arch     string `json:"arch"`   // as GOARCH
	CPUModel string `json:"cpu_model,omitempty"`
	CPUs     int    `json:"cpus"` // online
}

// Subject is the program that was profiled.
type Subject struct {
	Command         []string `json:"command"` // secrets redacted
	SHA256          string   `json:"sha256,omitempty"`
	BuildID         string   `json:"build_id,omitempty"`
	Language        string   `json:"language,omitempty"` // "go", "rust", "c", "c++", "script", …
	LanguageVersion string   `json:"language_version,omitempty"`
	Linkage         string   `json:"linkage,omitempty"` // "static", "static-pie", "dynamic", …
}

// Settings is what the cold starts were given.
type Settings struct {
	As                 string   `json:"as"` // "extension" or "runtime"
	Runs               int      `json:"runs"`
	Until              string   `json:"until"` // "next", "exit", "log=REGEXP", "symbol=NAME"
	InitializationType string   `json:"initialization_type,omitempty"`
	User               string   `json:"user,omitempty"`
	PageCache          string   `json:"page_cache,omitempty"`   // "warm" or "cold"
	MemoryMB           *int64   `json:"memory_mb,omitzero"`     // absent: no limit
	CPUs               *int     `json:"cpus,omitzero"`          // visible ones; absent: all
	CPUQuota           *float64 `json:"cpu_quota,omitzero"`     // in CPUs; absent: no limit
	CPUPeriodNS        *int64   `json:"cpu_period_ns,omitzero"` // of the quota
	ThrottledNS        *int64   `json:"throttled_ns,omitzero"`  // mean per cold start
	Latency            string   `json:"latency,omitempty"`      // the environment's, assumed by the user
	SampleHz           *int     `json:"sample_hz,omitzero"`     // 0: no samples
	Signals            []string `json:"signals,omitzero"`       // recorded ones
	Network            string   `json:"network,omitempty"`      // "isolated" or "host"
}

// States of a Probe.
const (
	ProbeAttached    = "attached"
	ProbeUnavailable = "unavailable"
)

// Probe is one place that was, or should have been, observed.
type Probe struct {
	Name   string   `json:"name"`
	Status string   `json:"status"`
	Reason string   `json:"reason,omitempty"` // why it is unavailable, with the cure where there is one
	Hits   *float64 `json:"hits,omitzero"`
	// EstimatedNS is what the hits of a cold start cost its subject, by what one
	// costs on x86-64.
	EstimatedNS *int64 `json:"estimated_ns,omitzero"`
}

// Stacks counts the user stacks that were walked.
type Stacks struct {
	Complete  float64           `json:"complete"` // reached the thread's entry
	Truncated []TruncatedStacks `json:"truncated"`
}

// TruncatedStacks counts the stacks that did not, by reason.
type TruncatedStacks struct {
	Reason string  `json:"reason"`
	Count  float64 `json:"count"`
}

// Outcomes of a cold start.
const (
	OutcomeOK            = "ok"
	OutcomeCrashed       = "crashed"        // died of a signal of its own making
	OutcomeExited        = "exited"         // ended before the end of INIT
	OutcomeKilled        = "killed"         // by SIGKILL, or the memory limit
	OutcomeInitError     = "init_error"     // reported init/error or exit/error
	OutcomeTimeout       = "timeout"        // INIT did not end in time
	OutcomeNotExecutable = "not_executable" // execve did not succeed
)

// Run is one cold start.
type Run struct {
	Index   int    `json:"index"` // from 1
	Traced  bool   `json:"traced"`
	Outcome string `json:"outcome"`
	// OutcomeDetail is a sentence on how it failed, and LastOutput what the
	// subject printed last, secrets redacted. Both are empty when it did not.
	OutcomeDetail    string     `json:"outcome_detail,omitempty"`
	LastOutput       []string   `json:"last_output,omitempty"`
	ExecToNextNS     *int64     `json:"exec_to_next_ns,omitzero"`
	ReleaseToNextNS  *int64     `json:"release_to_next_ns,omitzero"`
	InitNS           *int64     `json:"init_ns,omitzero"`
	FirstInvokeNS    *int64     `json:"first_invoke_ns,omitzero"`
	WallNS           *int64     `json:"wall_ns,omitzero"`            // t0 → the chosen end
	SlackNS          *int64     `json:"slack_ns,omitzero"`           // the subject's /next → the end of INIT
	SubscribeOutcome string     `json:"subscribe_outcome,omitempty"` // "ok", "refused", "pending", "none"
	Events           *int64     `json:"events,omitzero"`
	LostEvents       *int64     `json:"lost_events,omitzero"`
	Phases           []RunPhase `json:"phases,omitzero"`
	Spans            []RunSpan  `json:"spans,omitzero"`
}

// RunPhase is a phase of one cold start; the phases tile the window.
type RunPhase struct {
	Name    string `json:"name"`     // of the checkpoint that ends it
	StartNS int64  `json:"start_ns"` // since t0
	DeltaNS int64  `json:"delta_ns"`
}

// RunSpan is work of one cold start that may overlap with other work.
type RunSpan struct {
	Name      string `json:"name"`
	ID        uint64 `json:"id"`
	StartNS   int64  `json:"start_ns"` // since t0
	NS        int64  `json:"ns"`       // its own duration
	OverlapNS *int64 `json:"overlap_ns,omitzero"`
}

// Sources of a Phase.
const (
	SourceUniversal  = "universal"
	SourceCheckpoint = "checkpoint"
	SourceRule       = "rule"
)

// Phase is a phase over cold starts. Delta.N tells in how many it occurred.
type Phase struct {
	Name       string  `json:"name"`
	Source     string  `json:"source"`
	Delta      Summary `json:"delta"`
	Cumulative Summary `json:"cumulative"` // t0 → its end
}

// SpanStatistic is a span over cold starts.
type SpanStatistic struct {
	Name    string   `json:"name"`
	Own     Summary  `json:"own"`
	Overlap *Summary `json:"overlap,omitzero"`
}

// Syscall is what one system call cost inside the window.
type Syscall struct {
	Name   string  `json:"name"`
	Count  float64 `json:"count"` // entries
	Errors float64 `json:"errors"`
	NS     int64   `json:"ns"` // entry to exit, waiting included
}

// Faults is what page faults cost inside the window.
type Faults struct {
	Minor     float64        `json:"minor"`
	Major     float64        `json:"major"`
	NS        int64          `json:"ns"`
	ByMapping []MappingFault `json:"by_mapping"` // most time first
}

// MappingFault is the part of one mapping.
type MappingFault struct {
	Mapping string  `json:"mapping"`        // a path, "[heap]", "[stack]", "//anon", …
	Kind    string  `json:"kind,omitempty"` // "text", "data", "anonymous", …
	Minor   float64 `json:"minor"`
	Major   float64 `json:"major"`
	NS      int64   `json:"ns"`
}

// File is a file that the subject opened, or tried to.
type File struct {
	Path     string  `json:"path"`
	Opens    float64 `json:"opens"`
	Bytes    float64 `json:"bytes"` // read
	NS       int64   `json:"ns"`    // in system calls on it
	Category string  `json:"category,omitempty"`
}

// Import is a module that an interpreter (Python, Node) loaded from a file. Start,
// NS and Probes are means over the cold starts in which it did.
type Import struct {
	Module  string  `json:"module"`
	Path    string  `json:"path"`        // that was opened first
	StartNS int64   `json:"start_ns"`    // since t0: its first open
	NS      *int64  `json:"ns,omitzero"` // until the thread opened the next module; absent: it opened none
	Opens   float64 `json:"opens"`       // per traced cold start
	Probes  float64 `json:"probes"`      // calls that asked for or opened other paths since the module before
}

// Request is an HTTP request of the subject to the runtime API.
type Request struct {
	Method  string `json:"method"`
	Path    string `json:"path"`
	StartNS int64  `json:"start_ns"`        // since t0
	NS      *int64 `json:"ns,omitzero"`     // until the response was read; absent: unanswered
	Status  *int   `json:"status,omitzero"` // of the response
}

// Thread is a thread of the subject inside the window.
type Thread struct {
	TID        int    `json:"tid,omitempty"` // absent over several cold starts
	Name       string `json:"name"`
	OnCPUNS    int64  `json:"on_cpu_ns"`
	RunnableNS int64  `json:"runnable_ns"` // waiting for a CPU
	WaitingNS  int64  `json:"waiting_ns"`
}

// Overhead is what tracing cost. Ratio compares release → /next only.
type Overhead struct {
	TracedP50NS   *int64   `json:"traced_p50_ns,omitzero"`
	UntracedP50NS *int64   `json:"untraced_p50_ns,omitzero"`
	Ratio         *float64 `json:"ratio,omitzero"`
	EventsPerRun  *float64 `json:"events_per_run,omitzero"`
	TracerCPUNS   *int64   `json:"tracer_cpu_ns,omitzero"`
	EstimatedNS   *int64   `json:"estimated_ns,omitzero"`
}

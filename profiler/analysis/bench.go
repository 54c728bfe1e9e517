package analysis

// BenchSchema is the value of Bench.Schema.
const BenchSchema = "initprof/bench/v1"

// Bench compares variants by untraced cold starts, interleaved in randomised
// blocks: every block holds each variant once.
type Bench struct {
	Schema      string       `json:"schema"`
	Seed        uint64       `json:"seed"` // of the order, and of the bootstrap
	Host        Host         `json:"host"`
	Subject     *Subject     `json:"subject,omitzero"` // where all variants run the same program
	Settings    Settings     `json:"settings"`
	Variants    []Variant    `json:"variants"` // as the user listed them, the base first
	Comparisons []Comparison `json:"comparisons,omitzero"`
	AA          *AA          `json:"aa,omitzero"`
	Warnings    []string     `json:"warnings"`
}

// Variant is one command with its environment.
type Variant struct {
	Name     string           `json:"name"`
	Command  []string         `json:"command"`
	EnvNames []string         `json:"env_names,omitzero"` // values are never kept
	SHA256   string           `json:"sha256,omitempty"`
	N        int              `json:"n"`
	Outcomes map[string]int   `json:"outcomes"` // by Run.Outcome
	Metrics  Metrics[Summary] `json:"metrics"`  // over cold starts with outcome "ok"
	Raw      []BenchRun       `json:"raw"`
}

// BenchRun is one cold start of a variant.
type BenchRun struct {
	Block         int    `json:"block"`    // from 1
	Position      int    `json:"position"` // in the block, from 1
	Outcome       string `json:"outcome"`
	OutcomeDetail string `json:"outcome_detail,omitempty"`
	Metrics[int64]
}

// Metrics holds one figure (or its distribution) a metric; nil is unknown.
// Durations are in nanoseconds, MaxRSS is in bytes, Faults a count.
type Metrics[T any] struct {
	ReleaseToNext       *T `json:"release_to_next,omitzero"` // the primary metric
	ReleaseToRegister   *T `json:"release_to_register,omitzero"`
	Ready               *T `json:"ready,omitzero"` // as the subject prints it
	Init                *T `json:"init,omitzero"`
	FirstInvoke         *T `json:"first_invoke,omitzero"`
	InitPlusFirstInvoke *T `json:"init_plus_first_invoke,omitzero"`
	CPU                 *T `json:"cpu,omitzero"`
	MaxRSS              *T `json:"max_rss,omitzero"`
	Faults              *T `json:"faults,omitzero"`
}

// Unit is the unit of a metric.
type Unit string

// The units of metrics.
const (
	UnitNanoseconds Unit = "ns"
	UnitBytes       Unit = "bytes"
	UnitCount       Unit = "count"
)

// Metric names one metric of Metrics.
type Metric struct {
	Name string // as in JSON
	Unit Unit
}

// MetricList lists the metrics in the order in which reports show them.
var MetricList = []Metric{
	{"release_to_next", UnitNanoseconds},
	{"release_to_register", UnitNanoseconds},
	{"ready", UnitNanoseconds},
	{"init", UnitNanoseconds},
	{"first_invoke", UnitNanoseconds},
	{"init_plus_first_invoke", UnitNanoseconds},
	{"cpu", UnitNanoseconds},
	{"max_rss", UnitBytes},
	{"faults", UnitCount},
}

// Field returns where the metric of that name is kept, nil if there is none
// of that name.
func (m *Metrics[T]) Field(name string) **T {
	switch name {
	case "release_to_next":
		return &m.ReleaseToNext
	case "release_to_register":
		return &m.ReleaseToRegister
	case "ready":
		return &m.Ready
	case "init":
		return &m.Init
	case "first_invoke":
		return &m.FirstInvoke
	case "init_plus_first_invoke":
		return &m.InitPlusFirstInvoke
	case "cpu":
		return &m.CPU
	case "max_rss":
		return &m.MaxRSS
	case "faults":
		return &m.Faults
	}
	return nil
}

// Verdicts of a Comparison.
const (
	VerdictPays      = "pays"      // significantly faster
	VerdictHurts     = "hurts"     // significantly slower
	VerdictNoEffect  = "no_effect" // the whole interval lies within the equivalence margin
	VerdictUndecided = "undecided" // none of these: more runs would tell
)

// Comparison is one metric of a variant against the base.
type Comparison struct {
	Base          string    `json:"base"`
	Variant       string    `json:"variant"`
	Metric        string    `json:"metric"`
	ShiftNS       int64     `json:"shift_ns"`      // Hodges–Lehmann, variant − base, in the metric's unit
	CI95          *[2]int64 `json:"ci95,omitzero"` // of the shift, by bootstrap
	P             float64   `json:"p"`             // Mann–Whitney U, two-sided
	PHolm         float64   `json:"p_holm"`        // corrected over all comparisons made
	Significant   bool      `json:"significant"`   // p_holm < 0.05
	Verdict       string    `json:"verdict"`
	EquivalenceNS int64     `json:"equivalence_ns"` // the margin below which a shift does not matter
}

// AA compares the base with itself, run twice.
type AA struct {
	P       float64 `json:"p"`
	ShiftNS int64   `json:"shift_ns"`
}

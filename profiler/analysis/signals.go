package analysis

// Ledger is the exclusive account: the cells and UnattributedNS sum to WallNS.
type Ledger struct {
	WallNS         int64     `json:"wall_ns"`
	UnattributedNS int64     `json:"unattributed_ns"`
	UnknownWakerNS int64     `json:"unknown_waker_ns"`
	Cells          []Cell    `json:"cells"`      // by phase, the greatest first in each
	Overlapped     []Overlap `json:"overlapped"` // on CPUs, off the critical path
	// Longest are the steps of the critical path, those of the same kind and
	// stack taken together, the longest first.
	Longest []LongStep `json:"longest,omitzero"`
	// Varying compares the slowest quarter of the cold starts with the fastest,
	// the greatest difference first; absent below 8 cold starts.
	Varying []Varying `json:"varying,omitzero"`
}

// LongStep is a sum of like steps of the critical path.
type LongStep struct {
	Phase          string   `json:"phase"`
	Category       string   `json:"category"`
	State          string   `json:"state"`
	Thread         string   `json:"thread"`
	WaitsFor       string   `json:"waits_for,omitempty"`
	RunnableBehind string   `json:"runnable_behind,omitempty"`
	NS             int64    `json:"ns"`
	Count          float64  `json:"count"`
	Stack          []string `json:"stack"` // leaf first, function (file:line)
}

// Varying is what a cell is in the fastest and in the slowest quarter.
type Varying struct {
	Phase    string `json:"phase"`
	Category string `json:"category"`
	State    string `json:"state"`
	FastNS   int64  `json:"fast_ns"`
	SlowNS   int64  `json:"slow_ns"`
}

// States of a Cell, and what they rest on.
const (
	StateUser     = "user"
	StateKernel   = "kernel"
	StateFault    = "fault"
	StateRunnable = "runnable"
	StateWaiting  = "waiting"

	BasisMeasured = "measured" // exact events
	BasisSampled  = "sampled"  // user time divided by samples
)

// Cell is a part of the window that is blamed on one thing.
type Cell struct {
	Phase    string    `json:"phase"`
	Category string    `json:"category"`
	State    string    `json:"state"`
	NS       int64     `json:"ns"`
	Basis    string    `json:"basis"`
	Samples  *int64    `json:"samples,omitzero"`
	CI95     *[2]int64 `json:"ci95,omitzero"` // of the mean
}

// Overlap is work that overlapped with the critical path.
type Overlap struct {
	Category string `json:"category"`
	NS       int64  `json:"ns"`
}

// PathStep is one step of the critical path of one cold start.
type PathStep struct {
	StartNS   int64   `json:"start_ns"` // since t0
	NS        int64   `json:"ns"`
	Phase     string  `json:"phase"`
	Category  string  `json:"category"`
	State     string  `json:"state"`
	Thread    string  `json:"thread"`
	Goroutine *uint64 `json:"goroutine,omitzero"`
	// GoroutineFunction is what the goroutine began with.
	GoroutineFunction string   `json:"goroutine_function,omitempty"`
	Waker             string   `json:"waker,omitempty"`
	WaitsFor          string   `json:"waits_for,omitempty"`
	RunnableBehind    string   `json:"runnable_behind,omitempty"`
	Stack             []string `json:"stack"` // leaf first
}

// Binding is the work of the dynamic linker.
type Binding struct {
	Lazy    BindingSum    `json:"lazy"`
	Eager   BindingSum    `json:"eager"`
	Symbols []BoundSymbol `json:"symbols"`
	Objects []BoundObject `json:"objects"`
}

// BindingSum counts bindings of one mode.
type BindingSum struct {
	Count float64 `json:"count"`
	NS    int64   `json:"ns"`
}

// BoundSymbol is a symbol that was bound, in one object and phase.
type BoundSymbol struct {
	Name   string  `json:"name"`             // empty: the object's file could not be read
	Object string  `json:"object"`           // that refers to it
	Target string  `json:"target,omitempty"` // that defines it; known of lazy ones
	Mode   string  `json:"mode"`             // "lazy" or "eager"
	Count  float64 `json:"count"`            // bindings, in all processes
	NS     *int64  `json:"ns,omitzero"`      // absent of eager ones: they are part of their object's relocation
	Phase  string  `json:"phase"`
}

// BoundObject is an object that the dynamic linker mapped and relocated.
type BoundObject struct {
	Path           string   `json:"path"`
	Mode           string   `json:"mode,omitempty"` // "lazy" or "eager"; empty: its relocation was not seen
	NS             int64    `json:"ns"`             // relocation
	MapNS          *int64   `json:"map_ns,omitzero"`
	ConstructorsNS *int64   `json:"constructors_ns,omitzero"`
	Faults         float64  `json:"faults"`       // inside its relocation
	BoundLazily    float64  `json:"bound_lazily"` // distinct symbols
	NeverBound     *float64 `json:"never_bound,omitzero"`
	*StaticRelocations
}

// StaticRelocations is what an object's file holds for the loader to do.
type StaticRelocations struct {
	Relative  int    `json:"relative"`
	RELR      int    `json:"relr"`
	GlobDat   int    `json:"glob_dat"`
	JumpSlot  int    `json:"jump_slot"`
	IRelative int    `json:"irelative"`
	TLS       int    `json:"tls"`
	BindNow   bool   `json:"bind_now"`
	RELRO     string `json:"relro"` // "none", "partial" or "full"
}

// Dlopen is a library opened at run time, or tried.
type Dlopen struct {
	Path  string  `json:"path"` // as given; empty: the program itself
	Count float64 `json:"count"`
	NS    *int64  `json:"ns,omitzero"` // absent: it was left without a return
	OK    bool    `json:"ok"`
}

// Dlsym is a symbol looked up at run time.
type Dlsym struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
	NS    *int64  `json:"ns,omitzero"`
	OK    bool    `json:"ok"`
}

// Part is a share of the phase loader or runtime_init, which it tiles with the
// others of that phase.
type Part struct {
	Phase string `json:"phase"`
	Name  string `json:"name"`
	NS    int64  `json:"ns"`
}

// Allocation is a part of an allocator's set-up.
type Allocation struct {
	Name        string  `json:"name"` // of the allocator
	Function    string  `json:"function"`
	NS          int64   `json:"ns"`
	MappedBytes int64   `json:"mapped_bytes"`
	Faults      float64 `json:"faults"`
	Phase       string  `json:"phase"`
}

// Cert is a load of certificates.
type Cert struct {
	Path     string   `json:"path"`
	Bytes    *float64 `json:"bytes,omitzero"` // absent: not known, as of embedded ones
	Function string   `json:"function"`
	NS       int64    `json:"ns"`
	Faults   float64  `json:"faults"`
	Phase    string   `json:"phase"`
}

// Package is the initialisation of one Go package.
type Package struct {
	Path string `json:"path"`
	NS   int64  `json:"ns"`
}

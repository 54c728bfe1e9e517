package probe

// Action is what is recorded where a uprobe is hit.
type Action uint8

// The actions. Those of calls also probe the function's return.
const (
	RecordMark        Action = iota // that the instruction was reached
	RecordCheckpoint                // what the arguments of checkpoint.mark name
	RecordGo                        // a mark with the goroutine; never with a return probe: it would crash Go
	RecordUSDT                      // a checkpoint that a static probe's arguments name
	RecordCall                      // a call, from entry to return
	RecordCallObject                // … whose first argument is a struct link_map
	RecordCallText0                 // … whose first argument is a string
	RecordCallText1                 // … whose second argument is a string
	RecordCallBinding               // … that binds a symbol for the struct link_map given first, at the least cost
	RecordReturn                    // the end of a call whose point says that its returns are apart
)

// IsCall reports whether the action records calls.
func (a Action) IsCall() bool { return a >= RecordCall && a <= RecordCallBinding }

// Kind is what reaching a point means.
type Kind uint8

// The kinds of points.
const (
	Checkpoint Kind = iota // extension/checkpoint's marker, whose arguments name it
	Entry                  // the program's entry: the loader is done
	Main                   // main.main of Go, or main
	Symbol                 // a symbol that a rule or --until asked for
	Enter                  // the entry of a function of Go
	Leave                  // a function of Go has returned to its caller
	Call                   // a function is called
)

// Point is an instruction to probe.
type Point struct {
	Offset uint64 `json:"offset"` // in the file, bytes
	Action Action `json:"action,omitempty"`
	Kind   Kind   `json:"kind,omitempty"`
	Name   string `json:"name,omitempty"` // of the function
	Cookie uint64 `json:"-"`              // where a static probe's arguments are, see operands
	// Steps says that the kernel single-steps the instruction at each hit.
	Steps bool `json:"steps,omitempty"`
	// ReturnsApart says of a call that its returns are points of their own, with
	// RecordReturn: on arm64 a return probe's entry would be single-stepped.
	ReturnsApart bool `json:"returns_apart,omitempty"`
}

// String names the point as reports do.
func (p Point) String() string {
	if p.Kind == Leave || p.Action == RecordReturn {
		return p.Name + " return"
	}
	return p.Name
}

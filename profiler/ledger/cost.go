package ledger

// Costs is what one hit of a probe costs a subject, in nanoseconds, with its
// stack where it has one.
type Costs struct {
	Syscall float64 // entry and exit
	Sched   float64 // switch or wake-up
	Fault   float64 // entry and exit
	Sample  float64
	Status  float64 // a change of a goroutine's status
	Seen    float64 // cheap mode: a look at which goroutine a thread runs
	Mark    float64 // a uprobe on an instruction that the kernel emulates
	Call    float64 // entry and return
	Step    float64 // more, where the instruction is single-stepped
}

// DefaultCosts were measured on x86-64, kernel 6.18, in a virtual machine. A
// sample's is the timer interrupt there, not the program that it runs.
var DefaultCosts = Costs{Syscall: 1200, Sched: 600, Fault: 1300, Sample: 13500, Status: 1300, Seen: 300, Mark: 700, Call: 1500, Step: 13500}

// OfProbe returns the cost of a hit of a kernel's tracepoint or event, by the
// name that reports give it.
func (c Costs) OfProbe(name string) (ns float64, known bool) {
	switch name {
	case "raw_syscalls":
		return c.Syscall, true
	case "sched":
		return c.Sched, true
	case "page-faults":
		return c.Fault, true
	case "cpu-clock":
		return c.Sample, true
	case "goroutines":
		return c.Status, true
	case "goroutines (cheap)":
		return c.Seen, true
	}
	return 0, false
}

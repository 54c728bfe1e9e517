package trace

// Header is what all events have in common.
type Header struct {
	Time int64 // nanoseconds, CLOCK_MONOTONIC: the instant, or the begin of an interval
	CPU  int   // where the record was written
	PID  int   // thread group ID in the initial PID namespace
	TID  int   // thread ID in the initial PID namespace
}

// Head returns the header itself, so that every event type is an Event.
func (h *Header) Head() *Header { return h }

// Event is one of *Syscall, *Switch, *Waking, *Fork, *Exec, *Exit, *Fault,
// *Sample, *Mapping, *Mark, *FunctionCall or *Goroutine.
type Event interface{ Head() *Header }

// Syscall is one system call of a subject's thread. A call whose entry was not
// seen (a new thread returning from clone, a lost record) has Time 0: it began
// at the thread's start or at the latest when its previous event ended. A call
// that is execve keeps the TID of its entry, even if the exec changed it.
type Syscall struct {
	Header
	End     int64 // exit; 0 while the call had not returned when tracing stopped
	Number  int   // in the table of the recording's architecture, see SyscallName
	Return  int64 // valid when End != 0; a negative errno on failure
	Args    [6]uint64
	Path    string   // the file name given to open, openat, openat2, execve, …
	Request *Request // the HTTP request to the runtime API that it carried
	Stack   Stack
}

// Request is the request line of an HTTP request to the runtime API's address.
// Headers, query and body are never captured.
type Request struct {
	Method string
	Path   string
}

// SwitchState is the state in which a thread left the CPU.
type SwitchState uint8

// The states that matter to a timeline.
const (
	SwitchPreempted SwitchState = iota // still runnable
	SwitchSleeping                     // TASK_INTERRUPTIBLE
	SwitchBlocked                      // TASK_UNINTERRUPTIBLE: I/O, locks of the kernel
	SwitchStopped                      // stopped or traced
	SwitchDead
)

// Switch is a CPU that went from one thread to another. Its header names the
// thread that left. At least one side belongs to the subject, or a thread of
// the subject was runnable at that time.
type Switch struct {
	Header
	State    SwitchState // of the thread that left
	Comm     string      // name of the thread that left
	NextPID  int
	NextTID  int // 0: the idle thread
	NextComm string
	Stack    Stack // of the thread that left, where it left to wait
}

// WakeContext tells in which context a wake-up was made. Only in WakeTask is
// the current thread the waker; otherwise it was merely interrupted.
type WakeContext uint8

// The contexts of a wake-up.
const (
	WakeTask    WakeContext = iota
	WakeTimer               // an hrtimer callback
	WakeNetwork             // the NET_RX softirq
	WakeSoftirq             // another softirq
	WakeHardirq             // a device's interrupt
)

// Waking is a thread of the subject made runnable. Its header names the
// current thread of the waking CPU, which need not belong to the subject.
type Waking struct {
	Header
	TargetPID int
	TargetTID int
	Context   WakeContext
	Comm      string // of the current thread
}

// Fork is a new thread (ChildPID == PID) or process of the subject.
type Fork struct {
	Header
	ChildPID int
	ChildTID int
}

// Exec is a successful execve: the moment when the new program is loaded and
// nothing of it has run. Header.TID is the thread after exec (the leader),
// OldTID the one that called.
type Exec struct {
	Header
	OldTID      int
	Path        string // as given to execve
	Entry       uint64 // AT_ENTRY: the program's entry
	Base        uint64 // AT_BASE: the interpreter's load address, 0 if static
	ProgramHdrs uint64 // AT_PHDR
	VDSO        uint64 // AT_SYSINFO_EHDR
}

// Exit is the end of a thread.
type Exit struct {
	Header
	Code      int  // as wait(2) gives it: exit status << 8 | signal
	GroupDead bool // the last thread of its process
}

// Fault is one page fault, taken in user or kernel mode.
type Fault struct {
	Header
	End     int64 // 0: it never completed (a signal, or tracing stopped)
	Address uint64
	Major   bool
	Kernel  bool // taken while in kernel mode, by an access of the kernel to user memory
	Stack   Stack
}

// Sample is one tick of a CPU's sampling clock that hit a subject's thread.
type Sample struct {
	Header
	Kernel bool // the thread was in kernel mode
	Stack  Stack
}

// Protection bits of a Mapping, as in mmap(2).
const (
	ProtRead  = 1
	ProtWrite = 2
	ProtExec  = 4
)

// Mapping is a part of an address space, at the time when it was mapped.
type Mapping struct {
	Header
	Start   uint64
	Limit   uint64 // first address behind it
	Offset  uint64 // in the file, bytes
	Prot    uint32
	Path    string // "[heap]", "[stack]", "[vdso]", "//anon" or a file as the subject sees it
	BuildID string // hexadecimal GNU or Go build ID, empty if none is known
}

// MarkKind tells what a Mark marks.
type MarkKind uint8

// The kinds of marks.
const (
	MarkCheckpoint MarkKind = iota
	MarkSpanBegin
	MarkSpanEnd
	MarkEntry  // the entry (AT_ENTRY) of a dynamically linked program: its loader is done
	MarkMain   // main.main or main
	MarkSymbol // a symbol that a rule or --until asked for; Name is the symbol's
	MarkEnter  // a function of Go was entered; Name is the function's
	MarkLeave  // a function of Go returned to one of its callers
)

// Mark is a point that the subject itself declared or a rule names: a
// checkpoint, one end of a span, or one of the points of a start-up that every
// program passes. Marks of one process are ordered by time; MarkEntry and
// MarkMain are expected once after each Exec and are simply absent where the
// point could not be probed.
type Mark struct {
	Header
	Kind MarkKind
	Name string
	ID   uint64 // of the span; of MarkEnter and MarkLeave the address of the goroutine's g; else 0
	// Value is the word behind the first one that a Go function's first argument
	// points to: of runtime.doInit1, which gets a package's initTask, the
	// address of the package's first init function. It means nothing else.
	Value uint64
	// Spent is how long noting it took, in nanoseconds: what it marks began so
	// much later. 0: not known.
	Spent int64
}

// FunctionCall is one call of a probed function that is not Go's. Its stack is
// the caller's.
type FunctionCall struct {
	Header
	End    int64  // 0: it was left without a return (longjmp), or not left when tracing stopped
	Name   string // of the function, as it was planned
	Args   [3]uint64
	Return uint64 // valid when End != 0
	Text   string // the string that it was given: dlopen's path, dlsym's symbol
	// Base and Dynamic are the load bias and the address of the dynamic section
	// of the object that a function of the loader was given; 0: none.
	Base, Dynamic uint64
	Minor, Major  int // faults taken inside, those of inner calls included
	Stack         Stack
}

// Stack holds return addresses, leaf first: those of the kernel, then those of
// user space. Addresses are as the CPU holds them: the first of each part is
// an instruction pointer, the others are return addresses.
type Stack struct {
	Kernel []uint64
	User   []uint64
	// Caller is the word at the top of the user stack (x86-64) or the link
	// register (arm64): the return address of User[0] if that is a function
	// without a frame, or one that has not built it yet; else of no meaning.
	Caller    uint64
	Truncated Truncation
}

// Truncation says why a user stack does not reach the thread's entry.
type Truncation uint8

// The reasons of a truncated stack.
const (
	Complete        Truncation = iota // the walk reached where the thread begins
	TruncatedDepth                    // more frames than the capture keeps
	TruncatedMemory                   // a frame could not be read
	TruncatedFrame                    // the frame pointer leads nowhere: code without frame pointers
	TruncatedNoCFI                    // code with neither unwinding tables nor frame pointers
	TruncatedCopy                     // the caller lies beyond the part of the stack that was copied
	TruncatedPage                     // a page of the stack could not be read
	TruncatedCFI                      // the unwinding tables make no sense here
	TruncatedLost                     // the copy of the stack found no room
)

// Truncations names the reasons of truncated stacks, as reports do.
var Truncations = [...]string{
	Complete: "", TruncatedDepth: "depth", TruncatedMemory: "memory", TruncatedFrame: "frame_pointer",
	TruncatedNoCFI: "no_cfi", TruncatedCopy: "copy_too_short", TruncatedPage: "unreadable_page",
	TruncatedCFI: "malformed_cfi", TruncatedLost: "copy_lost",
}

// Empty reports whether the stack has no frame.
func (s Stack) Empty() bool { return len(s.Kernel) == 0 && len(s.User) == 0 }

// GoStatus is the status of a goroutine, by the numbers of runtime/runtime2.go.
type GoStatus uint8

// The statuses that a timeline tells apart; others count as dead.
const (
	GoIdle      GoStatus = 0
	GoRunnable  GoStatus = 1
	GoRunning   GoStatus = 2
	GoSyscall   GoStatus = 3
	GoWaiting   GoStatus = 4
	GoDead      GoStatus = 6
	GoPreempted GoStatus = 9
)

// Goroutine is a goroutine that goes from one status to another. Its header
// names the thread that changes the status: the one that runs the goroutine,
// will run it, or makes it ready.
type Goroutine struct {
	Header
	G        uint64 // address of its runtime.g, which other goroutines inherit
	ID       uint64 // 0: not set yet (Go 1.22 and 1.23 at birth), or Seen and nothing runs
	From, To GoStatus
	Reason   string // what it waits for, by the names of its version of Go
	Stack    Stack  // where it parks

	// Seen says that this is no change, but that the thread was found to run
	// this goroutine (cheap mode), of which these tell the origin, as at birth.
	Seen      bool
	Parent    uint64 // ID
	CreatedPC uint64 // return address of the go statement
	StartPC   uint64 // entry of its first function
}

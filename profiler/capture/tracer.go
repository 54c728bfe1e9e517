package capture

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

// Options says what a Tracer watches.
type Options struct {
	NoSyscalls      bool
	NoSched         bool // neither off-CPU time nor run-queue waits
	NoFaults        bool
	NoSamples       bool
	NoCalls         bool // neither the loader's functions nor the runtime's and libraries': marks alone
	NoGoroutines    bool
	CheapGoroutines bool  // without a uprobe: what runs, not what waits
	NoStacks        bool  // events without stacks, samples excepted
	SampleHz        int   // default 999, at most MaxSampleHz
	CPUs            []int // on which the subject may run; default all that this process may use
	RingBytes       int   // default 64 MiB, a power of two
	Unwinders       int   // stacks unwound at a time after a cold start; default GOMAXPROCS
}

// MaxSampleHz bounds the sampling rate: on virtual machines a tick costs more
// than 10 µs, so that 100 kHz leave nothing of the machine.
const MaxSampleHz = 20000

const (
	defaultSampleHz  = 999
	defaultRingBytes = 64 << 20
)

// Tracer watches cold starts, one at a time: Arm, then start the process that
// announces itself with the nonce, then Stop.
type Tracer struct {
	opts       Options
	collection *ebpf.Collection
	refused    map[string]error // programs that the kernel did not load
	reader     *ringbuf.Reader
	probes     []Probe
	closers    []func() error // in the order of attaching
	links      []func() error // of tracing programs, while a cold start is traced
	linked     []string       // the programs that can be attached
	clocks     []int          // perf events of the sampling clocks
	faults     []int          // perf events of page faults
	mmaps      []*mmapRing
	points     attachedPoints
	goroutines goroutines
	tables     tables
	framed     probe.Framed

	mu      sync.Mutex
	records []byte // of the cold start under way; guarded by mu
	copies  copies // likewise
	drained chan error
	missed  map[*ebpf.Program]uint64 // recursion misses up to the last Stop
}

// New loads the programs and finds out which can be attached: they are while a
// cold start is traced, and not in between.
// Where one probe cannot be attached it goes on without it; Probes says so. It
// fails with an *UnavailableError where nothing can be traced on this host.
func New(opts Options) (*Tracer, error) {
	if opts.SampleHz == 0 {
		opts.SampleHz = defaultSampleHz
	}
	opts.SampleHz = min(opts.SampleHz, MaxSampleHz)
	if opts.RingBytes == 0 {
		opts.RingBytes = defaultRingBytes
	}
	if opts.Unwinders == 0 {
		opts.Unwinders = runtime.GOMAXPROCS(0)
	}
	if len(opts.CPUs) == 0 {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return nil, fmt.Errorf("ask for the allowed CPUs: %w", err)
		}
		for cpu := range len(set) * int(unsafe.Sizeof(set[0])) * 8 {
			if set.IsSet(cpu) {
				opts.CPUs = append(opts.CPUs, cpu)
			}
		}
	}
	t := &Tracer{opts: opts, missed: map[*ebpf.Program]uint64{}, refused: map[string]error{}}
	if err := t.load(); err != nil {
		return nil, unavailable(err)
	}
	if err := t.attach(); err != nil {
		return nil, errors.Join(unavailable(err), t.Close())
	}
	if err := t.unlink(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// load loads all programs, or all but those that this kernel refuses and that
// initprof can do without.
func (t *Tracer) load() error {
	spec, err := bpf.LoadInitprof()
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	spec.Maps["events"].MaxEntries = uint32(t.opts.RingBytes)
	for {
		t.collection, err = ebpf.NewCollection(spec)
		if err == nil {
			break
		}
		refused := refusedProgram(spec, err)
		if refused == "" || slices.Contains(indispensable, refused) {
			return fmt.Errorf("load the programs: %w", err)
		}
		t.refused[refused] = err
		delete(spec.Programs, refused)
	}
	return t.openReader()
}

// refusedProgram finds which program an error of loading is about.
func refusedProgram(spec *ebpf.CollectionSpec, err error) string {
	for name := range spec.Programs {
		if strings.Contains(err.Error(), "program "+name+":") {
			return name
		}
	}
	return ""
}

func (t *Tracer) openReader() error {
	reader, err := ringbuf.NewReader(t.collection.Maps["events"])
	if err != nil {
		return fmt.Errorf("open the ring buffer: %w", err)
	}
	t.reader = reader
	t.closers = append(t.closers, reader.Close)
	return t.set(map[string]any{
		"wakeup_bytes": uint64(t.opts.RingBytes / 2),
		"copies_bytes": uint64(t.opts.RingBytes / 4 * 3),
		"with_stacks":  boolean(!t.opts.NoStacks),
		"cpu_mask":     cpuMask(t.opts.CPUs),
	})
}

func boolean(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func cpuMask(cpus []int) (mask uint64) {
	for _, cpu := range cpus {
		if cpu < 64 {
			mask |= 1 << cpu
		}
	}
	return mask
}

func (t *Tracer) set(values map[string]any) error {
	for name, value := range values {
		if err := t.collection.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// Arm begins a cold start: from now on the process that announces itself with
// nonce, and all its descendants, are watched. Requests are looked for on
// connections to apiPort on loopback; 0 looks for none.
func (t *Tracer) Arm(nonce uint64, apiPort uint16) error {
	if err := t.clear(); err != nil {
		return err
	}
	t.mu.Lock()
	t.records, t.copies = nil, copies{}
	t.mu.Unlock()
	t.drained = make(chan error, 1)
	go func() { t.drained <- t.drain() }()
	for _, m := range t.mmaps {
		m.discard()
		if err := m.enable(); err != nil {
			return fmt.Errorf("record mappings: %w", err)
		}
	}
	if err := t.set(map[string]any{
		"nonce":           nonce,
		"sandbox_port":    apiPort<<8 | apiPort>>8,
		"subject_tgid":    uint32(0),
		"waiting_for_cpu": uint32(0),
	}); err != nil {
		return err
	}
	if err := t.relink(); err != nil {
		return err
	}
	t.attachWanted()
	if err := t.startGoroutines(); err != nil {
		return err
	}
	if err := t.set(map[string]any{"active": uint32(1)}); err != nil {
		return err
	}
	if err := t.enableFaults(); err != nil {
		return err
	}
	return t.startClocks()
}

// startClocks starts each CPU's sampling clock at a random time, so that cold
// starts are not all sampled at the same points.
func (t *Tracer) startClocks() error {
	period := time.Second / time.Duration(t.opts.SampleHz)
	for _, fd := range t.clocks {
		time.Sleep(rand.N(period))
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return fmt.Errorf("start a sampling clock: %w", err)
		}
	}
	return nil
}

// Met reports the subject's PID in the initial PID namespace, or 0 as long as
// nobody announced itself with the nonce.
func (t *Tracer) Met() int {
	var pid uint32
	if err := t.collection.Variables["subject_tgid"].Get(&pid); err != nil {
		return 0
	}
	return int(pid)
}

// clear empties the maps that hold what the last cold start left.
func (t *Tracer) clear() error {
	var tids []uint32
	var tid uint32
	var thread bpf.InitprofThread
	for it := t.collection.Maps["threads"].Iterate(); it.Next(&tid, &thread); {
		tids = append(tids, tid)
	}
	for _, tid := range tids {
		if err := t.collection.Maps["threads"].Delete(tid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a thread: %w", err)
		}
	}
	if err := t.clearCalls(); err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the CPUs: %w", err)
	}
	zeros := make([]uint64, cpus)
	for i := range uint32(bpf.InitprofCounterCOUNTERS) {
		if err := t.collection.Maps["counters"].Put(i, zeros); err != nil {
			return fmt.Errorf("reset the counters: %w", err)
		}
	}
	return nil
}

// drain reads the ring buffer until Stop flushes it.
func (t *Tracer) drain() error {
	var record ringbuf.Record
	for {
		err := t.reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the ring buffer: %w", err)
		}
		t.mu.Lock()
		if isCopy(record.RawSample) {
			t.copies.add(record.RawSample)
		} else {
			t.records = append(t.records, record.RawSample...)
		}
		t.mu.Unlock()
	}
}

// settle is how long programs that were already running when tracing stopped
// are given to finish.
const settle = time.Millisecond

// Stop ends the cold start and returns what was recorded, its stacks unwound. The
// subject's processes that are still alive are asked for the mappings that no
// record told of (stack, heap).
func (t *Tracer) Stop() (*Raw, error) {
	raw, stacks, err := t.halt()
	if err != nil {
		return nil, err
	}
	t.unwindStacks(raw, stacks, t.addMappings(raw))
	t.updateHits(raw.Hits)
	return raw, nil
}

// halt ends the recording. What it returns still lacks mappings and refers to
// copied stacks.
func (t *Tracer) halt() (*Raw, *copies, error) {
	if t.drained == nil {
		return nil, nil, errors.New("stop a tracer that was not armed")
	}
	stopped, err := monotonic()
	if err != nil {
		return nil, nil, err
	}
	if err := t.set(map[string]any{"active": uint32(0)}); err != nil {
		return nil, nil, err
	}
	for _, fd := range slices.Concat(t.clocks, t.faults) {
		_ = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0)
	}
	time.Sleep(settle)
	if err := t.reader.Flush(); err != nil {
		return nil, nil, fmt.Errorf("flush the ring buffer: %w", err)
	}
	err = <-t.drained
	t.drained = nil
	if err != nil {
		return nil, nil, err
	}
	raw := &Raw{Arch: runtime.GOARCH, SubjectPID: t.Met(), Stopped: stopped, Points: t.points.points, Goroutines: t.goroutines.plan, CheapGoroutines: t.opts.CheapGoroutines}
	if len(t.clocks) > 0 {
		raw.SampleHz = t.opts.SampleHz
	}
	t.mu.Lock()
	raw.Records, t.records = t.records, nil
	stacks := t.copies
	t.copies = copies{}
	t.mu.Unlock()
	raw.Records = append(raw.Records, t.openSyscalls()...)
	raw.Records = append(raw.Records, t.openCalls()...)
	if err := t.account(raw, &stacks); err != nil {
		return nil, nil, err
	}
	return raw, &stacks, t.unlink()
}

func monotonic() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return ts.Nano(), nil
}

// openSyscalls makes records of the calls that had not returned at the stop.
func (t *Tracer) openSyscalls() []byte {
	var records []byte
	var tid uint32
	var thread bpf.InitprofThread
	for it := t.collection.Maps["threads"].Iterate(); it.Next(&tid, &thread); {
		if thread.SyscallNr < 0 || thread.SyscallNs == 0 {
			continue
		}
		e := bpf.InitprofEventSyscall{
			H: bpf.InitprofEventHeader{
				Kind: uint8(bpf.InitprofEventKindEVENT_SYSCALL), Size: uint16(unsafe.Sizeof(bpf.InitprofEventSyscall{})),
				Tgid: thread.Tgid, Tid: tid, KtimeNs: thread.SyscallNs,
			},
			Nr: uint32(thread.SyscallNr), Args: thread.Args,
		}
		records = append(records, unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e))...)
	}
	return records
}

// account reads the counters.
func (t *Tracer) account(raw *Raw, stacks *copies) error {
	var failed error
	sum := func(c bpf.InitprofCounter) (total uint64) {
		var perCPU []uint64
		if err := t.collection.Maps["counters"].Lookup(uint32(c), &perCPU); err != nil {
			failed = errors.Join(failed, fmt.Errorf("read a counter: %w", err))
		}
		for _, v := range perCPU {
			total += v
		}
		return total
	}
	raw.Losses = Losses{
		RingBuffer: sum(bpf.InitprofCounterCOUNTER_LOST_RINGBUF),
		Threads:    sum(bpf.InitprofCounterCOUNTER_LOST_THREADS),
		Faults:     sum(bpf.InitprofCounterCOUNTER_LOST_FAULTS),
		Calls:      sum(bpf.InitprofCounterCOUNTER_LOST_CALLS),
		Goroutines: sum(bpf.InitprofCounterCOUNTER_LOST_GOROUTINES),
	}
	raw.Hits = Hits{
		Syscalls:   sum(bpf.InitprofCounterCOUNTER_SYSCALL_HITS),
		Sched:      sum(bpf.InitprofCounterCOUNTER_SCHED_HITS),
		Faults:     sum(bpf.InitprofCounterCOUNTER_FAULT_HITS),
		Samples:    sum(bpf.InitprofCounterCOUNTER_SAMPLE_HITS),
		Marks:      sum(bpf.InitprofCounterCOUNTER_MARK_HITS),
		Calls:      sum(bpf.InitprofCounterCOUNTER_CALL_HITS),
		Goroutines: sum(bpf.InitprofCounterCOUNTER_GOROUTINE_HITS),
		Copies:     uint64(len(stacks.list)),
	}
	for i := range stacks.list {
		raw.Hits.CopiedBytes += uint64(stacks.list[i].head.Bytes)
	}
	for program, before := range t.missed {
		stats, err := program.Stats()
		if err != nil {
			continue
		}
		raw.Losses.Recursion += stats.RecursionMisses - before
		t.missed[program] = stats.RecursionMisses
	}
	return failed
}

// addMappings appends the mappings of the subject's processes: those that perf
// recorded, and those that only /proc knows. It returns all events, these
// included.
func (t *Tracer) addMappings(raw *Raw) []trace.Event {
	events, _ := raw.Decode() // what cannot be decoded is reported by who decodes it
	add := func(m *trace.Mapping) {
		raw.Records = appendMapping(raw.Records, m)
		events = append(events, m)
	}
	execs := map[int]int64{raw.SubjectPID: 0}
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Fork:
			if e.ChildPID != e.PID {
				execs[e.ChildPID] = e.Time
			}
		case *trace.Exec:
			execs[e.PID] = e.Time
		}
	}
	delete(execs, 0)
	known := map[int][]*trace.Mapping{}
	for _, m := range t.mmaps {
		_ = m.disable()
		raw.Losses.Mappings += m.drain(func(e *trace.Mapping) {
			if _, ours := execs[e.PID]; ours {
				known[e.PID] = append(known[e.PID], e)
				add(e)
			}
		})
	}
	for pid, since := range execs {
		listed, err := processMappings(pid, since)
		if err != nil {
			continue // it is gone
		}
		for _, m := range listed {
			seen := slices.ContainsFunc(known[pid], func(k *trace.Mapping) bool {
				return k.Start <= m.Start && m.Start < k.Limit
			})
			if !seen {
				add(m)
			}
		}
	}
	return events
}

// Close detaches and unloads everything.
func (t *Tracer) Close() error {
	var errs []error
	for _, c := range slices.Backward(t.closers) {
		errs = append(errs, c())
	}
	t.closers = nil
	errs = append(errs, t.unlink())
	if t.collection != nil {
		t.collection.Close()
	}
	return errors.Join(errs...)
}

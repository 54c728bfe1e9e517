package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
)

// places does a deed of each kind in each of several places, each in a phase of
// its own. A cold start whose turn it is does 2 ms more of one kind in one place;
// every fourth one does not. truths/TURN says what the kernel's clocks say of
// each deed: how long it took, less what the thread waited for a CPU.
const places = `
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
enum { CONSTRUCTOR, ALLOCATOR, CERTS, CONFIG, BESIDE, PLACES };
enum { SPIN, SLEEP, FAULT, KINDS };
enum { PAGES = 16384 };
static const char *phases[PLACES][KINDS] = {
	{ "constructor_spin", "constructor_sleep", "constructor_fault" }, { "allocator_spin", "allocator_sleep", "allocator_fault" },
	{ "certs_spin", "certs_sleep", "certs_fault" }, { "config_spin", "config_sleep", "config_fault" },
};
static long long truth[PLACES][KINDS];
static char *memory[PLACES];
static int turn, loops, pages;
static __thread int schedstat;

static long long wall(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static long long queued(void) { char text[100]; long long ran, waited; text[pread(schedstat, text, sizeof text - 1, 0)] = 0; sscanf(text, "%lld %lld", &ran, &waited); return waited; }
static void turn_round(int n) { for (volatile int i = 0; i < n; i++); }
static void touch(char *at, int n) { for (int i = 0; i < n; i++) at[(size_t)i << 12] = 1; }
static int delayed_here(int place, int kind) { return turn % 4 && (turn / 4 * 3 + turn % 4 - 1) % (PLACES * KINDS) == place * KINDS + kind; }

static __attribute__((noinline)) void deed(int place, int kind) {
	int more = delayed_here(place, kind);
	long long waited = queued(), since = wall(), until;
	switch (kind) {
	case SPIN: turn_round(loops / 8 + more * loops); break;
	case SLEEP: { struct timespec t = { 0, 1000000 + more * 2000000 }; nanosleep(&t, NULL); break; }
	case FAULT: touch(memory[place], 16 + more * pages); break;
	}
	until = wall();
	truth[place][kind] = until - since - (queued() - waited);
	if (place != BESIDE) checkpoint(phases[place][kind]);
}
static __attribute__((noinline)) void all_kinds(int place) { for (int kind = 0; kind < KINDS; kind++) deed(place, kind); }
static int open_schedstat(void) { return open("/proc/thread-self/schedstat", O_RDONLY); }

static char *map(void) {
	char *at = mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(at, PAGES << 12, MADV_NOHUGEPAGE);
	return at;
}
__attribute__((constructor(101))) static void take_turn(void) {
	struct stat s;
	int fd = open(DIR "/turns", O_RDWR | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || fstat(fd, &s) || write(fd, "x", 1) != 1) exit(9);
	turn = s.st_size;
	for (int place = 0; place < PLACES; place++) memory[place] = map();
	if (getenv("LOOPS")) { loops = atoi(getenv("LOOPS")); pages = atoi(getenv("PAGES")); }
	schedstat = open_schedstat();
	checkpoint("prepared");
}
__attribute__((constructor(102), noinline)) static void set_up(void) { if (loops) all_kinds(CONSTRUCTOR); }
__attribute__((noinline)) void malloc_init_hard(void) { all_kinds(ALLOCATOR); asm volatile(""); }
__attribute__((noinline)) void X509_load_cert_crl_file(void) { all_kinds(CERTS); asm volatile(""); }
__attribute__((noinline)) void load_config(void) { all_kinds(CONFIG); asm volatile(""); }
static void *beside(void *x) { call("beside"); schedstat = open_schedstat(); all_kinds(BESIDE); return x; }
static void tell(void) {
	char path[300];
	snprintf(path, sizeof path, DIR "/truths/%d", turn);
	FILE *f = fopen(path, "w");
	if (!f) exit(9);
	for (int p = 0; p < BESIDE; p++) for (int k = 0; k < KINDS; k++) fprintf(f, "%lld ", truth[p][k]);
	fclose(f);
}
// How many rounds and pages take 2 ms here.
static void calibrate(void) {
	long long since = cpu(); turn_round(10000000); long long spun = cpu() - since;
	since = cpu(); touch(map(), 2000); long long faulted = cpu() - since;
	printf("%lld %lld", 10000000LL * 2000000 / spun, 2000LL * 2000000 / faulted);
}
`

// besides is a Go program with a goroutine that is waited for by nobody: where
// its turn is, it does 2 ms more of one kind.
const besides = `
var sink int

func beside(turn, loops, pages int, memory []byte) {
	more := func(kind int) int { if turn % 4 - 1 == kind { return 1 }; return 0 }
	for i := 0; i < loops / 8 + more(0) * loops; i++ { sink += i }
	time.Sleep(time.Duration(1 + 2 * more(1)) * time.Millisecond)
	for i := 0; i < 16 + more(2) * pages; i++ { memory[i << 12] = 1 }
}
`

const turnBesides = `turns, err := os.OpenFile(filepath.Join(filepath.Dir(os.Args[0]), "turns"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil { os.Exit(9) }
	turn, _ := turns.Seek(0, 2)
	turns.Write([]byte("x"))
	loops, _ := strconv.Atoi(os.Getenv("LOOPS"))
	pages, _ := strconv.Atoi(os.Getenv("PAGES"))
	memory, _ := syscall.Mmap(-1, 0, 16384 << 12, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	syscall.Madvise(memory, syscall.MADV_NOHUGEPAGE)
	go beside(int(turn), loops, pages, memory)
	time.Sleep(9 * time.Millisecond)`

// injection is a delay of one kind in one place.
type injection struct {
	place, kind string
	category    string   // what it is blamed on; empty: it is off the path
	states      []string // that it consists of
}

func (x injection) phase() string { return x.place + "_" + x.kind }

// own reports whether a cell is what the injection has to move. What watching
// the delay costs is part of its time.
func (x injection) own(c cellKey) bool {
	if x.category == "" || c.phase != x.phase() {
		return false
	}
	for _, state := range x.states {
		if c.state == state && c.category == x.category {
			return true
		}
	}
	return c.category == "measurement"
}

// kinds of injections into a place, in the order of the programs. A loop that
// faults is in user mode between two faults.
func kinds(place, category string) []injection {
	return []injection{
		{place, "spin", category, []string{analysis.StateUser}},
		{place, "sleep", category, []string{analysis.StateWaiting}},
		{place, "fault", category, []string{analysis.StateFault, analysis.StateUser}},
	}
}

type cellKey struct{ phase, category, state string }

// experiment is what interleaved cold starts came to, with and without delays.
type experiment struct {
	injections []injection
	cells      map[cellKey][]int64 // by cold start, 0 where one lacks it
	truths     [][]int64           // by cold start and injection, of those on the path
	overlapped []int64             // by cold start
	turns      []int               // which injection, by cold start; −1: none
}

// inject records so many cold starts of each injection, and a third as many
// without any, in turn.
func inject(t *testing.T, dir, path string, injections []injection, each int) *experiment {
	t.Helper()
	writeFile(t, filepath.Join(dir, "calibrate.c"),
		"#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"+deeds+places+"int main(void) { calibrate(); return 0; }")
	gcc(t, dir, "-pthread", "-o", "calibrate", `-DDIR="`+t.TempDir()+`"`, "calibrate.c")
	out, err := exec.Command(filepath.Join(dir, "calibrate")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var loops, pages int
	if _, err := fmt.Sscan(string(out), &loops, &pages); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run.initprof")
	n := each * len(injections) / 3 * 4
	program := buildInitprof(t, dir)
	program(t, "record", "-q", "-n", strconv.Itoa(n), "--untraced", "0", "-o", run,
		"--env", fmt.Sprint("LOOPS=", loops), "--env", fmt.Sprint("PAGES=", min(pages, 16000)), "--", path)
	// The rehearsal had turn 0.
	if turns, err := os.ReadFile(filepath.Join(dir, "turns")); err != nil || len(turns) != n+1 {
		t.Fatalf("%d cold starts took %d turns: %v", n, len(turns), err)
	}
	reports := make([]*analysis.Report, n)
	var readers sync.WaitGroup
	for first := range 4 {
		readers.Go(func() {
			for k := first; k < n && !t.Failed(); k += 4 {
				out := program(t, "report", run, "--run", strconv.Itoa(k+1), "--format", "json")
				if err := json.Unmarshal(out, &reports[k]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	e := &experiment{injections: injections, cells: map[cellKey][]int64{}}
	for k := range n {
		report := reports[k]
		if report == nil {
			t.Fatalf("there is no report on cold start %d", k+1)
		}
		tiles(t, report)
		for _, c := range report.Ledger.Cells {
			x := cellKey{c.Phase, c.Category, c.State}
			if e.cells[x] == nil {
				e.cells[x] = make([]int64, n)
			}
			e.cells[x][k] = c.NS
		}
		var beside int64
		for _, o := range report.Ledger.Overlapped {
			beside += o.NS
		}
		e.overlapped = append(e.overlapped, beside)
		turn, which := k+1, -1
		if turn%4 != 0 {
			which = (turn/4*3 + turn%4 - 1) % len(injections)
		}
		e.turns = append(e.turns, which)
		var truths []int64
		if text, err := os.ReadFile(filepath.Join(dir, "truths", strconv.Itoa(turn))); err == nil {
			for _, f := range strings.Fields(string(text)) {
				ns, _ := strconv.ParseInt(f, 10, 64)
				truths = append(truths, ns)
			}
		}
		e.truths = append(e.truths, truths)
	}
	return e
}

// buildInitprof builds the program as users run it: the race detector of a test
// would take minutes for hundreds of cold starts.
func buildInitprof(t *testing.T, dir string) func(t *testing.T, args ...string) []byte {
	t.Helper()
	c := exec.Command("go", "build", "-o", filepath.Join(dir, "initprof"), "../..")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(t *testing.T, args ...string) []byte {
		t.Helper()
		out, err := exec.Command(filepath.Join(dir, "initprof"), args...).Output()
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			t.Errorf("initprof %s: %v\n%s", args[0], err, failed.Stderr)
		} else if err != nil {
			t.Error(err)
		}
		return out
	}
}

// divide returns a figure of the cold starts without any injection, and of those
// with one.
func (e *experiment) divide(which int, of func(k int) int64) (before, after []int64) {
	for k, turn := range e.turns {
		switch turn {
		case -1:
			before = append(before, of(k))
		case which:
			after = append(after, of(k))
		}
	}
	return before, after
}

// negligible is 1 % of a delay: what caches and branch predictors that a delay
// left colder cost afterwards is real, and below it.
const negligible = 20e3

// moved returns how far the median moved, and the p-value of "no further than is
// negligible".
func moved(before, after []int64) (shift int64, p float64) {
	shift = stat.Summarize(after).P50 - stat.Summarize(before).P50
	margin := int64(negligible)
	if shift < 0 {
		margin = -margin
	}
	if shift*shift <= margin*margin {
		return shift, 1
	}
	less := make([]int64, len(after))
	for i := range after {
		less[i] = after[i] - margin
	}
	_, p = stat.MannWhitneyU(before, less)
	return shift, p
}

// judge tests of each injection that its own cell moved by as much as the kernel
// says that it took, and that no other moved; Holm over all of it, so that one
// run of the test in a hundred may fail where nothing is wrong.
func (e *experiment) judge(t *testing.T) {
	t.Helper()
	var p []float64
	var claims []string
	claim := func(one float64, format string, a ...any) {
		p, claims = append(p, one), append(claims, fmt.Sprintf(format, a...))
	}
	for which, x := range e.injections {
		if x.category != "" {
			own := func(k int) (ns int64) {
				for c, values := range e.cells {
					if x.own(c) {
						ns += values[k]
					}
				}
				return ns
			}
			injected, _ := moved(e.divide(which, func(k int) int64 { return e.truths[k][which] }))
			before, after := e.divide(which, own)
			shift := stat.Compare(before, after, 1)
			if injected < 0.5e6 {
				t.Errorf("%s: the delay took %.3f ms: cold starts are not those that they seem to be", x.phase(), float64(injected)/1e6)
			}
			if shift.CI95[0] <= 0 {
				t.Errorf("%s: its cell's shift of %.3f…%.3f ms is not told from none", x.phase(), float64(shift.CI95[0])/1e6, float64(shift.CI95[1])/1e6)
			}
			t.Logf("%s: moved by %.3f ms (95 %%: %.3f…%.3f), injected %.3f", x.phase(),
				float64(shift.Estimate)/1e6, float64(shift.CI95[0])/1e6, float64(shift.CI95[1])/1e6, float64(injected)/1e6)
			off, one := moved(e.divide(which, func(k int) int64 { return own(k) - e.truths[k][which] }))
			claim(one, "%s: moved by %.3f ms more than it took", x.phase(), float64(off)/1e6)
		}
		if beside, _ := moved(e.divide(which, func(k int) int64 { return e.overlapped[k] })); x.category == "" && x.kind != "sleep" && beside < 0.5e6 {
			t.Errorf("%s: beside the path are %.3f ms more: the delay is not there", x.phase(), float64(beside)/1e6)
		}
		for c, values := range e.cells {
			// How long a delay waits for a CPU is up to the machine's other load.
			if x.own(c) || x.category == c.category && x.phase() == c.phase && c.state == analysis.StateRunnable {
				continue
			}
			shift, one := moved(e.divide(which, func(k int) int64 { return values[k] }))
			claim(one, "%s: %v moved by %.3f ms", x.phase(), c, float64(shift)/1e6)
		}
	}
	for i, corrected := range stat.Holm(p) {
		if corrected < 0.01 {
			t.Errorf("%s, p %.4f after Holm", claims[i], corrected)
		}
	}
}

// +2 ms in one place move its cell by them and no other, and none at all where
// they are off the path.
func TestInjectedDelaysMoveTheirOwnCell(t *testing.T) {
	needRoot(t)
	const each = 9 // a complete separation is significant among all cells of all delays
	t.Run("threads", func(t *testing.T) {
		dir := openDir(t)
		if err := os.Mkdir(filepath.Join(dir, "truths"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "truths"), 0o777); err != nil {
			t.Fatal(err)
		}
		path := extensionC(t, dir, "places", deeds+places,
			`pthread_t a; pthread_create(&a, 0, beside, 0); nap(1); checkpoint("started"); malloc_init_hard(); X509_load_cert_crl_file(); load_config(); tell();`,
			"-pthread", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", `-DDIR="`+dir+`"`)
		var all []injection
		for _, c := range [][2]string{
			{"constructor", "runtime-init"}, {"allocator", "allocator-setup"}, {"certs", "cert-loading"}, {"config", "config"}, {"beside", ""},
		} {
			all = append(all, kinds(c[0], c[1])...)
		}
		inject(t, dir, path, all, each).judge(t)
	})
	t.Run("goroutine", func(t *testing.T) {
		dir := openDir(t)
		inject(t, dir, goExtension(t, dir, "besides", `"os"; "path/filepath"; "strconv"; "syscall"; "time"`, besides, turnBesides), kinds("beside", ""), 2*each).judge(t)
	})
}

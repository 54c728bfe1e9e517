package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

// deeds are what programs of known critical path are made of: spin takes so
// many ms of the thread's own CPU time, whatever else runs; nap one sleep;
// checkpoint ends a phase.
const deeds = `
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <string.h>
#include <time.h>
static long long cpu(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void spin(int ms) { long long end = cpu() + ms * 1000000LL; while (cpu() < end) for (volatile int i = 0; i < 100000; i++); }
static void nap(int ms) { struct timespec t = { 0, ms * 1000000L }; nanosleep(&t, NULL); }
#if defined(__x86_64__)
#define FIRST "rdi"
#define SECOND "rsi"
#define OPERANDS "8@%%rdi 8@%%rsi"
#else
#define FIRST "x0"
#define SECOND "x1"
#define OPERANDS "8@x0 8@x1"
#endif
static __attribute__((noinline)) void checkpoint(const char *name) {
	register const char *first __asm__(FIRST) = name;
	register size_t second __asm__(SECOND) = strlen(name);
	__asm__ volatile("990: nop\n.pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n"
		"991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b, 0, 0\n.asciz \"initprof\"\n.asciz \"checkpoint\"\n"
		".asciz \"" OPERANDS "\"\n994: .balign 4\n.popsection" :: "r"(first), "r"(second));
}
static void call(const char *name) { prctl(PR_SET_NAME, name); }
static void pin(int n) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(n, &s); sched_setaffinity(0, sizeof(s), &s); }
static long long delayed(void) { long long on = 0, delay = 0; FILE *f = fopen("/proc/thread-self/schedstat", "r"); if (!f || fscanf(f, "%lld %lld", &on, &delay) != 2) exit(9); fclose(f); return delay; }
`

// on sums up the critical path's time of a thread, in some states.
func on(r *analysis.Report, thread string, states ...string) (ns int64) {
	for _, s := range r.CriticalPath {
		name, _, _ := strings.Cut(s.Thread, "#")
		for _, state := range states {
			if (name == thread || thread == "") && s.State == state {
				ns += s.NS
			}
		}
	}
	return ns
}

// waited sums up the critical path's time of waits for something outside.
func waited(r *analysis.Report, what string) (ns int64) {
	for _, s := range r.CriticalPath {
		if strings.HasPrefix(s.WaitsFor, what) {
			ns += s.NS
		}
	}
	return ns
}

var onCPU = []string{analysis.StateUser, analysis.StateKernel, analysis.StateFault}

// about fails unless a time is as long as it must be, within 1 ms and 2 %. A
// sleep or an answer may come later than asked for, which is the machine's.
func about(t *testing.T, what string, got, want int64) {
	t.Helper()
	if tolerance := int64(1e6) + want/50; got < want-tolerance || got > want+tolerance {
		t.Errorf("%s: %.3f ms on the critical path, want %.3f", what, float64(got)/1e6, float64(want)/1e6)
	}
}

func atLeast(t *testing.T, what string, got, want int64) {
	t.Helper()
	if got < want || got > want+want/2+5e6 {
		t.Errorf("%s: %.3f ms on the critical path, want %.3f and little more", what, float64(got)/1e6, float64(want)/1e6)
	}
}

// tiles fails unless path and cells sum to the window, to the nanosecond, and
// agree with each other.
func tiles(t *testing.T, r *analysis.Report) {
	t.Helper()
	type key struct{ phase, category, state string }
	var at int64
	sums := map[key]int64{}
	for i, s := range r.CriticalPath {
		if s.StartNS != at {
			t.Fatalf("step %d begins at %d where the one before it ends at %d", i, s.StartNS, at)
		}
		at += s.NS
		sums[key{s.Phase, s.Category, s.State}] += s.NS
	}
	var cells int64
	for _, c := range r.Ledger.Cells {
		cells += c.NS
		k := key{c.Phase, c.Category, c.State}
		if sums[k] != c.NS {
			t.Errorf("cell %v is %d ns, its steps are %d", k, c.NS, sums[k])
		}
	}
	if wall := *r.Runs[0].WallNS; at != wall || cells != wall || r.Ledger.WallNS != wall {
		t.Errorf("of %d ns of wall the path has %d, the cells %d, the ledger %d", wall, at, cells, r.Ledger.WallNS)
	}
	if r.Ledger.UnattributedNS != 0 {
		t.Errorf("the chain is lost for %d ns", r.Ledger.UnattributedNS)
	}
}

const ms = int64(1e6)

// Programs whose critical path is known by construction.
func TestCriticalPathsOfKnownTruth(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name, declarations, deed string
		flags                    []string
		check                    func(*testing.T, *analysis.Report)
	}{
		{"serial", "", `spin(20); nap(30);`, nil, func(t *testing.T, r *analysis.Report) {
			about(t, "the spinning", on(r, "serial", analysis.StateUser), 20*ms)
			atLeast(t, "the sleep", waited(r, "timer"), 30*ms)
		}},
		{
			"threads", `
static void *run_long(void *x) { call("long"); spin(40); return x; }
static void *run_short(void *x) { call("short"); nap(20); spin(5); return x; }`,
			`pthread_t a, b; pthread_create(&a, 0, run_long, 0); pthread_create(&b, 0, run_short, 0); pthread_join(a, 0); pthread_join(b, 0);`,
			nil, func(t *testing.T, r *analysis.Report) {
				about(t, "the longer thread", on(r, "long", onCPU...), 40*ms)
				about(t, "the shorter thread", on(r, "short", onCPU...), 0)
				about(t, "its sleep", waited(r, "timer"), 0)
			},
		},
		{"pipeline", "", `
int p[2], q[2]; char c; pipe(p); pipe(q);
if (!fork()) { call("first"); spin(20); write(p[1], "x", 1); _exit(0); }
if (!fork()) { call("second"); read(p[0], &c, 1); spin(20); write(q[1], "x", 1); spin(20); _exit(0); }
read(q[0], &c, 1); spin(10);`, nil, func(t *testing.T, r *analysis.Report) {
			about(t, "the first process", on(r, "first", onCPU...), 20*ms)
			about(t, "the second process", on(r, "second", onCPU...), 20*ms)
			about(t, "the last process", on(r, "pipeline", analysis.StateUser), 10*ms)
		}},
		{"socketpair", "", `
int s[2]; char c; socketpair(AF_UNIX, SOCK_STREAM, 0, s);
if (!fork()) { call("peer"); read(s[1], &c, 1); spin(20); write(s[1], "x", 1); spin(20); _exit(0); }
spin(10); write(s[0], "x", 1); read(s[0], &c, 1);`, nil, func(t *testing.T, r *analysis.Report) {
			about(t, "the process at the other end", on(r, "peer", onCPU...), 20*ms)
			about(t, "the process that asked it", on(r, "socketpair", analysis.StateUser), 10*ms)
			about(t, "somebody outside", waited(r, "a peer")+waited(r, "process"), 0)
		}},
		{
			"loopback", `
static int listener;
static void *serve(void *x) { call("server"); char c; int fd = accept(listener, 0, 0); for (int i = 0; i < 5; i++) { read(fd, &c, 1); spin(5); write(fd, &c, 1); } return x; }`,
			`struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } }; socklen_t size = sizeof at; char c;
listener = socket(AF_INET, SOCK_STREAM, 0); bind(listener, (void *)&at, size); listen(listener, 1); getsockname(listener, (void *)&at, &size);
pthread_t a; pthread_create(&a, 0, serve, 0);
int client = socket(AF_INET, SOCK_STREAM, 0); connect(client, (void *)&at, size);
for (int i = 0; i < 5; i++) { spin(2); write(client, "x", 1); read(client, &c, 1); }`,
			nil, func(t *testing.T, r *analysis.Report) {
				about(t, "the thread that answered", on(r, "server", onCPU...), 25*ms)
				// Its work before a question is on the path unless the other thread
				// did not get to reading so soon; so is its start.
				if asked := on(r, "loopback", analysis.StateUser); asked < 2*ms || asked > 13*ms {
					t.Errorf("the thread that asked: %.3f ms on the critical path, want 2 to 10 and its start", float64(asked)/1e6)
				}
				about(t, "somebody outside", waited(r, "a peer"), 0)
			},
		},
		{"child", "", `
pid_t child = fork(); if (!child) { call("forked"); spin(30); _exit(0); }
spin(5); waitpid(child, NULL, 0);`, nil, func(t *testing.T, r *analysis.Report) {
			about(t, "the child that was waited for", on(r, "forked", onCPU...), 30*ms)
		}},
		{"request", "", ``, []string{"--latency", "register=30ms"}, func(t *testing.T, r *analysis.Report) {
			atLeast(t, "the answer", waited(r, "request POST /2020-01-01/extension/register"), 29*ms)
		}},
		{
			"mutex", `
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; static volatile int held;
static void *hold(void *x) { call("holder"); pthread_mutex_lock(&lock); held = 1; spin(30); pthread_mutex_unlock(&lock); spin(30); return x; }`,
			`pthread_t a; pthread_create(&a, 0, hold, 0); while (!held) sched_yield(); pthread_mutex_lock(&lock); spin(10);`,
			nil, func(t *testing.T, r *analysis.Report) {
				about(t, "the thread that held the lock", on(r, "holder", onCPU...), 30*ms)
				about(t, "the one that wanted it", on(r, "mutex", analysis.StateUser), 10*ms)
			},
		},
		{
			"epoll", `
static int pairs[3][2];
static void *late(void *x) { long n = (long)x; char name[8] = { 'w', '1' + n }; call(name); nap(10 + 90 * n); spin(5); write(pairs[n][1], "x", 1); return x; }`,
			`int e = epoll_create1(0); struct epoll_event ev = { .events = EPOLLIN }; pthread_t a; char c;
for (long n = 0; n < 3; n++) { socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[n]); ev.data.u32 = n; epoll_ctl(e, EPOLL_CTL_ADD, pairs[n][0], &ev); pthread_create(&a, 0, late, (void *)n); }
for (int seen = 0; seen < 3; seen++) { epoll_wait(e, &ev, 1, -1); read(pairs[ev.data.u32][0], &c, 1); }`,
			nil, func(t *testing.T, r *analysis.Report) {
				atLeast(t, "the last one's sleep", waited(r, "timer"), 190*ms) // so much longer that load lets no other be last
				about(t, "the last one's work", on(r, "w3", analysis.StateUser), 5*ms)
				about(t, "the others'", on(r, "w1", onCPU...)+on(r, "w2", onCPU...), 0)
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openDir(t)
			path := extensionC(t, dir, c.name, deeds+c.declarations, c.deed, "-pthread")
			recordOne(t, dir, c.flags, path)
			r := report(t, filepath.Join(dir, "run.initprof"), "--run", "1")
			tiles(t, r)
			c.check(t, r)
			if t.Failed() {
				_, chain, _ := initprof("critical-chain", filepath.Join(dir, "run.initprof"))
				t.Log("\n" + chain)
			}
		})
	}
}

// A thread that shares its CPU with a spinner waits for it as long as the
// kernel's own account says, and the report names who held the CPU.
func TestContentionIsBlamedOnWhoHeldTheCPU(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ name, behind string }{{"inside", "spinner"}, {"outside", "(not the subject)"}} {
		t.Run(c.name, func(t *testing.T) {
			dir := openDir(t)
			start := `pin(1);`
			if c.name == "inside" {
				start += ` pthread_t a; pthread_create(&a, 0, busy, 0);`
			}
			path := extensionC(t, dir, c.name, deeds+`static void *busy(void *x) { call("spinner"); for (;;) spin(1000); return x; }`,
				start+`checkpoint("before"); long long before = delayed(); spin(40); long long after = delayed(); checkpoint("spun");
FILE *f = fopen("`+filepath.Join(dir, "delay")+`", "w"); fprintf(f, "%lld", after - before); fclose(f);`, "-pthread")
			if c.name == "outside" {
				spinner := exec.Command("taskset", "-c", "1", "sh", "-c", "while :; do :; done")
				if err := spinner.Start(); err != nil {
					t.Skip("needs taskset: ", err)
				}
				t.Cleanup(func() {
					_ = spinner.Process.Kill()
					_ = spinner.Wait()
				})
			}
			recordOne(t, dir, []string{"--no-limits"}, path)
			r := report(t, filepath.Join(dir, "run.initprof"), "--run", "1")
			tiles(t, r)
			text, err := os.ReadFile(filepath.Join(dir, "delay"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := strconv.ParseInt(string(text), 10, 64)
			// The scheduler owes two groups of processes no equal shares, but of
			// 40 ms a spinner takes some.
			if err != nil || want < 5*ms {
				t.Fatalf("the kernel saw a delay of %q ns", text)
			}
			// A slice that the spinner gets before or after the spinning is in no
			// account of it.
			var runnable, behind, others int64
			for _, s := range r.CriticalPath {
				if s.Phase == "spun" && s.State == analysis.StateRunnable {
					runnable += s.NS
					if strings.Contains(s.RunnableBehind, c.behind) {
						behind += s.NS
					} else if strings.HasSuffix(s.RunnableBehind, "(not the subject)") {
						others += s.NS // the machine's other load
					}
				}
			}
			about(t, "runnable", runnable, want)
			if behind < (runnable-others)*9/10 || behind < 2*ms {
				t.Errorf("of %d ns runnable only %d are behind %s, %d behind others", runnable, behind, c.behind, others)
			}
			about(t, "its own work", on(r, c.name, analysis.StateUser), 40*ms)
		})
	}
}

// goLambda is what a Go extension does before its deed and behind it.
const goLambda = `package main

import ("bytes"; "net/http"; "os"; "path/filepath")

func register() (api, id string) {
	api = "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2020-01-01/extension"
	q, _ := http.NewRequest("POST", api+"/register", bytes.NewBufferString("{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}"))
	q.Header.Set("Lambda-Extension-Name", filepath.Base(os.Args[0]))
	answer, err := http.DefaultClient.Do(q)
	if err != nil { os.Exit(1) }
	return api, answer.Header.Get("Lambda-Extension-Identifier")
}

func events(api, id string) {
	for {
		q, _ := http.NewRequest("GET", api+"/event/next", nil)
		q.Header.Set("Lambda-Extension-Identifier", id)
		answer, err := http.DefaultClient.Do(q)
		if err != nil { return }
		var body bytes.Buffer
		body.ReadFrom(answer.Body)
		answer.Body.Close()
		if bytes.Contains(body.Bytes(), []byte("SHUTDOWN")) { return }
	}
}
`

// goExtension compiles a Go program that registers, does its deed, and asks for
// events: what extensionC is for C. The imports are the deed's own.
func goExtension(t *testing.T, dir, name, imports, declarations, deed string) string {
	t.Helper()
	writeFile(t, filepath.Join(dir, "lambda.go"), goLambda)
	writeFile(t, filepath.Join(dir, "main.go"), "package main\n\nimport ("+imports+")\n"+declarations+`
func main() {
	api, id := register()
	`+deed+`
	events(api, id)
}
`)
	writeFile(t, filepath.Join(dir, "go.mod"), "module chain\n\ngo 1.22\n")
	c := exec.Command("go", "build", "-o", name, ".")
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, name)
}

// The path follows goroutines through channels, not the threads that happen to
// run them.
func TestCriticalPathFollowsGoroutines(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path := goExtension(t, dir, "chain", `"time"`, `
func first(to chan<- int) { time.Sleep(20 * time.Millisecond); to <- 1 }
func second(from <-chan int, to chan<- int) { v := <-from; time.Sleep(20 * time.Millisecond); to <- v }
func beside() { time.Sleep(35 * time.Millisecond) }
`, `a, b := make(chan int), make(chan int)
	go beside()
	go second(a, b)
	go first(a)
	<-b`)
	recordOne(t, dir, []string{"--latency", "register=30ms"}, path)
	r := report(t, filepath.Join(dir, "run.initprof"), "--run", "1")
	tiles(t, r)
	slept := map[string]int64{}
	for _, s := range r.CriticalPath {
		for _, function := range []string{"main.first", "main.second", "main.beside"} {
			if s.WaitsFor == "timer" && slices.ContainsFunc(s.Stack, func(f string) bool { return strings.HasPrefix(f, function+" ") }) {
				slept[function] += s.NS
			}
		}
	}
	atLeast(t, "the first goroutine's sleep", slept["main.first"], 20*ms)
	atLeast(t, "the second goroutine's sleep", slept["main.second"], 20*ms)
	about(t, "the sleep beside them", slept["main.beside"], 0)
	atLeast(t, "the answer", waited(r, "request POST /2020-01-01/extension/register"), 29*ms)
	if t.Failed() {
		_, chain, _ := initprof("critical-chain", filepath.Join(dir, "run.initprof"))
		t.Log(fmt.Sprint(slept), "\n"+chain)
	}
}

// Over loopback too the path goes from the goroutine that reads to the one that
// wrote, through the thread that polled.
func TestCriticalPathFollowsPeersOverLoopback(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path := goExtension(t, dir, "loopback", `"net"; "time"`, `
func serve(l net.Listener) {
	c, _ := l.Accept()
	var b [1]byte
	for {
		if _, err := c.Read(b[:]); err != nil { return }
		time.Sleep(8 * time.Millisecond)
		c.Write(b[:])
	}
}
`, `l, _ := net.Listen("tcp", "127.0.0.1:0")
	go serve(l)
	c, _ := net.Dial("tcp", l.Addr().String())
	var b [1]byte
	for i := 0; i < 5; i++ { c.Write([]byte("x")); c.Read(b[:]) }`)
	recordOne(t, dir, nil, path)
	r := report(t, filepath.Join(dir, "run.initprof"), "--run", "1")
	tiles(t, r)
	atLeast(t, "the sleeps of the goroutine that answers", waited(r, "timer"), 40*ms)
	about(t, "somebody outside", waited(r, "a peer"), 0)
	if t.Failed() {
		_, chain, _ := initprof("critical-chain", filepath.Join(dir, "run.initprof"))
		t.Log("\n" + chain)
	}
}

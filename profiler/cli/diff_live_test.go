package cli_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/symbolize"
)

// goBusy is an extension that reads its configuration, which may take 10 ms of
// its thread's CPU time. It seldom asks how much it took: user time between two
// system calls has their stacks, and not that of the loop between them.
const goBusy = `
var sink int

func cpu() time.Duration {
	var t syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&t)), 0) // CLOCK_THREAD_CPUTIME_ID
	return time.Duration(t.Nano())
}

//go:noinline
func burn() {
	runtime.LockOSThread()
	begin, n, all := cpu(), 200000, 0
	for turn := 0; ; turn++ {
		x := turn
		for i := 0; i < n; i++ { x = x*3 + i }
		sink += x
		all += n
		used := cpu() - begin
		if used >= 10*time.Millisecond { break }
		n = max(20000, int(float64(all) * float64(10*time.Millisecond-used) / float64(used) * 0.9))
	}
	runtime.UnlockOSThread()
}

//go:noinline
func loadConfig() { if busy { burn() } }
`

// cBusy is the same in C. It opens a file more when it is busy, and one less.
const cBusy = `
static inline __attribute__((always_inline)) void turn(long long n) { for (volatile long long i = 0; i < n; i++); }
__attribute__((noinline)) static void burn(void) {
	long long begin = cpu();
	turn(200000);
	long long once = cpu() - begin;
	turn(200000 * (9000000LL - once) / once);
	while (cpu() < begin + 10000000LL) turn(20000);
}
__attribute__((noinline)) void load_config(void) {
#ifdef BUSY
	burn();
	fclose(fopen("/etc/hostname", "r"));
#else
	fclose(fopen("/etc/passwd", "r"));
#endif
	asm volatile("");
}
`

// A program and the same with a busy loop of 10 ms: the difference is in its
// phase, its category and its function, and the parts sum to the whole.
func TestDiffBlamesABusyLoop(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name, phase, function string
		build                 func(t *testing.T, dir string, busy bool) string
	}{
		{"C", "configured", "burn", func(t *testing.T, dir string, busy bool) string {
			flags := []string{"-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"}
			if busy {
				flags = append(flags, "-DBUSY")
			}
			return extensionC(t, dir, "subject", deeds+cBusy, `checkpoint("connected"); load_config(); checkpoint("configured");`, flags...)
		}},
		{"Go", "next", "main.burn", func(t *testing.T, dir string, busy bool) string {
			return goExtension(t, dir, "subject", `"runtime"; "syscall"; "time"; "unsafe"`, goBusy+fmt.Sprintf("\nconst busy = %v\n", busy), "loadConfig()")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs := map[bool]string{}
			for _, busy := range []bool{false, true} {
				dir := openDir(t)
				path := c.build(t, dir, busy)
				runs[busy] = filepath.Join(dir, "run.initprof")
				if code, _, errOut := initprof("record", "-q", "-n", "6", "--untraced", "6", "-o", runs[busy], "--", path); code != 0 {
					t.Fatalf("exit code %d\n%s", code, errOut)
				}
			}
			d := diff(t, runs[false], runs[true])
			sums(t, d)
			busyCell(t, d, c.phase, c.function, 10*ms)
			before, after := report(t, runs[false]).Untraced, report(t, runs[true]).Untraced
			if w := d.Wall; w.Before.N != 6 || w.Before.P50 != before.P50 || w.After.P50 != after.P50 || w.After.Min < 10*ms {
				t.Errorf("untraced %+v, the reports have medians of %d and %d ns", *w, before.P50, after.P50)
			}
			if c.name == "C" {
				for key, want := range map[string]string{"/etc/hostname": analysis.StatusAppeared, "/etc/passwd": analysis.StatusVanished} {
					if got := statusOf(d.Files, key); got != want {
						t.Errorf("%s %s, want %s", key, got, want)
					}
				}
			}
			for _, f := range d.Functions {
				if f.Key == c.function && (f.Status != analysis.StatusAppeared || f.Phase != c.phase) {
					t.Errorf("%s is %s, mostly in %s", f.Key, f.Status, f.Phase)
				}
			}

			back := diff(t, runs[true], runs[false])
			sums(t, back)
			busyCell(t, back, c.phase, c.function, -10*ms)

			if c.name != "C" {
				return // one of them is enough for what is made of the difference
			}
			_, out, _ := initprof("diff", runs[false], runs[true])
			if want := c.phase + " config user " + c.function; !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
			_, out, _ = initprof("diff", runs[false], runs[true], "--format", "markdown")
			if want := "`" + c.function + "`"; !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}

			// The picture shows it red in after, the other way round blue in what vanished.
			boxes := drawnDiff(t, runs[false], runs[true], c.phase)
			if b := boxes["after"][c.function]; !strings.HasPrefix(b.class, "f up") || !strings.HasSuffix(b.class, " new") || b.value < 9*ms {
				t.Errorf("after the loop %s is %+v", c.function, b)
			}
			boxes = drawnDiff(t, runs[true], runs[false], c.phase)
			if b := boxes["vanished"][c.function]; !strings.HasPrefix(b.class, "f dn") || b.value < 9*ms {
				t.Errorf("without the loop %s is %+v", c.function, b)
			}

			for _, d := range []*analysis.Diff{d, back} {
				want := 0 // other load may widen the interval until it says nothing
				if float64(d.Wall.CI95[0]) > 0.05*float64(d.Wall.Before.P50) {
					want = 5
				}
				if code, _, errOut := initprof("diff", d.Before.Run, d.After.Run, "--fail-above", "5"); code != want || code == 5 != strings.Contains(errOut, "slower by at least") {
					t.Errorf("--fail-above 5: exit code %d, want %d of %+v; %s", code, want, *d.Wall, errOut)
				}
			}
			same(t, runs[true])
		})
	}
}

func diff(t *testing.T, before, after string) *analysis.Diff {
	t.Helper()
	code, out, errOut := initprof("diff", before, after, "--format", "json")
	if code != 0 {
		t.Fatalf("diff: exit code %d\n%s", code, errOut)
	}
	var d analysis.Diff
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// sums fails unless all parts of the difference sum to that of the walls.
func sums(t *testing.T, d *analysis.Diff) {
	t.Helper()
	var cells, phases, before, after, measured int64
	for _, c := range d.Ledger {
		cells, before, after = cells+c.DeltaNS, before+c.BeforeNS, after+c.AfterNS
		if c.DeltaNS != c.AfterNS-c.BeforeNS {
			t.Errorf("%+v", c)
		}
		if c.Category == "measurement" {
			measured += c.DeltaNS
		}
	}
	for _, p := range d.Phases {
		phases += p.DeltaNS
	}
	if w := d.Traced; cells != w.DeltaNS || phases != w.DeltaNS || w.DeltaNS != w.AfterNS-w.BeforeNS || before != w.BeforeNS || after != w.AfterNS || measured != w.MeasurementDeltaNS {
		t.Errorf("cells %d (%d → %d), phases %d, measurement %d: traced %+v", cells, before, after, phases, measured, *w)
	}
}

// busyCell fails unless the cell that changed most is the loop's. What waits, for
// a CPU or an answer, waits for the machine's other load.
func busyCell(t *testing.T, d *analysis.Diff, phase, function string, want int64) {
	t.Helper()
	for _, c := range d.Ledger {
		if c.State == analysis.StateRunnable || c.State == analysis.StateWaiting {
			continue
		}
		if c.Phase != phase || c.Category != "config" || c.State != analysis.StateUser || c.Function != function {
			t.Errorf("what changed most is %+v, want config in %s through %s", c, phase, function)
		}
		about(t, "the loop", abs(c.DeltaNS), abs(want))
		if (c.DeltaNS > 0) != (want > 0) {
			t.Errorf("the change is %d ns, want %d", c.DeltaNS, want)
		}
		return
	}
	t.Error("no cell changed")
}

func abs(v int64) int64 { return max(v, -v) }

func statusOf(changes []analysis.Change, key string) string {
	for _, c := range changes {
		if c.Key == key {
			return c.Status
		}
	}
	return "not listed"
}

// same fails unless a run does not differ from itself.
func same(t *testing.T, run string) {
	t.Helper()
	d := diff(t, run, run)
	sums(t, d)
	if d.Traced.DeltaNS != 0 || d.Wall.ShiftNS != 0 {
		t.Errorf("traced %+v, shift %d", *d.Traced, d.Wall.ShiftNS)
	}
	for _, c := range d.Ledger {
		if c.DeltaNS != 0 {
			t.Errorf("%+v", c)
		}
	}
	if n := len(d.Functions) + len(d.Binding) + len(d.Packages) + len(d.Certs) + len(d.Goroutines) + len(d.Syscalls) +
		len(d.Files) + len(d.Requests) + len(d.Dlopens) + len(d.Allocator); n != 0 {
		t.Errorf("%d things changed", n)
	}
	if boxes := drawnDiff(t, run, run, "all"); len(boxes["vanished"]) != 0 || len(boxes["after"]) == 0 {
		t.Errorf("%d boxes, %d vanished", len(boxes["after"]), len(boxes["vanished"]))
	}
}

type drawnBox struct {
	class string
	value int64
}

// drawnDiff draws a phase into a directory with the others, and returns the
// widest box of each function, by panel.
func drawnDiff(t *testing.T, before, after, phase string) map[string]map[string]drawnBox {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "graphs") + "/"
	if code, _, errOut := initprof("diff", before, after, "--format", "svg", "-o", dir); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	svg, err := os.ReadFile(dir + phase + ".svg")
	if err != nil {
		t.Fatal(err)
	}
	boxes := map[string]map[string]drawnBox{"after": {}, "vanished": {}}
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	panel, inTitle := "", false
	var box drawnBox
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return boxes
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			attribute := map[string]string{}
			for _, a := range token.Attr {
				attribute[a.Name.Local] = a.Value
			}
			if name, ok := strings.CutPrefix(attribute["class"], "frames "); ok {
				panel = name
			}
			if token.Name.Local == "g" && strings.HasPrefix(attribute["class"], "f ") {
				value, _ := strconv.ParseInt(attribute["data-v"], 10, 64)
				box = drawnBox{attribute["class"], value}
			}
			inTitle = token.Name.Local == "title"
		case xml.CharData:
			if inTitle && panel != "" {
				name, _, _ := strings.Cut(string(token), "\n")
				if old := boxes[panel][name]; box.value > old.value {
					boxes[panel][name] = box
				}
			}
		case xml.EndElement:
			inTitle = false
		}
	}
}

// What cannot be compared says so, and what to do.
func TestDiffRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	future := filepath.Join(dir, "future")
	failed := filepath.Join(dir, "failed")
	damaged := filepath.Join(dir, "damaged")
	for path, manifest := range map[string]string{
		empty:   "",
		future:  `{"version":99}`,
		failed:  `{"version":1,"cold_starts":[{"index":1,"outcome":"crashed"}]}`,
		damaged: `{"version":1,"cold_starts":[{"index":1,"outcome":"ok","release_to_next_ns":9223372036854775807}]}`,
	} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := symbolize.NewStore().Write(filepath.Join(path, "symbols")); err != nil {
			t.Fatal(err)
		}
		if manifest != "" {
			writeFile(t, filepath.Join(path, "manifest.json"), manifest)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{filepath.Join(dir, "none"), empty}, 1, "not a run"},
		{[]string{empty, empty}, 1, "not a run"},
		{[]string{future, future}, 1, "record it again"},
		{[]string{failed, failed}, 1, "none of its 1 cold starts went well"},
		{[]string{damaged, damaged}, 1, "damaged"},
		{[]string{empty, empty, "--format", "pdf"}, 2, "--format is text, json, markdown or svg"},
		{[]string{empty, empty, "--fail-above", "NaN"}, 2, "--fail-above takes"},
		{[]string{empty, empty, "--fail-above", "-1"}, 2, "--fail-above takes"},
	} {
		code, out, errOut := initprof(append([]string{"diff"}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%v: exit code %d, %q; want %d, %q", c.args, code, errOut, c.code, c.want)
		}
	}
}

package startup

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// space is an address space without names but for a package's init function.
type space []trace.Mapping

func (s space) Mapping(_ int, _ int64, address uint64) *trace.Mapping {
	for i := range s {
		if s[i].Start <= address && address < s[i].Limit {
			return &s[i]
		}
	}
	return nil
}

func (s space) Resolve(pid int, at int64, address uint64, _, _ bool) symbolize.Location {
	l := symbolize.Location{Address: address}
	if m := s.Mapping(pid, at, address); m != nil {
		l.Module = m.Path
	}
	if address >= 0x5000 && address < 0x6000 {
		l.Frames = []symbolize.Frame{{Function: fmt.Sprintf("example.com/p%x.init", address&0xf)}}
	}
	return l
}

// head is an event's of the only thread.
func head(at int64) trace.Header { return trace.Header{Time: at, PID: 10, TID: 10} }

// account computes what one thread did between 0 and 1000, with the loader's
// phase until 500.
func account(t *testing.T, facts loader.Objects, events ...trace.Event) *Result {
	t.Helper()
	tl, err := trace.Build(append(events, &trace.Switch{Header: head(1), Comm: "x"}), trace.BuildOptions{Arch: "amd64", Stop: 2000})
	if err != nil {
		t.Fatal(err)
	}
	phases := &phase.Result{Start: 1, End: 1001, Phases: []phase.Phase{
		{Name: phase.Loader, Start: 1, End: 501}, {Name: phase.RuntimeInit, Start: 501, End: 801}, {Name: phase.Next, Start: 801, End: 1001},
	}}
	where := space{
		{Start: 0x1000, Limit: 0x2000, Path: "/bin/program"},
		{Start: 0x2000, Limit: 0x3000, Path: "/lib/liba.so"},
		{Start: 0x5000, Limit: 0x6000, Path: "/bin/program"},
	}
	return Compute(Input{Timeline: tl, Phases: phases, Resolver: where, Facts: facts})
}

// A symbol is bound lazily, an object eagerly; what is left of the PLT is never
// bound. A call outside of the window counts nothing.
func TestBindings(t *testing.T) {
	facts := loader.Objects{
		"/bin/program": {PLT: []loader.PLTEntry{{Symbol: "one", Lazy: true}, {Symbol: "two", Lazy: true}, {Symbol: "three", Lazy: true}}},
		"/lib/liba.so": {BindNow: true, PLT: []loader.PLTEntry{{Symbol: "four", Lazy: true}}},
	}
	fixup := func(at int64, slot, target uint64) *trace.FunctionCall {
		return &trace.FunctionCall{Header: head(at), End: at + 5, Name: loader.Fixup, Dynamic: 0x1100, Args: [3]uint64{0, slot}, Return: target}
	}
	r := account(
		t, facts,
		&trace.FunctionCall{Header: head(100), End: 150, Name: loader.Relocate, Dynamic: 0x2100, Args: [3]uint64{0, 0, 1}, Minor: 3},
		&trace.FunctionCall{Header: head(160), End: 180, Name: loader.Relocate, Dynamic: 0x1100, Args: [3]uint64{0, 0, 1}},
		&trace.FunctionCall{Header: head(200), End: 230, Name: loader.CallInit, Dynamic: 0x2100},
		fixup(600, 1, 0x2050), fixup(700, 1, 0x2050), fixup(900, 0, 0x2060), fixup(1500, 2, 0x2070),
	)
	type bound struct {
		Symbol, Object, Target string
		NS                     int64
	}
	var got []bound
	for _, b := range r.Bindings {
		got = append(got, bound{b.Symbol, b.Object, b.Target, b.NS()})
	}
	want := []bound{
		{"two", "/bin/program", "/lib/liba.so", 5}, {"two", "/bin/program", "/lib/liba.so", 5}, {"one", "/bin/program", "/lib/liba.so", 5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	type object struct {
		Path, Mode           string
		Relocation, Init     int64
		Minor, Lazily, Never int
	}
	var objects []object
	for _, o := range r.Objects {
		objects = append(objects, object{o.Path, o.Mode, o.Relocation.NS(), o.Constructors, o.Minor, o.BoundLazily, o.NeverBound})
	}
	wantObjects := []object{
		{"/lib/liba.so", Eager, 50, 30, 3, 0, 0}, // BIND_NOW wins over the mode that it was relocated with
		{"/bin/program", Lazy, 20, -1, 0, 2, 1},
	}
	if diff := cmp.Diff(wantObjects, objects); diff != "" {
		t.Error(diff)
	}
	if len(r.Warnings) > 0 {
		t.Error(r.Warnings)
	}
}

// The parts of a phase tile it; what nests counts where it is innermost.
func TestPartsTile(t *testing.T) {
	r := account(
		t, nil,
		&trace.FunctionCall{Header: head(100), End: 300, Name: loader.CallInit, Dynamic: 0x2100},
		&trace.FunctionCall{Header: head(200), End: 240, Name: loader.Fixup, Dynamic: 0x1100},
		&trace.FunctionCall{Header: head(450), End: 600, Name: loader.Relocate, Dynamic: 0x1100},
	)
	want := []Part{
		{phase.Loader, Rest, 249},
		{phase.Loader, PartConstructors, 160},
		{phase.Loader, PartRelocation, 51},
		{phase.Loader, PartBinding, 40},
		{phase.RuntimeInit, Rest, 201},
		{phase.RuntimeInit, PartRelocation, 99},
	}
	if diff := cmp.Diff(want, r.Parts); diff != "" {
		t.Error(diff)
	}
}

// The loader's own dlopen counts only where the C library's is not around it.
func TestLookups(t *testing.T) {
	r := account(
		t, nil,
		&trace.FunctionCall{Header: head(100), End: 200, Name: loader.MuslDlopen, Text: "liba.so", Return: 1},
		&trace.FunctionCall{Header: head(110), End: 190, Name: loader.Dlopen, Text: "liba.so", Return: 1},
		&trace.FunctionCall{Header: head(300), End: 350, Name: loader.MuslDlopen, Text: "libnone.so"},
		&trace.FunctionCall{Header: head(310), Name: loader.Dlopen, Text: "libnone.so"}, // left by longjmp
		&trace.FunctionCall{Header: head(400), Name: loader.Dlopen, Text: "libnss_x.so.2"},
		&trace.FunctionCall{Header: head(500), End: 510, Name: loader.MuslDlsym, Text: "f", Return: 7},
	)
	type call struct {
		Name         string
		NS           int64
		Returned, OK bool
	}
	show := func(lookups []Lookup) (calls []call) {
		for _, l := range lookups {
			calls = append(calls, call{l.Name, l.NS(), l.Returned, l.OK})
		}
		return calls
	}
	want := []call{{"liba.so", 100, true, true}, {"libnone.so", 50, true, false}, {"libnss_x.so.2", 0, false, false}}
	if diff := cmp.Diff(want, show(r.Dlopens)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]call{{"f", 10, true, true}}, show(r.Dlsyms)); diff != "" {
		t.Error(diff)
	}
}

// A package's initialisation ends where the next one's begins, or with the
// runtime's next stage. The stack's growth reaches an entry twice.
func TestPackages(t *testing.T) {
	enter := func(at int64, name string, value uint64) *trace.Mark {
		return &trace.Mark{Header: head(at), Kind: trace.MarkEnter, Name: name, ID: 0xc000, Value: value}
	}
	r := account(
		t, nil,
		enter(510, mallocInit, 0), &trace.Mark{Header: head(530), Kind: trace.MarkLeave, Name: mallocInit, ID: 0xc000},
		enter(540, doInit, 0x5001), enter(541, doInit, 0x5001), enter(560, gcEnable, 0),
		&trace.Mark{Header: head(570), Kind: trace.MarkLeave, Name: gcEnable, ID: 0xc000},
		enter(580, doInit, 0x5002), enter(590, doInit, 0x5003), &trace.Mark{Header: head(640), Kind: trace.MarkMain, Name: "main.main"},
	)
	type initialised struct {
		Path string
		NS   int64
	}
	var got []initialised
	for _, p := range r.Packages {
		got = append(got, initialised{p.Path, p.NS()})
	}
	if diff := cmp.Diff([]initialised{{"example.com/p1", 20}, {"example.com/p2", 10}, {"example.com/p3", 50}}, got); diff != "" {
		t.Error(diff)
	}
	if len(r.Stages) != 2 || r.Stages[0].Function != mallocInit || r.Stages[0].NS() != 20 || r.Stages[1].NS() != 10 {
		t.Errorf("stages %+v", r.Stages)
	}
}

func TestPackagePath(t *testing.T) {
	for function, want := range map[string]string{
		"net/http.init":               "net/http",
		"net/http.init.0":             "net/http",
		"gopkg.in/yaml%2ev3.init":     "gopkg.in/yaml.v3",
		"github.com/a.b/c.map.init.0": "github.com/a.b/c",
		"main.init.1":                 "main",
		"":                            "",
		"strange":                     "",
		"x/%zz.init":                  "x/%zz",
	} {
		if got := packagePath(function); got != want {
			t.Errorf("%q is of %q, want %q", function, got, want)
		}
	}
}

func TestIsCert(t *testing.T) {
	for path, want := range map[string]bool{
		"/etc/ssl/certs/ca-certificates.crt":                true,
		"/etc/ssl/certs":                                    true,
		"/etc/ssl/certs/5ad8a5d6.0":                         true,
		"/usr/lib/ssl/cert.pem":                             true,
		"/var/task/my-ca.pem":                               true,
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": true,
		"/etc/ssl/openssl.cnf":                              false,
		"/etc/ssl/private/server.key":                       false,
		"/var/task/private-key.pem":                         false,
		"/usr/lib/x86_64-linux-gnu/libssl.so.3":             false,
		"/etc/passwd":                                       false,
	} {
		if got := isCert(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

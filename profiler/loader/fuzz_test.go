package loader_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/symbolize"
)

// FuzzLocate changes a real loader at two places, and tries bytes that are none:
// an error or a refusal, never a panic.
func FuzzLocate(f *testing.F) {
	file, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2")
	if err != nil {
		file, _ = os.ReadFile("/lib/ld-linux-aarch64.so.1")
	}
	f.Add(uint32(16), uint64(0xffffffffffffffff), uint32(64), uint64(0), []byte(nil))
	f.Add(uint32(0x28), uint64(1<<40), uint32(0x38), uint64(0xffff), []byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64, alone []byte) {
		if len(alone) > 0 {
			_, _ = loader.Locate(bytes.NewReader(alone), loader.Options{})
			return
		}
		changed := bytes.Clone(file)
		for at, v := range map[uint32]uint64{at1: v1, at2: v2} {
			for i := range 8 {
				if at := int(at) + i; at < len(changed) {
					changed[at] = byte(v >> (8 * i))
				}
			}
		}
		l, err := loader.Locate(bytes.NewReader(changed), loader.Options{})
		if err != nil {
			return
		}
		for _, fn := range l.Functions {
			if fn.Found() == (fn.Reason != "") {
				t.Errorf("%s: found %t, reason %q", fn.Name, fn.Found(), fn.Reason)
			}
		}
	})
}

// FuzzFacts changes a real library at two places: huge counts, overlapping
// tables and offsets behind the end are an error or a warning, in bounded time.
func FuzzFacts(f *testing.F) {
	library := ""
	for _, p := range []string{"/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6"} {
		if _, err := os.Stat(p); err == nil {
			library = p
		}
	}
	file, err := os.ReadFile(library)
	if err != nil {
		f.Skip("no libm on this machine")
	}
	f.Add(uint32(0x20), uint64(1<<63), uint32(0x38), uint64(0xffff))
	for i := range 4 { // sizes and addresses of program headers
		f.Add(uint32(64+56*i+8), uint64(1<<40), uint32(64+56*i+32), uint64(1<<50))
	}
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64) {
		changed := bytes.Clone(file)
		for at, v := range map[uint32]uint64{at1: v1, at2: v2} {
			for i := range 8 {
				if at := int(at) + i; at < len(changed) {
					changed[at] = byte(v >> (8 * i))
				}
			}
		}
		o, err := symbolize.OpenObject(bytes.NewReader(changed))
		if err != nil {
			return
		}
		facts, err := loader.FactsOf(o)
		if err != nil {
			return
		}
		// What is counted lies in the file; one word of RELR counts 63 at most.
		if n := facts.Counts.Total(); n < 0 || n > 8*len(changed) {
			t.Errorf("%d relocations in a file of %d bytes", n, len(changed))
		}
		if len(facts.PLT) > len(changed)/24 {
			t.Errorf("%d entries of the PLT in a file of %d bytes", len(facts.PLT), len(changed))
		}
	})
}

// FuzzParseArgs: every argument keeps its text, and none is a register without
// a name.
func FuzzParseArgs(f *testing.F) {
	f.Add("-8@%r12 8@24(%rbx) -4@$0")
	f.Add("-8@x20 8@[x19, 24] 4@[sp]")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range loader.ParseArgs(text) {
			if (a.Kind == loader.Register || a.Kind == loader.Memory) && a.Reg == "" || !strings.Contains(text, a.Text) {
				t.Errorf("%q: %+v", text, a)
			}
		}
	})
}

package loader_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/initprof/initprof/profiler/loader"
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

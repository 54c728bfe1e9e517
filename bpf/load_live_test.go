package bpf_test

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/initprof/initprof/bpf"
)

// The verifier of the running kernel accepts every program.
func TestProgramsLoad(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	var objects bpf.InitprofObjects
	if err := bpf.LoadInitprofObjects(&objects, nil); err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			t.Fatalf("%+v", verifier)
		}
		t.Fatal(err)
	}
	if err := objects.Close(); err != nil {
		t.Fatal(err)
	}
}

package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/initprof/initprof/profiler/cli"
)

// TestDoctor examines this test's own binary, which is a Go program.
func TestDoctor(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := cli.Main([]string{"doctor", "--format", "json", self}, &out, &errOut); code != 0 {
		t.Fatalf("exit %d: %s", code, errOut.Bytes())
	}
	var got struct {
		Host    struct{ Missing []string }
		Program struct {
			Schema  string
			Binary  struct{ Language string }
			Changes []struct{ ID, Verdict string }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	if got.Program.Schema != "initprof/doctor/v1" || got.Program.Binary.Language != "go" || len(got.Program.Changes) < 7 || got.Host.Missing == nil {
		t.Errorf("%+v", got)
	}

	out.Reset()
	if code := cli.Main([]string{"doctor", self}, &out, &errOut); code != 0 {
		t.Fatalf("exit %d: %s", code, errOut.Bytes())
	}
	for _, want := range []string{"host\n", "program  " + self, "\nchanges\n", "  H16  try      ", "initialise themselves before main", "\nprobes\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestDoctorRefuses what is no program.
func TestDoctorRefuses(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"it is a script":      {script},
		"no such file":        {script + "x"},
		"zero is no regular":  {"/dev/zero"},
		"pipe is no regular":  {pipe},
		"--format is text or": {"--format", "xml", script},
	} {
		var out, errOut bytes.Buffer
		if code := cli.Main(append([]string{"doctor"}, args...), &out, &errOut); code == 0 || !strings.Contains(errOut.String(), want) {
			t.Errorf("doctor %q: exit %d, %q; want %q", args, code, errOut.String(), want)
		}
	}
}

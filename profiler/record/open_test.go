package record

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/trace"
)

// A subject that puts a FIFO where its library was cannot stop initprof.
func TestOpenMappingDoesNotBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib.so")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := (&session{root: "/proc/self"}).openMapping(path, &trace.Mapping{Path: path})
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, errNotRegular) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for somebody to write")
	}
}

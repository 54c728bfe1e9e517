package unwind

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// ReadVDSO returns the image of the vDSO, which every process of this machine
// shares, from the memory of this one.
func ReadVDSO() ([]byte, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("find the vDSO: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), trace.VDSO) {
			continue
		}
		var start, limit uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &limit); err != nil || limit <= start || limit-start > 1<<20 {
			return nil, fmt.Errorf("find the vDSO: %q in /proc/self/maps", line)
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, fmt.Errorf("read the vDSO: %w", err)
		}
		defer func() { _ = mem.Close() }()
		image := make([]byte, limit-start)
		if _, err := mem.ReadAt(image, int64(start)); err != nil {
			return nil, fmt.Errorf("read the vDSO: %w", err)
		}
		return image, nil
	}
	return nil, errors.New("this process has no vDSO")
}

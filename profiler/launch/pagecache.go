package launch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EvictPageCache writes files back and drops their pages from the page cache.
// Pages that another process keeps mapped stay: Residual counts them.
func EvictPageCache(paths []string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("drop from the page cache: %w", err)
		}
		err = errors.Join(
			unix.Fdatasync(int(f.Fd())),
			unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED),
			f.Close(),
		)
		if err != nil {
			return fmt.Errorf("drop %s from the page cache: %w", path, err)
		}
	}
	return nil
}

package capture

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Where nothing can be traced one sentence says why, and one what to do.
func TestUnavailable(t *testing.T) {
	for _, c := range []struct {
		err  error
		btf  bool
		root bool
		want string
	}{
		{unix.EPERM, true, false, "with sudo"},
		{unix.EPERM, true, true, "CAP_BPF"},
		{unix.ENOSYS, true, true, "5.10"},
		{errors.New("whatever"), false, true, "CONFIG_DEBUG_INFO_BTF"},
	} {
		err := explain(fmt.Errorf("load: %w", c.err), c.btf, c.root)
		var missing *UnavailableError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--signals none") {
			t.Errorf("%v, BTF %v, root %v: %v", c.err, c.btf, c.root, err)
		}
	}
	if err := explain(errors.New("a bug"), true, true); err.Error() != "a bug" {
		t.Errorf("a bug is explained away: %v", err)
	}
}

package loader_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/loader"
)

var stapsdt = regexp.MustCompile(`Provider: rtld\n\s+Name: (\S+)\n\s+Location: (0x[0-9a-f]+),.*\n\s+Arguments: (.*)\n`)

// TestUSDTAgreesWithReadelf: the probes of the loaders that have some, their
// locations and their arguments are those that readelf prints.
func TestUSDTAgreesWithReadelf(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(fetched, "*-*64", "ld.so"))
	if len(files) == 0 {
		skip(t, "no loaders of other releases: make loaders fetches them")
	}
	compared := 0
	for _, file := range append(files, systemLoader(t)) {
		out, err := exec.Command("readelf", "-nW", file).Output()
		if err != nil {
			skip(t, "readelf: %v", err)
		}
		var want, got []string
		for _, m := range stapsdt.FindAllStringSubmatch(string(out), -1) {
			want = append(want, fmt.Sprintf("%s %s %s", m[1], strings.Replace(m[2], "0x00000000000", "0x", 1), strings.TrimSpace(m[3])))
		}
		for _, u := range locate(t, file, loader.Options{}).USDT {
			var args []string
			for _, a := range u.Args {
				args = append(args, fmt.Sprintf("%d@%s", a.Size, a.Text))
			}
			got = append(got, fmt.Sprintf("%s 0x%05x %s", u.Name, u.Address, strings.Join(args, " ")))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-readelf +got):\n%s", file, diff)
		}
		compared += len(got)
	}
	t.Logf("%d probes compared", compared)
}

package probe

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The names of waits are those in the sources of the versions of Go that are
// at hand: the one that tests run with, and the toolchains in the module cache.
func TestWaitReasonsAreGos(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(out))
	roots, _ := filepath.Glob(filepath.Join(dirs[1], "golang.org", "toolchain@*"))
	for _, root := range append(roots, dirs[0]) {
		version, err := os.ReadFile(filepath.Join(root, "VERSION"))
		if err != nil {
			continue
		}
		minor, ok := goMinor(strings.Fields(string(version))[0])
		if _, known := goVersions[minor]; !ok || !known {
			continue
		}
		if want := reasonsOf(t, filepath.Join(root, "src", "runtime", "runtime2.go")); !slices.Equal(waitReasons(minor), want) {
			t.Errorf("Go 1.%d:\n%q, want\n%q", minor, waitReasons(minor), want)
		}
	}
}

// reasonsOf reads waitReasonStrings in the order of its constants.
func reasonsOf(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	texts := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for _, name := range n.Names {
				if strings.HasPrefix(name.Name, "waitReason") && name.Name != "waitReasonStrings" {
					order = append(order, name.Name)
				}
			}
		case *ast.KeyValueExpr:
			key, ok := n.Key.(*ast.Ident)
			value, isText := n.Value.(*ast.BasicLit)
			if ok && isText && strings.HasPrefix(key.Name, "waitReason") {
				texts[key.Name], _ = strconv.Unquote(value.Value)
			}
		}
		return true
	})
	var reasons []string
	for _, name := range order {
		reasons = append(reasons, texts[name])
	}
	return reasons
}

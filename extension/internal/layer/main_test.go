package main

import (
	"archive/zip"
	"os"
	"path/filepath"
	"testing"
)

func TestLayer(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("binary", []byte("\x7fELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{"a.zip", "b.zip"} {
		if err := run(out, []string{"extensions/ext=binary"}); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile("a.zip")
	if b, _ := os.ReadFile("b.zip"); string(a) != string(b) {
		t.Error("two layers of the same file differ")
	}
	z, err := zip.OpenReader("a.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	if f := z.File[0]; f.Name != "extensions/ext" || f.Mode() != 0o755 {
		t.Errorf("%s %v", f.Name, f.Mode())
	}
	for _, bad := range []string{"x", "/x=binary", "../x=binary", "x=nowhere"} {
		if err := run("c.zip", []string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if left, _ := filepath.Glob(".layer-*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

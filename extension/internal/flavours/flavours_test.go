package flavours

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build makes flavours like "arm64/h7", and returns their files by name.
func build(t *testing.T, names ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{}
	args := []string{"-C", "../../..", "--no-print-directory", "VARIANT_DIR=" + dir}
	for _, name := range names {
		files[name] = filepath.Join(dir, name)
		args = append(args, files[name])
	}
	if out, err := exec.Command("make", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return files
}

func open(t *testing.T, path string) *elf.File {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func static(f *elf.File) bool {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return false
		}
	}
	return true
}

func bindsNow(t *testing.T, f *elf.File) bool {
	t.Helper()
	flags, err := f.DynValue(elf.DT_FLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return len(flags) == 1 && elf.DynFlag(flags[0])&elf.DF_BIND_NOW != 0
}

// differences names the sections in which two files differ. The build ID is
// derived from the flags, and the build info may list them.
func differences(t *testing.T, a, b *elf.File) (names []string) {
	t.Helper()
	if len(a.Sections) != len(b.Sections) {
		t.Fatalf("%d sections and %d", len(a.Sections), len(b.Sections))
	}
	for i, s := range a.Sections {
		if s.Name == ".note.go.buildid" || s.Name == ".note.gnu.build-id" || s.Name == ".go.buildinfo" || s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
			continue
		}
		one, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		other, err := b.Sections[i].Data()
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != b.Sections[i].Name || !bytes.Equal(one, other) {
			names = append(names, s.Name)
		}
	}
	return names
}

func setting(t *testing.T, path, key string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// H7 changes nothing of a static program, on either architecture, beside H8 and
// the rest; of a dynamically linked one it sets the flag for the loader, and H8
// stays what it was. Only flavours with H10 can be compared: without, the build
// info lists the flags.
func TestBindNowAndInstructionSet(t *testing.T) {
	files := build(t, "amd64/integration", "amd64/no-h7", "arm64/integration", "arm64/no-h7", "arm64/integration-pie")
	for arch, want := range map[string]string{"amd64": "GOAMD64=v2", "arm64": "GOARM64=v8.2,lse"} {
		with, without := open(t, files[arch+"/integration"]), open(t, files[arch+"/no-h7"])
		if !static(with) || !static(without) {
			t.Errorf("%s: not static", arch)
		}
		if names := differences(t, with, without); len(names) > 0 {
			t.Errorf("%s: integration and no-h7 differ in %q", arch, names)
		}
		key, value, _ := strings.Cut(want, "=")
		for name, path := range files {
			if got := setting(t, path, key); strings.HasPrefix(name, arch) && got != value {
				t.Errorf("%s: %s=%s, want %s", name, key, got, value)
			}
		}
	}
	if pie := open(t, files["arm64/integration-pie"]); static(pie) || !bindsNow(t, pie) {
		t.Error("arm64/integration-pie is static, or its symbols are bound lazily")
	}
}

// Each flavour is built with its own changes and no others.
func TestCommands(t *testing.T) {
	changes := map[string][2]string{ // what a command has with the change, and without
		"h7": {"-bindnow", ""}, "h8": {"=v2", "=v1"}, "h8 arm64": {"=v8.2,lse", "=v8.0"}, "h10": {"-trimpath", ""},
	}
	for _, arch := range []string{"amd64", "arm64"} {
		for flavour, has := range map[string]string{
			"baseline": "", "integration": "h7 h8 h10 h12", "h7": "h7", "h8": "h8", "h10": "h10", "h12": "h12",
			"no-h7": "h8 h10 h12", "no-h8": "h7 h10 h12", "no-h10": "h7 h8 h12", "no-h12": "h7 h8 h10",
			"baseline-pie": "", "h7-pie": "h7", "integration-pie": "h7 h8 h10 h12",
		} {
			file := "/nowhere/" + arch + "/" + flavour
			out, err := exec.Command("make", "-C", "../../..", "--no-print-directory", "-n", "VARIANT_DIR=/nowhere", file).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			command := strings.TrimSuffix(strings.TrimSpace(string(out)), "-o "+file+" ./extension/cmd/initprof-extension")
			for _, change := range []string{"h7", "h8", "h10"} {
				signs := changes[change]
				if change == "h8" && arch == "arm64" {
					signs = changes["h8 arm64"]
				}
				on := strings.Contains(has, change)
				if strings.Contains(command, signs[0]) != on || !on && !strings.Contains(command, signs[1]) {
					t.Errorf("%s/%s: %s, want %s: %v", arch, flavour, command, change, on)
				}
			}
			if strings.Contains(command, "-buildmode=pie") != strings.HasSuffix(flavour, "-pie") || !strings.Contains(command, "CGO_ENABLED=0 GOOS=linux GOARCH="+arch) {
				t.Errorf("%s/%s: %s", arch, flavour, command)
			}
		}
	}
}

package subjects

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// compileRust builds a flavour of rust-extension. Cargo's folder is build/rust
// of the repository, whatever the output: the crates take a minute or two, and
// are compiled once.
func compileRust(from, to, name string, opts Options) error {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		return fmt.Errorf("%w: needs cargo", ErrUnavailable)
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[goarch(opts)]
	if arch == "" {
		return fmt.Errorf("%w: no Rust target is known for %s", ErrUnavailable, opts.GOARCH)
	}
	target := arch + "-unknown-linux-gnu"
	env := append(os.Environ(), "CARGO_TARGET_DIR="+filepath.Join(from, "..", "..", "build", "rust"))
	objcopy := "objcopy"
	if goarch(opts) != runtime.GOARCH {
		prefix := arch + "-linux-gnu-"
		if _, err := exec.LookPath(prefix + "gcc"); err != nil {
			return fmt.Errorf("%w: needs %sgcc", ErrUnavailable, prefix)
		}
		objcopy = prefix + "objcopy"
		env = append(env, "CARGO_TARGET_"+envName(target)+"_LINKER="+prefix+"gcc")
	}
	if name == RustMusl {
		if _, err := exec.LookPath("musl-gcc"); err != nil || goarch(opts) != runtime.GOARCH {
			return fmt.Errorf("%w: needs musl-gcc, for this architecture", ErrUnavailable)
		}
		target = arch + "-unknown-linux-musl"
		env = append(env, "CC_"+strings.ReplaceAll(target, "-", "_")+"=musl-gcc")
	}
	if err := hasStandardLibrary(target); err != nil {
		return err
	}
	command := func(args ...string) error {
		cmd := exec.Command(cargo, append(args, "--locked", "--target", target)...)
		cmd.Dir, cmd.Env = filepath.Join(from, "rust-extension"), env
		return run(cmd)
	}
	if err := command("fetch", "--quiet"); err != nil {
		return errors.Join(fmt.Errorf("%w: its crates cannot be had", ErrUnavailable), err)
	}
	build := []string{"build", "--quiet", "--release"}
	if feature, ok := map[string]string{RustH7: "h7", RustH16: "h16"}[name]; ok {
		build = append(build, "--features", feature)
	}
	// Flavours share a file name: what is built must be taken before the next.
	unlock, err := lockFile(filepath.Join(from, "..", "..", "build", "rust-"+target+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := command(build...); err != nil {
		return err
	}
	built := filepath.Join(from, "..", "..", "build", "rust", target, "release", "rust-extension")
	if name == RustExtension {
		return copyFile(to, built)
	}
	return run(exec.Command(objcopy, "--strip-all", built, to))
}

func goarch(opts Options) string {
	if opts.GOARCH != "" {
		return opts.GOARCH
	}
	return runtime.GOARCH
}

// envName is how cargo spells a target in the names of variables.
func envName(target string) string {
	return strings.ToUpper(strings.ReplaceAll(target, "-", "_"))
}

// hasStandardLibrary asks the compiler where the target's standard library
// would be, and looks.
func hasStandardLibrary(target string) error {
	out, err := exec.Command("rustc", "--print", "target-libdir", "--target", target).Output()
	if err == nil {
		libraries, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "libstd-*.rlib"))
		if len(libraries) > 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: needs Rust's standard library for %s", ErrUnavailable, target)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// lockFile waits until no other process holds the file.
func lockFile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

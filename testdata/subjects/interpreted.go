package subjects

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// compilePython makes a virtual environment that holds AWS's runtime interface
// client and the handler. Its packages are kept in build/wheels of the
// repository, so that they are fetched once.
func compilePython(from, to string) error {
	python := "/usr/bin/python3" // the distribution's: a shim of pyenv starts a shell first
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			return fmt.Errorf("%w: needs python3", ErrUnavailable)
		}
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := run(exec.Command(python, "-m", "venv", to)); err != nil {
		return errors.Join(fmt.Errorf("%w: needs python3 with venv", ErrUnavailable), err)
	}
	wheels := filepath.Join(from, "..", "..", "build", "wheels")
	requirements := filepath.Join(from, "python-function", "requirements.txt")
	pip := func(args ...string) error {
		return run(exec.Command(filepath.Join(to, "bin", "python"), append([]string{"-m", "pip", "--quiet", "--disable-pip-version-check"}, args...)...))
	}
	install := func() error {
		return pip("install", "--no-index", "--find-links", wheels, "-r", requirements)
	}
	if install() != nil {
		if err := pip("wheel", "--wheel-dir", wheels, "-r", requirements); err != nil {
			return errors.Join(fmt.Errorf("%w: its packages cannot be had", ErrUnavailable), err)
		}
		if err := install(); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(to, "lib", "python3*", "site-packages"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("%s has no single folder of packages: %q", to, packages)
	}
	if err := copyFile(filepath.Join(packages[0], "handler.py"), filepath.Join(from, "python-function", "handler.py")); err != nil {
		return err
	}
	// As in a layer that is built with care: whoever runs it could not write these.
	return run(exec.Command(filepath.Join(to, "bin", "python"), "-m", "compileall", "-q", packages[0]))
}

// copyNode copies the bootstrap with its modules.
func copyNode(from, to string) error {
	if _, err := exec.LookPath("node"); err != nil {
		return fmt.Errorf("%w: needs node", ErrUnavailable)
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(from, "node-function")))
}

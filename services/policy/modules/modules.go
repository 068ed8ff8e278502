// Package modules holds the policies that a fresh node starts with.
package modules

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Needs TinyGo, which build.sh makes; the sources are in ../guest.
//go:generate ../guest/build.sh

//go:embed *.wasm
var builtin embed.FS

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Read returns a built-in module's bytes by its file's name.
func Read(name string) ([]byte, error) {
	raw, err := builtin.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read built-in module: %w", err)
	}
	return raw, nil
}

// Seed writes the built-in modules into dir, made if it was not there, unless
// it holds a module already. It reports whether it wrote any.
func Seed(dir string) (bool, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return false, fmt.Errorf("make modules folder: %w", err)
	}
	have, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	if err != nil || len(have) > 0 {
		return false, err
	}
	names, err := fs.Glob(builtin, "*.wasm")
	if err != nil {
		return false, fmt.Errorf("list built-in modules: %w", err)
	}
	for _, name := range names {
		raw, err := Read(name)
		if err != nil {
			return false, err
		}
		if err := place(dir, name, raw); err != nil {
			return false, fmt.Errorf("write built-in module %q: %w", name, err)
		}
	}
	return true, nil
}

// place writes a file under another name first: no half of it is ever seen.
func place(dir, name string, raw []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(raw)
	err = errors.Join(err, f.Chmod(fileMode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

package up

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOpenFolderRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string, make func(string) error) string {
		p := filepath.Join(dir, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	mkdir := func(mode os.FileMode) func(string) error {
		return func(p string) error {
			if err := os.Mkdir(p, mode); err != nil {
				return err
			}
			return os.Chmod(p, mode)
		}
	}
	tests := []struct{ name, path, want string }{
		{"link", path("link", func(p string) error { return os.Symlink(dir, p) }), "not a folder"},
		{"file", path("file", func(p string) error { return os.WriteFile(p, nil, 0o600) }), "not a folder"},
		{"open", path("open", mkdir(0o777)), "others may write to it"},
		{"used", path("used", func(p string) error {
			if err := mkdir(0o750)(p); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(p, "thesis.tex"), nil, 0o600)
		}), "files that are not up's"},
		{"deep", filepath.Join(dir, "a", "b"), "no such file"},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, struct{ name, path, want string }{"foreign", path("foreign", func(p string) error {
			if err := mkdir(0o750)(p); err != nil {
				return err
			}
			return os.Chown(p, 12345, 12345)
		}), "belongs to uid 12345"})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := openFolder(tt.path, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("openFolder = %v, %v, want an error with %q", f, err, tt.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "used", "thesis.tex")); err != nil {
		t.Error(err)
	}
}

func TestFolderLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	take := func(keep bool) *folder {
		t.Helper()
		f, err := openFolder(path, keep)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := take(false)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("folder has mode %v (%v), want 0750", info.Mode(), err)
	}
	if _, err := openFolder(path, false); err == nil || !strings.Contains(err.Error(), "another `xinghuo up`") {
		t.Errorf("openFolder of one in use = %v, want it refused", err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the folder is left")
	}

	f = take(true)
	if err := os.WriteFile(f.sub("state", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if err := take(false).close(); err != nil { // once kept, it stays kept
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "state", "x")); err != nil {
		t.Errorf("kept state: %v", err)
	}
}

func TestTable(t *testing.T) {
	f := figures{
		up: 61 * time.Second, devices: 128, perSec: 6399.6, received: 1234567, acked: 1234000, rejected: 7, p99: 8740 * time.Microsecond,
		services: []memory{{name: "ingest", state: "serving"}, {name: "policy", state: "misconfigured", lastExit: "exit status 2: bad\n  second"}},
	}
	text := strings.Join(table(f), "\n")
	for _, want := range []string{"up 1m1s", "6,400", "1,234,567", "8.74ms", "misconfigured", "exit status 2: bad"} {
		if !strings.Contains(text, want) {
			t.Errorf("table lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "second") {
		t.Errorf("a row takes two lines:\n%s", text)
	}
}

func TestTotalsGoOnOverARestart(t *testing.T) {
	var c total
	var got []uint64
	for _, now := range []uint64{5, 10, 2, 4} {
		got = append(got, c.at(now))
	}
	if want := []uint64{5, 10, 12, 14}; !slices.Equal(got, want) {
		t.Errorf("totals = %v, want %v", got, want)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/tmp/x-0/a.sock": "/tmp/x-0/a.sock", "/tmp/it's me": `'/tmp/it'\''s me'`} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

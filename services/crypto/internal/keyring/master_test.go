package keyring

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMasterRefused(t *testing.T) {
	write := func(size int, mode os.FileMode) func(t *testing.T, path string) error {
		return func(_ *testing.T, path string) error {
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, path string) error
		want string
	}{
		{"group may read", write(16, 0o440), "must have mode 0400, has 0440"},
		{"owner may write", write(16, 0o600), "must have mode 0400, has 0600"},
		{"setuid", write(16, 0o400|os.ModeSetuid), "must have mode 0400, has 04400"},
		{"empty", write(0, 0o400), "must be 16 bytes, is 0"},
		{"short", write(15, 0o400), "must be 16 bytes, is 15"},
		{"long", write(17, 0o400), "must be 16 bytes, is 17"},
		{"huge", write(1<<20, 0o400), "must be 16 bytes, is 1048576"},
		{"folder", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o400) }, "must be a regular file"},
		{"fifo", func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o400) }, "must be a regular file"},
		{"link", func(t *testing.T, path string) error {
			target := filepath.Join(t.TempDir(), "m")
			if err := write(16, 0o400)(t, target); err != nil {
				return err
			}
			return os.Symlink(target, path)
		}, "too many levels of symbolic links"},
		{"other owner", func(t *testing.T, path string) error {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			if err := write(16, 0o400)(t, path); err != nil {
				return err
			}
			return os.Chown(path, 12345, -1)
		}, "must belong to uid 0, belongs to 12345"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			if err := tt.make(t, p.master); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), p.crypto, p.dir, p.master); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMasterGoneOrWrong(t *testing.T) {
	p := newPlace(t)
	mustCreate(t, p.open(t), "k", KindSM4)
	if err := os.Remove(p.master); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), p.crypto, p.dir, p.master); err == nil || !strings.Contains(err.Error(), "1 keys in "+p.dir+" are sealed under it: put it back") {
		t.Errorf("Open without master key = %v, want a refusal to start anew", err)
	}
	if _, err := os.Lstat(p.master); err == nil {
		t.Error("a new master key was made over existing keys")
	}
	if err := os.WriteFile(p.master, make([]byte, 16), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), p.crypto, p.dir, p.master); err == nil || !strings.Contains(err.Error(), "opens none of the 1 keys") {
		t.Errorf("Open with a wrong master key = %v, want a refusal", err)
	}
}

func TestMasterFirstStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "master.key")
	var wg sync.WaitGroup
	keys := make([][]byte, 8)
	for i := range keys {
		wg.Go(func() {
			if err := createMaster(path); err != nil {
				t.Errorf("createMaster = %v", err)
				return
			}
			var err error
			if keys[i], err = loadMaster(path); err != nil {
				t.Errorf("loadMaster = %v", err)
			}
		})
	}
	wg.Wait()
	for i := range keys {
		if !bytes.Equal(keys[i], keys[0]) {
			t.Errorf("start %d has another master key than start 0", i)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v, want the master key alone", entries, err)
	}
}

func TestFolderRefused(t *testing.T) {
	p := newPlace(t)
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), p.crypto, p.dir, p.master); err == nil || !strings.Contains(err.Error(), "must be a folder of mode 0700") {
		t.Errorf("Open(folder of mode 0755) = %v, want a refusal", err)
	}
}

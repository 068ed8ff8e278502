package smallfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xinghuo-edge/xinghuo/pkg/internal/smallfile"
)

func TestRead(t *testing.T) {
	const limit = 8
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("whole", "12345678"), link); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want, fault string }{
		{"empty", file("empty", ""), "", ""},
		{"at the limit", file("whole", "12345678"), "12345678", ""},
		{"through a link", link, "12345678", ""},
		{"above the limit", file("big", "123456789a"), "", "must be at most 8 bytes, is 10"},
		{"of no told size", "/proc/self/status", "", "must be at most 8 bytes"},
		{"endless", "/dev/zero", "", "must be a regular file, is D"},
		{"pipe that nobody writes to", fifo, "", "must be a regular file, is p"},
		{"folder", dir, "", "must be a regular file, is d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := smallfile.Read(tt.path, limit)
			if string(got) != tt.want || (err != nil) != (tt.fault != "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("Read(%s) = %q, %v, want %q and an error with %q", tt.path, got, err, tt.want, tt.fault)
			}
		})
	}
	if _, err := smallfile.Read(filepath.Join(dir, "none"), limit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of a missing file = %v, want ErrNotExist", err)
	}
}

package journal

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestFullExt4 fills a real file system of 32 MB.
func TestFullExt4(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", image, mnt).CombinedOutput(); err != nil {
		t.Skipf("needs a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	balloon := filepath.Join(mnt, "balloon")
	if err := os.WriteFile(balloon, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Open(filepath.Join(mnt, "j"), Options{SegmentBytes: 1 << 20, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before umount
		if err := j.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	fillDisk(t, j, 20<<20, func() {
		if err := os.Remove(balloon); err != nil {
			t.Fatal(err)
		}
	})
}

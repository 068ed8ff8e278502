package journal

import (
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// snapshot returns the names and sums of the files of a journal, without the
// lock.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		raw, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s %d %08x\n", name, len(raw), crcOf(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

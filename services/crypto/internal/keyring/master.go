package keyring

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

const masterMode = 0o400

// loadMaster reads the master key: a regular file of exactly 16 bytes, of this
// user, with no right but the owner's to read.
func loadMaster(path string) ([]byte, error) {
	// O_NONBLOCK: a FIFO by this name must not hang the start.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open master key: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	// The open file is asked, not the name: nobody can swap it in between.
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat master key: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("master key %s: must be a regular file", path)
	}
	if mode := st.Mode & 0o7777; mode != masterMode {
		return nil, fmt.Errorf("master key %s: must have mode %#o, has %#o", path, masterMode, mode)
	}
	if uid := os.Geteuid(); st.Uid != uint32(uid) {
		return nil, fmt.Errorf("master key %s: must belong to uid %d, belongs to %d", path, uid, st.Uid)
	}
	key, err := io.ReadAll(io.LimitReader(file, driver.SM4KeySize+1))
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if len(key) != driver.SM4KeySize || st.Size != driver.SM4KeySize {
		return nil, fmt.Errorf("master key %s: must be %d bytes, is %d", path, driver.SM4KeySize, st.Size)
	}
	return key, nil
}

// masterTemp names the file that a master key is made in.
func masterTemp(path, suffix string) string {
	return filepath.Join(filepath.Dir(path), tmpPrefix+filepath.Base(path)+"-"+suffix)
}

// sweepMaster removes what a crash in createMaster left: it may be the key
// itself under a second name.
func sweepMaster(path string) error {
	left, err := filepath.Glob(masterTemp(path, "*"))
	if err != nil {
		return fmt.Errorf("sweep master key's folder: %w", err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("sweep master key's folder: %w", err)
		}
	}
	return nil
}

// createMaster makes the master key. When another process makes one at the same
// moment, the first one stays and both read it.
func createMaster(path string) error {
	key := make([]byte, driver.SM4KeySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make master key: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make master key's folder: %w", err)
	}
	tmp := masterTemp(path, rand.Text())
	defer os.Remove(tmp) //nolint:errcheck // a second name; the key stays under the first
	if err := writeNew(tmp, key, masterMode); err != nil {
		return fmt.Errorf("make master key: %w", err)
	}
	// link, unlike rename, does not replace.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make master key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("make master key: %w", err)
	}
	return nil
}

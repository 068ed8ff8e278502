package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	lockName  = "lock"
	tmpPrefix = ".tmp-" // no handle begins with a dot
	// lockWait bounds the wait for another process, which holds the lock for
	// two file writes.
	lockWait = 5 * time.Second
	lockPoll = time.Millisecond
	// maxFile caps what a wrong file may load; ours are below 80 bytes.
	maxFile = 256
)

// folder writes small files so that after a crash each is the old one or the
// new one.
type folder struct {
	path string
	// fail lets a test stop a write after any step, as a crash would.
	fail func(step string) error
}

func openFolder(path string) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("open key folder: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key folder %s: must be a folder of mode 0700, is %v", path, info.Mode())
	}
	// The folder's own name must last too, or the keys in it do not.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("open key folder: %w", err)
	}
	return &folder{path: path}, nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// read returns a file of ours. It follows no link.
func (f *folder) read(name string) ([]byte, error) {
	file, err := os.OpenFile(f.file(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("read %s: must be at most %d bytes", name, maxFile)
	}
	return data, err
}

// write puts a file in place. The caller holds the lock. After an error the
// file is the old one or the new one.
func (f *folder) write(name string, data []byte) error {
	tmp := f.file(tmpPrefix + name)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.step("create", func() error { return writeNew(tmp, data, 0o600) }); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.step("rename", func() error { return os.Rename(tmp, f.file(name)) }); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.step("sync", func() error { return syncDir(f.path) }); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (f *folder) step(name string, do func() error) error {
	if err := do(); err != nil {
		return err
	}
	if f.fail != nil {
		return f.fail(name)
	}
	return nil
}

// sweep removes what crashed writes left. The caller holds the lock.
func (f *folder) sweep() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return fmt.Errorf("read key folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.Remove(f.file(e.Name())); err != nil {
				return fmt.Errorf("sweep key folder: %w", err)
			}
		}
	}
	return nil
}

// lock keeps other processes, and other goroutines of this one, from writing.
// It gives up with the context, or after lockWait.
func (f *folder) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(f.file(lockName), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock key folder: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	// The lock belongs to this open file, so closing it is unlocking.
	unlock = func() { _ = file.Close() }
	patience := time.NewTimer(lockWait)
	defer patience.Stop()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock key folder: %w", err)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("lock key folder: %w", ctx.Err())
		case <-patience.C:
			return nil, fmt.Errorf("%w: key folder is locked by another process for over %v", fault.ErrUnavailable, lockWait)
		}
	}
}

// writeNew makes a file that was not there, with its mode from birth, and
// syncs it.
func writeNew(path string, data []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// syncDir makes a rename last.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

package journal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OS is the file system of the operating system.
type OS struct{}

type osFile struct{ *os.File }

// MkdirAll makes folders with mode 0750.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o750) }

// List returns the names of what is in dir and is no folder.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Create makes a file with mode 0640.
func (OS) Create(name string) (File, error) {
	return wrap(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640))
}

// Open opens a file for reading and writing.
func (OS) Open(name string) (File, error) { return wrap(os.OpenFile(name, os.O_RDWR, 0)) }

// OpenRead opens a file for reading.
func (OS) OpenRead(name string) (File, error) { return wrap(os.Open(name)) }

// wrap keeps a nil *os.File from becoming a File that is not nil.
func wrap(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename renames.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove removes.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir calls fsync(2) on the folder.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock calls flock(2). The lock is the kernel's, so it ends with kill -9 too.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	err = ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Sync() error {
	return ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// Allocate calls fallocate(2), and writes zeros where the file system has none.
func (f osFile) Allocate(size int64) error {
	err := ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	at, err := f.Size()
	for err == nil && at < size {
		var n int
		n, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		at += int64(n)
	}
	return err
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

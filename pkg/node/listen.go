package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	dirMode    = 0o750
	socketMode = 0o660
)

// ErrRunning is a service of which another process is the owner.
var ErrRunning = errors.New("already running")

// socket is a listening unix socket that is its service's one owner for as
// long as it is open.
type socket struct {
	*net.UnixListener
	lock *os.File
	path string
	once sync.Once
}

// listen takes <dir>/<service>.sock. The socket has mode 0660 from birth and
// appears by a rename, so that nobody sees it half made and a stale file of a
// dead process is taken over. A lock beside it keeps a second owner out.
func listen(dir, service string) (*socket, error) {
	if err := makeRunDir(dir); err != nil {
		return nil, fmt.Errorf("make run folder: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, service+".lock"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, service+".sock")
	ln, err := bind(path)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &socket{UnixListener: ln, lock: lock, path: path}, nil
}

func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner := make([]byte, 20)
		n, _ := lock.ReadAt(owner, 0)
		_ = lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%w: %s is held by pid %s", ErrRunning, path, owner[:n])
	}
	// The pid is for people; the lock itself is the kernel's.
	if err := errors.Join(lock.Truncate(0), writeAt(lock, strconv.Itoa(os.Getpid()))); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("write lock: %w", err)
	}
	return lock, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// bind listens under a temporary name and renames it into place. The mode is
// set on the socket before it has a name (bind(2) takes it from there, less the
// umask) and made whole before anyone knows the name. Setting the umask instead
// would touch every file that the process makes meanwhile.
func bind(path string) (*net.UnixListener, error) {
	temp := path + "." + strconv.Itoa(os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }), err)
	}}
	ln, err := lc.Listen(context.Background(), "unix", temp)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	ul := ln.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // the name is ours to remove: it is not the one that was bound
	if err := place(temp, path); err != nil {
		_ = ul.Close()
		_ = os.Remove(temp)
		return nil, fmt.Errorf("name socket: %w", err)
	}
	return ul, nil
}

func place(temp, path string) error {
	if err := os.Chmod(temp, socketMode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// makeRunDir makes the folder with its exact mode, whatever the umask. One that
// is there keeps the mode that its owner gave it.
func makeRunDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, dirMode); {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(dir, dirMode)
}

// Close stops listening and removes the socket's name. The lock stays with the
// process until release: while open calls drain, no second owner may start on
// the same state. grpc.Server closes its listeners more than once.
func (s *socket) Close() error {
	var err error
	s.once.Do(func() {
		_ = os.Remove(s.path)
		err = s.UnixListener.Close()
	})
	return err
}

// release lets the next owner in. The lock file stays: removing it would race
// with a process that has it open and waits.
func (s *socket) release() { _ = s.lock.Close() }

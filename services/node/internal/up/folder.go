package up

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	dirMode  = 0o750
	fileMode = 0o640
	// lockFile marks a folder as up's own, and is locked while one runs.
	lockFile = "up.lock"
	// keepFile says that the folder is to stay.
	keepFile = "keep"
)

// parts are what up makes in its folder, and removes again.
var parts = []string{"run", "state", "etc", "log"}

// folder is where everything of one node is. It is this process's as long as
// it is open.
type folder struct {
	path string
	lock *os.File
	made bool // up made it, and may remove it
}

func (f *folder) sub(elem ...string) string {
	return filepath.Join(append([]string{f.path}, elem...)...)
}

// openFolder makes or takes a folder. In a temp folder that everyone writes to,
// another user may have put something under the name: only a real folder of
// this user's own is taken, and only one that is empty or an earlier up's.
func openFolder(path string, keep bool) (*folder, error) {
	for range 10 { // an ending up may remove it between two steps
		f, err := tryFolder(path)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("take folder %s: %w", path, err)
		}
		if err := f.fill(keep); err != nil {
			_ = f.lock.Close()
			return nil, fmt.Errorf("fill folder %s: %w", path, err)
		}
		return f, nil
	}
	return nil, fmt.Errorf("take folder %s: %w", path, errGone)
}

var errGone = errors.New("it was removed meanwhile")

func tryFolder(path string) (*folder, error) {
	made := false
	switch err := os.Mkdir(path, dirMode); {
	case err == nil:
		made = true
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errGone
	}
	if !info.IsDir() {
		return nil, errors.New("it is not a folder (a symbolic link is not followed); choose another by --dir")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("it belongs to uid %d, not to uid %d; choose another by --dir", st.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("others may write to it, its mode is %04o; chmod it to 0750", info.Mode().Perm())
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	lockPath := filepath.Join(path, lockFile)
	if _, err := os.Lstat(lockPath); err != nil && len(entries) > 0 {
		return nil, errors.New("it holds files that are not up's; choose a new or empty one by --dir")
	}
	lock, err := os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner := make([]byte, 20)
		n, _ := lock.ReadAt(owner, 0)
		_ = lock.Close()
		return nil, fmt.Errorf("another `xinghuo up` runs in it (pid %s); stop it, or choose another by --dir", owner[:n])
	}
	if !sameFile(lock, lockPath) {
		_ = lock.Close()
		return nil, errGone
	}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, strconv.Itoa(os.Getpid()))); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &folder{path: path, lock: lock, made: made}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func sameFile(f *os.File, path string) bool {
	a, aerr := f.Stat()
	b, berr := os.Stat(path)
	return aerr == nil && berr == nil && os.SameFile(a, b)
}

func (f *folder) fill(keep bool) error {
	for _, p := range parts {
		if err := os.MkdirAll(f.sub(p), dirMode); err != nil {
			return err
		}
	}
	if keep {
		return os.WriteFile(f.sub(keepFile), nil, fileMode)
	}
	return nil
}

func (f *folder) kept() bool {
	_, err := os.Lstat(f.sub(keepFile))
	return err == nil
}

// close gives the folder back, and removes what up made unless it is kept. The
// sockets' folder goes in any case.
func (f *folder) close() error {
	defer func() { _ = f.lock.Close() }()
	if f.kept() {
		return os.RemoveAll(f.sub("run"))
	}
	var errs []error
	for _, p := range append(parts, lockFile) {
		errs = append(errs, os.RemoveAll(f.sub(p)))
	}
	// An empty folder that was there before is as good as one that up made:
	// it is left only if it holds something else, or is the user's own.
	if f.made || isDefault(f.path) {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isDefault reports whether path is the folder that up takes by itself.
func isDefault(path string) bool {
	return path == filepath.Join(os.TempDir(), "xinghuo-"+strconv.Itoa(os.Getuid()))
}

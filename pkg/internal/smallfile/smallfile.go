// Package smallfile reads files that a person wrote: small ones, whole.
package smallfile

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Read returns what is in a regular file of at most limit bytes. A device or a
// pipe under that name is refused: the one may never end, and the other keeps
// a service from starting, or from stopping, until someone writes to it.
func Read(name string, limit int64) ([]byte, error) {
	// Opening a pipe that nobody writes to would wait.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: must be a regular file, is %v", name, info.Mode())
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1)) // it may grow, and /proc tells no size
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s: size must be at most %d bytes, is %d", name, limit, max(info.Size(), int64(len(raw))))
	}
	return raw, nil
}

package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// memFS is a disk with a page cache. What is written is in the cache; Sync and
// SyncDir bring it to the disk. Crash keeps the disk and, of each sector that
// was written since its last sync, any one of the contents it has had: writes
// are dropped and reordered, and whole sectors are all it promises.
type memFS struct {
	mu      sync.Mutex
	names   map[string]*inode // as the processes see it
	durable map[string]*inode // as it is on disk
	changes []change          // of names, in order, not yet on disk
	locked  map[string]bool
	sector  int64
	limit   int64 // bytes that fit; 0 for no limit

	fail func(op, name string) error // injected errors; may be nil
}

type change struct {
	dir  string
	make func(map[string]*inode)
}

type inode struct {
	name    string
	data    []byte // as the processes see it
	disk    []byte
	pending []write
}

// write is a write or, with nil data, a change of size.
type write struct {
	off  int64
	data []byte
	size int64
}

func newMemFS(sector int64) *memFS {
	return &memFS{names: make(map[string]*inode), durable: make(map[string]*inode), locked: make(map[string]bool), sector: sector}
}

func (m *memFS) check(op, name string) error {
	if m.fail != nil {
		return m.fail(op, name)
	}
	return nil
}

func (m *memFS) rename(dir string, make func(map[string]*inode)) {
	make(m.names)
	m.changes = append(m.changes, change{dir, make})
}

func (m *memFS) MkdirAll(string) error { return nil }

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.names {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("create", name); err != nil {
		return nil, err
	}
	if n := m.names[name]; n != nil {
		n.resize(0)
		return &memFile{m, n}, nil
	}
	n := &inode{name: name}
	m.rename(path.Dir(name), func(names map[string]*inode) { names[name] = n })
	return &memFile{m, n}, nil
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{m, n}, m.check("open", name)
}

func (m *memFS) OpenRead(name string) (File, error) { return m.Open(name) }

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("rename", from); err != nil {
		return err
	}
	n := m.names[from]
	if n == nil {
		return fs.ErrNotExist
	}
	n.name = to
	m.rename(path.Dir(to), func(names map[string]*inode) {
		names[to] = n
		delete(names, from)
	})
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("remove", name); err != nil {
		return err
	}
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	m.rename(path.Dir(name), func(names map[string]*inode) { delete(names, name) })
	return nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("syncdir", dir); err != nil {
		return err
	}
	m.changes = slices.DeleteFunc(m.changes, func(c change) bool {
		if c.dir == dir {
			c.make(m.durable)
		}
		return c.dir == dir
	})
	return nil
}

type unlock func()

func (u unlock) Close() error { u(); return nil }

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, ErrLocked
	}
	m.locked[name] = true
	return unlock(func() {
		m.mu.Lock()
		delete(m.locked, name)
		m.mu.Unlock()
	}), nil
}

// used is what the files take, with m.mu held.
func (m *memFS) used() (n int64) {
	for _, i := range m.names {
		n += int64(len(i.data))
	}
	return n
}

// crash returns the disk after power loss. choose(n) picks from 0 to n-1.
func (m *memFS) crash(choose func(n int) int) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.changes[:choose(len(m.changes)+1)] {
		c.make(m.durable)
	}
	after := newMemFS(m.sector)
	after.limit = m.limit
	for _, name := range slices.Sorted(maps.Keys(m.durable)) {
		data := m.durable[name].crash(m.sector, choose)
		i := &inode{name: name, data: data, disk: slices.Clone(data)}
		after.names[name], after.durable[name] = i, i
	}
	return after
}

// crash picks for each sector how many of the writes to it came to the disk.
func (n *inode) crash(sector int64, choose func(int) int) []byte {
	out := slices.Clone(n.disk)
	touched := make(map[int64][]write)
	for _, w := range n.pending {
		if w.data == nil { // sizes come in order, as a file system's own journal has them
			if choose(2) == 1 {
				out = resized(out, w.size)
			}
			continue
		}
		for s := w.off / sector; s*sector < w.off+int64(len(w.data)); s++ {
			from, to := max(w.off, s*sector), min(w.off+int64(len(w.data)), (s+1)*sector)
			touched[s] = append(touched[s], write{off: from, data: w.data[from-w.off : to-w.off]})
		}
	}
	sectors := make([]int64, 0, len(touched))
	for s := range touched {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for _, s := range sectors {
		for _, w := range touched[s][:choose(len(touched[s])+1)] {
			if end := w.off + int64(len(w.data)); end > int64(len(out)) {
				out = resized(out, end)
			}
			copy(out[w.off:], w.data)
		}
	}
	return out
}

func resized(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func (n *inode) resize(size int64) {
	n.data = resized(n.data, size)
	n.pending = append(n.pending, write{size: size})
}

type memFile struct {
	m *memFS
	n *inode
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.check("read", f.n.name); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.check("write", f.n.name); err != nil {
		return 0, err
	}
	if end := off + int64(len(b)); end > int64(len(f.n.data)) {
		if err := f.grow(end); err != nil {
			return 0, err
		}
	}
	if len(b) == 0 {
		return 0, nil // no data is what marks a change of size
	}
	copy(f.n.data[off:], b)
	f.n.pending = append(f.n.pending, write{off: off, data: slices.Clone(b)})
	return len(b), nil
}

func (f *memFile) grow(size int64) error {
	if f.m.limit > 0 && f.m.used()+size-int64(len(f.n.data)) > f.m.limit {
		return &fs.PathError{Op: "allocate", Path: f.n.name, Err: syscall.ENOSPC}
	}
	f.n.resize(size)
	return nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Size() (int64, error) { return int64(len(f.n.data)), nil }

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.resize(size)
	return nil
}

func (f *memFile) Allocate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.check("allocate", f.n.name); err != nil {
		return err
	}
	if size <= int64(len(f.n.data)) {
		return nil
	}
	return f.grow(size)
}

// Sync brings the file to the disk. After an error anything may be on disk, the
// cache still shows all of it, and the next Sync has nothing to do: as Linux
// does it.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.check("sync", f.n.name); err != nil {
		if errors.Is(err, syscall.EIO) {
			f.n.disk, f.n.pending = f.n.crash(f.m.sector, rand.IntN), nil
		}
		return err
	}
	for _, w := range f.n.pending {
		if w.data == nil {
			f.n.disk = resized(f.n.disk, w.size)
		}
		copy(f.n.disk[min(w.off, int64(len(f.n.disk))):], w.data)
	}
	f.n.pending = f.n.pending[:0]
	return nil
}

func isSegment(name string) bool { return strings.Contains(name, segmentExt) }

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/meter"
)

// pollInterval is how soon a change of the folder is seen. Polling sees a
// rename, an overwrite, a changed link and a replaced folder alike, on every
// file system; inotify has a rule for each and loses events when it overflows.
const pollInterval = time.Second

const suffix = ".wasm"

// listing is what tells one state of the folder from another. err is in it, so
// that a folder that went away is a change too, once.
type listing struct {
	entries []entry
	err     string
}

type entry struct {
	name  string
	size  int64
	mtime time.Time
	inode uint64
}

func (l listing) equal(o listing) bool {
	return l.err == o.err && slices.EqualFunc(l.entries, o.entries, func(a, b entry) bool {
		return a.name == b.name && a.size == b.size && a.inode == b.inode && a.mtime.Equal(b.mtime)
	})
}

// list looks at the modules of a folder, in the order of their names.
func list(dir string) (listing, error) {
	var l listing
	found, err := os.ReadDir(dir) // sorted
	if err != nil {
		return listing{err: err.Error()}, fmt.Errorf("list modules: %w", err)
	}
	for _, f := range found {
		if !strings.HasSuffix(f.Name(), suffix) || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, f.Name()))
		if err != nil {
			return listing{err: err.Error()}, fmt.Errorf("list modules: %w", err)
		}
		e := entry{name: f.Name(), size: info.Size(), mtime: info.ModTime()}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			e.inode = s.Ino
		}
		l.entries = append(l.entries, e)
	}
	if len(l.entries) > MaxModules {
		err := fmt.Errorf("modules must be at most %d, are %d", MaxModules, len(l.entries))
		return listing{err: err.Error()}, err
	}
	return l, nil
}

// read reads one module. What is longer than any module may be is left unread.
func read(dir, name string) (f file, err error) {
	r, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not block us
	if err != nil {
		return file{}, fmt.Errorf("read module: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if info, err := r.Stat(); err != nil {
		return file{}, fmt.Errorf("read module: %w", err)
	} else if !info.Mode().IsRegular() {
		return file{}, fmt.Errorf("module %q: must be a regular file, is %v", name, info.Mode().Type())
	} else if info.Size() > meter.MaxBytes {
		return file{}, fmt.Errorf("module %q: size must be at most %d bytes, is %d", name, meter.MaxBytes, info.Size())
	}
	raw, err := io.ReadAll(io.LimitReader(r, meter.MaxBytes+1))
	if err != nil {
		return file{}, fmt.Errorf("read module: %w", err)
	}
	return file{name: strings.TrimSuffix(name, suffix), raw: raw}, nil
}

// Reload takes the folder's modules if it changed since the last try, and
// reports whether other modules are now in force. An error refuses the whole
// change: the modules that were in force stay.
func (e *Engine) Reload(ctx context.Context) (changed bool, err error) {
	e.reloadMu.Lock()
	defer e.reloadMu.Unlock()
	// The listing is taken before the files are read: a file that changes in
	// between differs from it at the next look and is read again.
	now, err := list(e.cfg.Dir)
	if old := e.current.Load(); old == nil || now.equal(e.seen) && (old.number > 0 || e.refused()) {
		return false, nil
	}
	e.seen = now
	if err == nil {
		err = e.swap(ctx, now)
	}
	reason := ""
	if err != nil {
		reason = err.Error()
		e.cfg.Log.WarnContext(ctx, "modules refused", "err", err)
	}
	e.infoMu.Lock()
	e.refusal = reason
	e.infoMu.Unlock()
	e.cfg.Refused(reason)
	return err == nil, err
}

func (e *Engine) refused() bool {
	e.infoMu.Lock()
	defer e.infoMu.Unlock()
	return e.refusal != ""
}

func (e *Engine) swap(ctx context.Context, l listing) error {
	files := make([]file, 0, len(l.entries))
	for _, entry := range l.entries {
		f, err := read(e.cfg.Dir, entry.name)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	old := e.current.Load()
	g, err := build(ctx, e.cfg, e.backend == "compiler", old.number+1, files, old)
	if err != nil {
		return err
	}
	e.current.Store(g)
	old.drop()
	e.cfg.Log.InfoContext(ctx, "modules in force", "generation", g.number, "modules", len(g.modules))
	return nil
}

// Watch reloads the folder whenever it changes, until ctx ends.
func (e *Engine) Watch(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = e.Reload(ctx) // a refusal is logged there and told by Info
		case <-ctx.Done():
			return nil
		}
	}
}

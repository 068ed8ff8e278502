package journal

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	cursorFolder  = "cursors"
	maxCursors    = 64
	maxCursorName = 64
)

// Cursor is a consumer's durable position. Records that every cursor has
// passed may be removed; the others are kept as long as there is room.
type Cursor struct {
	name     string
	position atomic.Uint64

	mu    sync.Mutex // guards slots
	slots *slotFile
}

// Cursor returns the cursor of a name, [a-z0-9_-]{1,64}, making it at the
// oldest record that is kept. There may be 64. Errors: fault.ErrInvalid,
// fault.ErrExhausted.
func (j *Journal) Cursor(name string) (*Cursor, error) {
	if !goodCursorName(name) {
		return nil, fault.Invalid("name", "must be 1 to %d of a-z, 0-9, _ and -, is %q", maxCursorName, name)
	}
	j.cursorsMu.Lock()
	defer j.cursorsMu.Unlock()
	if c := j.cursors[name]; c != nil {
		return c, nil
	}
	if len(j.cursors) >= maxCursors {
		return nil, fmt.Errorf("%w: at most %d cursors", fault.ErrExhausted, maxCursors)
	}
	return j.openCursor(name)
}

// openCursor opens or makes a cursor. j.cursorsMu is held, or nobody else
// knows the journal yet.
func (j *Journal) openCursor(name string) (*Cursor, error) {
	initial := [4]uint64{}
	if v := j.view.Load(); v != nil {
		initial[0] = j.First() - 1
	}
	slots, err := openSlots(j.fs, j.path(cursorFolder, name), initial)
	if err != nil {
		return nil, fmt.Errorf("cursor %s: %w", name, err)
	}
	if slots.hurt {
		j.stats.damagedSlots.Add(1)
	}
	c := &Cursor{name: name, slots: slots}
	c.position.Store(slots.values[0])
	j.cursors[name] = c
	return c, nil
}

func goodCursorName(name string) bool {
	if len(name) == 0 || len(name) > maxCursorName {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Name returns the cursor's name.
func (c *Cursor) Name() string { return c.name }

// Position returns the last sequence that was committed, 0 for none.
func (c *Cursor) Position() uint64 { return c.position.Load() }

// Commit says that all records up to sequence are delivered, and returns when
// that is on disk. A position below the one before changes nothing. It costs
// one fdatasync: commit a batch, not a record. After an error the cursor
// stands where it stood, and Commit may be called again.
func (c *Cursor) Commit(sequence uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sequence <= c.position.Load() {
		return nil
	}
	if err := c.slots.store([4]uint64{sequence}); err != nil {
		return fmt.Errorf("commit cursor %s: %w", c.name, err)
	}
	c.position.Store(sequence)
	return nil
}

// DropCursor forgets a consumer, so that records no longer wait for it.
func (j *Journal) DropCursor(name string) error {
	j.cursorsMu.Lock()
	defer j.cursorsMu.Unlock()
	c := j.cursors[name]
	if c == nil {
		return fmt.Errorf("%w: cursor %q", fault.ErrNotFound, name)
	}
	if err := j.fs.Remove(j.path(cursorFolder, name)); err != nil {
		return fmt.Errorf("drop cursor %s: %w", name, err)
	}
	delete(j.cursors, name)
	if err := c.slots.f.Close(); err != nil {
		return fmt.Errorf("drop cursor %s: %w", name, err)
	}
	if err := j.fs.SyncDir(j.path(cursorFolder)); err != nil {
		return fmt.Errorf("drop cursor %s: %w", name, err)
	}
	return nil
}

// delivered returns the sequence up to which every cursor has committed, 0
// without cursors.
func (j *Journal) delivered() uint64 {
	j.cursorsMu.Lock()
	defer j.cursorsMu.Unlock()
	if len(j.cursors) == 0 {
		return 0
	}
	lowest := uint64(math.MaxUint64)
	for _, c := range j.cursors {
		lowest = min(lowest, c.position.Load())
	}
	return lowest
}

package journal

import (
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Class is a record's priority. When there is no room, lower classes are shed
// first.
type Class uint8

// The classes, lowest first.
const (
	Sample   Class = iota // one of many readings
	Event                 // something that happened
	Alarm                 // somebody has to know
	Critical              // what has to outlive alarms
	// NumClasses is the number of classes.
	NumClasses = 4
)

// Durability is what a record has outlived when its append returns.
type Durability uint8

const (
	// Always is fdatasynced: it outlives power loss.
	Always Durability = iota
	// Interval is written: it outlives the process, and power loss once
	// Options.Interval has passed.
	Interval
	// None is in memory. It is written as soon as the disk is free, and from
	// then on as safe as Interval.
	None
)

var (
	// ErrClosed is a journal that is closed.
	ErrClosed = fmt.Errorf("%w: journal is closed", fault.ErrUnavailable)
	// ErrLocked is a journal that another process has open.
	ErrLocked = fmt.Errorf("%w: journal is open elsewhere", fault.ErrPrecondition)
	// ErrFull is no space, on the disk or below Options.MaxBytes, that may be
	// made by shedding records of the same or a lower class. It passes by
	// itself when there is space.
	ErrFull = fmt.Errorf("%w: journal is full", fault.ErrExhausted)
	// ErrWrite is a record that could not be made durable. Its sequence is not
	// used again.
	ErrWrite = fmt.Errorf("%w: journal cannot write", fault.ErrUnavailable)
)

// Options says how a journal is kept. The zero value of each field is its
// default.
type Options struct {
	// FS is the file system, OS{} by default.
	FS FS
	// SegmentBytes is the size of a segment: 64 KiB to 1 GiB, 8 MiB by default.
	SegmentBytes int64
	// MaxBytes is what all segments may take on disk: at least four segments,
	// 256 MiB by default.
	MaxBytes int64
	// MaxAge is how long records that every cursor has passed are kept; 0 is
	// as long as MaxBytes lets them be.
	MaxAge time.Duration
	// Interval is how long records of durability Interval may wait for a sync:
	// 500 ms by default.
	Interval time.Duration
	// Linger is how long a sync may wait for writers that took part in the one
	// before: up to 2 ms, 2 ms by default, negative for not at all. A lone
	// writer never waits.
	Linger time.Duration
	// OnDamage hears of each damaged range once. It is called from whoever
	// found it and must not call the journal.
	OnDamage func(Damage)

	now func() time.Time // tests set it
}

const (
	defaultSegment = 8 << 20
	minSegment     = 64 << 10
	maxSegment     = 1 << 30
	defaultBytes   = 256 << 20
	maxQueue       = 1 << 20 // bytes that wait to be written, and that wait to be synced
	maxLinger      = 2 * time.Millisecond
	probeInterval  = 250 * time.Millisecond // how often a full disk is asked again
	expireInterval = time.Minute
	maxSegments    = 1 << 14 // files; a process that is killed all day makes many small ones
)

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegment
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = max(defaultBytes, 4*o.SegmentBytes)
	}
	if o.Interval == 0 {
		o.Interval = 500 * time.Millisecond
	}
	if o.Linger == 0 {
		o.Linger = maxLinger
	}
	if o.now == nil {
		o.now = time.Now
	}
	var errs []error
	if o.SegmentBytes < minSegment || o.SegmentBytes > maxSegment {
		errs = append(errs, fault.Invalid("segment_bytes", "must be %d to %d, is %d", minSegment, maxSegment, o.SegmentBytes))
	}
	if o.MaxBytes < 4*o.SegmentBytes {
		errs = append(errs, fault.Invalid("max_bytes", "must be at least four segments, %d, is %d", 4*o.SegmentBytes, o.MaxBytes))
	}
	if o.MaxAge < 0 {
		errs = append(errs, fault.Invalid("max_age", "must not be negative, is %v", o.MaxAge))
	}
	if o.Interval < 0 {
		errs = append(errs, fault.Invalid("interval", "must not be negative, is %v", o.Interval))
	}
	if o.Linger > maxLinger {
		errs = append(errs, fault.Invalid("linger", "must be at most %v, is %v", maxLinger, o.Linger))
	}
	o.SegmentBytes &^= headerBlock - 1
	return o, errors.Join(errs...)
}

// Journal is an open journal. Its methods may be called from any goroutine.
//
// One goroutine, the committer, does everything that changes a file except
// cursors and quarantine; it alone uses the fields under "committer". Readers
// use the view, which is replaced and never changed.
type Journal struct {
	fs       FS
	dir      string
	opts     Options
	identity uint64
	epoch    uint64
	lock     io.Closer
	meta     *slotFile // committer

	view atomic.Pointer[view]

	mu        sync.Mutex // guards the queue and what follows; taken before no other lock but readersMu
	queue     []byte     // frames to be written
	written   []waiting  // completed when the queue is written
	synced    []waiting  // completed when the queue is synced
	next      uint64     // sequence of the next record
	used      int64      // offset in the active segment when the queue is written
	full      bool       // the last try to begin a segment found no room
	fullClass Class      // what that try would have shed up to
	wantQueue bool       // somebody waits for the queue to be taken
	wantClass Class      // highest class that asked for room
	wantRoom  bool       // somebody waits for a new segment
	enough    int        // length of synced at which the committer wakes from its linger
	failing   error      // why the last segment could not be begun
	closed    bool
	room      chan struct{} // closed and replaced when room was made or denied
	waiters   []*waiter     // free list

	kick chan struct{} // wakes the committer
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the committer has ended

	committer

	readersMu sync.Mutex // guards readers
	readers   map[*Reader]struct{}

	cursorsMu sync.Mutex // guards cursors and their files; before no other lock
	cursors   map[string]*Cursor

	quarantineMu sync.Mutex // guards reported and the folder
	reported     map[damageKey]struct{}

	stats counters
}

// Epoch returns the epoch of records appended from now on.
func (j *Journal) Epoch() uint64 { return j.epoch }

// Last returns the sequence of the newest record that readers can see, 0 for
// none.
func (j *Journal) Last() uint64 { return j.view.Load().last() }

// First returns the sequence of the oldest record that is kept; one above Last
// for none.
func (j *Journal) First() uint64 {
	for _, s := range j.view.Load().segments {
		if sum := s.summary(); sum.records > 0 {
			return sum.first
		}
	}
	return j.Last() + 1
}

// MaxPayload returns the longest payload, bytes.
func (j *Journal) MaxPayload() int { return int(j.queueLimit() - frameHeader - frameAlign) }

// queueLimit bounds the queue and what is written but not synced, so that both
// fit into one new segment when the old one fails.
func (j *Journal) queueLimit() int64 { return min(maxQueue, j.opts.SegmentBytes/4) }

// Close writes and syncs what is queued, seals the segment and ends the
// journal. Readers and appenders get ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		<-j.done
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	close(j.stop)
	<-j.done
	j.pokeReaders()
	err := j.closeErr
	j.cursorsMu.Lock()
	for _, c := range j.cursors {
		err = errors.Join(err, c.slots.f.Close())
	}
	j.cursorsMu.Unlock()
	return errors.Join(err, j.meta.f.Close(), j.lock.Close())
}

func (j *Journal) path(elem ...string) string { return path.Join(append([]string{j.dir}, elem...)...) }

package journal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// segment is one file of records. The committer writes it; readers open the
// file for themselves.
type segment struct {
	header
	salt     uint32
	bytes    atomic.Int64  // on disk
	readable atomic.Int64  // offset below which readers may read
	limit    atomic.Uint64 // first sequence that is not of this segment any more
	sealed   atomic.Bool
	futile   Class // shedding below it gains too little; the committer's

	mu  sync.Mutex // guards sum
	sum summary    // of what is readable, and may count records disowned by limit
}

func newSegment(h header) *segment {
	s := &segment{header: h, salt: saltOf(h.identity, h.id)}
	s.limit.Store(math.MaxUint64)
	s.readable.Store(headerBlock)
	s.sum.first, s.sum.last = h.first, h.first-1
	s.sum.end = headerBlock
	return s
}

func (s *segment) summary() summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum
}

// publish lets readers see frames, which end at end.
func (s *segment) publish(frames []byte, end int64) {
	s.mu.Lock()
	for b := frames; len(b) >= frameHeader; {
		word := le.Uint32(b[8:])
		s.sum.add(frame{class: Class(word >> 24 & (NumClasses - 1)), sequence: le.Uint64(b[16:])})
		b = b[frameSize(int(word&lengthMask)):]
	}
	s.sum.end = end
	s.mu.Unlock()
	s.readable.Store(end)
}

// view is the segments at one moment, oldest first. Nobody changes it.
type view struct{ segments []*segment }

// from returns the index of the first segment that may hold sequence or a
// later one.
func (v *view) from(sequence uint64) int {
	i, _ := slices.BinarySearchFunc(v.segments, sequence, func(s *segment, seq uint64) int {
		if s.header.first <= seq {
			return -1
		}
		return 1
	})
	return max(0, i-1)
}

func (v *view) last() uint64 {
	for i := len(v.segments) - 1; i >= 0; i-- {
		if sum := v.segments[i].summary(); sum.records > 0 {
			return min(sum.last, v.segments[i].limit.Load()-1)
		}
	}
	return 0
}

func (v *view) bytes() (n int64) {
	for _, s := range v.segments {
		n += s.bytes.Load()
	}
	return n
}

// with returns a view in which one segment is replaced: by nothing for nil, at
// the end if old is nil.
func (v *view) with(old, by *segment) *view {
	segments := make([]*segment, 0, len(v.segments)+1)
	for _, s := range v.segments {
		switch {
		case s != old:
			segments = append(segments, s)
		case by != nil:
			segments = append(segments, by)
		}
	}
	if old == nil {
		segments = append(segments, by)
	}
	return &view{segments}
}

// create makes the file of a segment and its header, durable, and allocates
// it. It leaves nothing behind when it fails.
func (j *Journal) create(h header, name string, size int64) (File, error) {
	tmp := name + ".tmp"
	f, err := j.fs.Create(tmp)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	err = f.Allocate(size)
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = j.fs.Rename(tmp, name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), f.Close(), j.fs.Remove(tmp))
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), f.Close(), j.fs.Remove(name))
	}
	return f, nil
}

// disown makes cut the first sequence that is not of this segment. published
// is what readers could see of what is disowned.
func (s *segment) disown(published []byte, cut uint64) {
	if cut == 0 {
		return
	}
	s.limit.Store(cut)
	s.mu.Lock()
	defer s.mu.Unlock()
	for class, n := range countFrames(published) {
		s.sum.counts[class] -= n
		s.sum.records -= n
	}
	s.sum.last = min(s.sum.last, cut-1)
}

// sealFile ends a segment's file behind off and returns its new size.
func sealFile(f File, s *segment, off int64, now time.Time) (int64, error) {
	sum := s.summary()
	sum.end, sum.sealed = off, now
	b := sum.encode(uint32(s.epoch))
	stamp(b, s.salt)
	size := off + int64(len(b))
	_, err := f.WriteAt(b, off)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return 0, fmt.Errorf("seal segment %d: %w", s.id, err)
	}
	s.mu.Lock()
	s.sum.sealed = now
	s.mu.Unlock()
	return size, nil
}

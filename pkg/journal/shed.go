package journal

import (
	"errors"
	"fmt"
	"time"
)

// Reason is why records were shed.
type Reason uint8

// The reasons.
const (
	ReasonBytes Reason = iota // Options.MaxBytes is reached
	ReasonDisk                // the disk is full
	numReasons
)

// String returns bytes or disk.
func (r Reason) String() string { return [numReasons]string{"bytes", "disk"}[r] }

// minGain is what rewriting a segment must free, as its share of a segment.
const minGain = 16

// shed frees something: the oldest segment that every cursor has passed, or
// else the oldest records of the lowest class up to class. False if there is
// nothing.
func (j *Journal) shed(class Class, reason Reason) bool {
	delivered := j.delivered()
	old := j.closedSegments()
	for _, s := range old {
		if sum := s.summary(); sum.records == 0 || sum.last <= delivered {
			if j.drop(s, delivered, reason) {
				return true
			}
		}
	}
	for lowest := Sample; lowest <= class; lowest++ {
		for _, s := range old {
			if lowest < s.futile || s.summary().counts[lowest] == 0 {
				continue
			}
			if j.without(s, lowest, delivered, reason) {
				return true
			}
		}
	}
	return false
}

// closedSegments returns all but the active one, oldest first.
func (j *Journal) closedSegments() []*segment {
	var old []*segment
	for _, s := range j.view.Load().segments {
		if s != j.active {
			old = append(old, s)
		}
	}
	return old
}

// expire removes what every cursor has passed and is older than MaxAge.
func (j *Journal) expire() {
	if j.opts.MaxAge == 0 || j.opts.now().Sub(j.expired) < expireInterval {
		return
	}
	j.expired = j.opts.now()
	delivered, before := j.delivered(), j.opts.now().Add(-j.opts.MaxAge)
	for _, s := range j.closedSegments() {
		sum := s.summary()
		if sum.last > delivered || !sum.closedBefore(s.created, before) {
			return
		}
		if !j.drop(s, delivered, ReasonBytes) {
			return
		}
	}
}

// closedBefore uses the time of creation for a segment that has no seal.
func (s summary) closedBefore(created, t time.Time) bool {
	if s.sealed.IsZero() {
		return created.Before(t)
	}
	return s.sealed.Before(t)
}

// drop removes a segment. What no consumer has seen of it counts as shed.
func (j *Journal) drop(s *segment, delivered uint64, reason Reason) bool {
	sum := s.summary()
	if sum.records > 0 && sum.last > delivered {
		sum.counts = j.undelivered(s, delivered)
	} else {
		sum.counts = [NumClasses]uint64{}
	}
	if err := j.fs.Remove(j.path(segmentName(s.id))); err != nil {
		j.stats.failedSheds.Add(1)
		return false
	}
	j.view.Store(j.view.Load().with(s, nil))
	j.stats.removed.Add(1)
	for class, n := range sum.counts {
		j.stats.shed[class][reason].Add(n)
	}
	return true
}

// undelivered counts the records of a segment above delivered.
func (j *Journal) undelivered(s *segment, delivered uint64) [NumClasses]uint64 {
	sum := s.summary()
	if sum.first > delivered {
		return sum.counts
	}
	var counts [NumClasses]uint64
	_ = j.walk(s, func(f found) error {
		if f.frame.sequence > delivered {
			counts[f.frame.class]++
		}
		return nil
	})
	return counts
}

// walk goes through the records of a segment and reports its damage.
func (j *Journal) walk(s *segment, record func(found) error) (err error) {
	f, err := j.fs.OpenRead(j.path(segmentName(s.id)))
	if err != nil {
		return fmt.Errorf("open segment %d: %w", s.id, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var sc scanner
	sc.reset(f, s.salt)
	limit, end := s.limit.Load(), s.readable.Load()
	for {
		before := sc.last
		switch it := sc.next(end); it.step {
		case stepRecord:
			if it.frame.sequence >= limit {
				return nil
			}
			if err := record(it); err != nil {
				return err
			}
		case stepDamage:
			j.damaged(s, &sc, it, before)
		case stepEnd, stepSeal:
			return nil
		}
	}
}

var errNoGain = errors.New("nothing to gain")

// without removes the records up to class, and all delivered ones, from a
// segment: it writes the others into the reserve, which needs no space, and
// puts that in the segment's place.
func (j *Journal) without(s *segment, class Class, delivered uint64, reason Reason) bool {
	var shed [NumClasses]uint64
	var kept []byte
	gain := s.bytes.Load() - j.opts.SegmentBytes/minGain - headerBlock - sealSize
	limit := min(j.reserved.Load()-headerBlock-sealSize, gain)
	h := s.header
	h.flags |= flagCompacted
	by := newSegment(h)
	by.limit.Store(s.limit.Load())
	err := j.walk(s, func(it found) error {
		f := it.frame
		switch {
		case f.sequence <= delivered:
		case f.class <= class:
			shed[f.class]++
		case int64(len(kept))+f.size() > limit:
			if limit == gain {
				s.futile = class + 1 // do not read it again for the same answer
			}
			return errNoGain
		default:
			kept = appendFrame(kept, f, it.payload)
		}
		return nil
	})
	if err != nil {
		return false
	}
	if len(kept) == 0 {
		return j.drop(s, delivered, reason)
	}
	by.publish(kept, headerBlock+int64(len(kept)))
	if err := j.supplant(by, kept); err != nil {
		j.stats.failedSheds.Add(1)
		return false
	}
	j.view.Store(j.view.Load().with(s, by))
	for class, n := range shed {
		j.stats.shed[class][reason].Add(n)
	}
	j.restoreReserve()
	return true
}

// supplant makes the reserve the file of a segment.
func (j *Journal) supplant(by *segment, frames []byte) (err error) {
	reserve := j.path(reserveName)
	f, err := j.fs.Open(reserve)
	if err != nil {
		return fmt.Errorf("open reserve: %w", err)
	}
	stamp(frames, by.salt)
	_, err = f.WriteAt(by.header.encode(), 0)
	if err == nil {
		_, err = f.WriteAt(frames, headerBlock)
	}
	var size int64
	if err == nil {
		size, err = sealFile(f, by, headerBlock+int64(len(frames)), j.opts.now())
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return fmt.Errorf("compact segment %d: %w", by.id, err)
	}
	if err := j.fs.Rename(reserve, j.path(segmentName(by.id))); err != nil {
		return fmt.Errorf("compact segment %d: %w", by.id, err)
	}
	by.bytes.Store(size)
	by.sealed.Store(true)
	j.reserved.Store(0)
	_ = j.fs.SyncDir(j.dir) // if it fails, power loss brings the old file back, which loses nothing
	return nil
}

const reserveName = "reserve"

// restoreReserve allocates the reserve, as much as there is room for.
func (j *Journal) restoreReserve() {
	size := j.opts.SegmentBytes
	if free := j.opts.MaxBytes - j.view.Load().bytes(); free < size {
		size = max(free, minSegment)
	}
	if j.reserved.Load() >= size {
		return
	}
	name := j.path(reserveName)
	for ; size >= minSegment; size /= 2 {
		f, err := j.fs.Create(name)
		if err != nil {
			return
		}
		err = f.Allocate(size)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			j.reserved.Store(size)
			return
		}
		_ = j.fs.Remove(name) // allocate less
	}
	j.reserved.Store(0)
}

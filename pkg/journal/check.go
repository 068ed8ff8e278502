package journal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Report is what Check found.
type Report struct {
	Identity uint64
	Epoch    uint64 // the newest
	Segments []SegmentReport
	Cursors  []CursorReport
	// Quarantined is the number of files in the quarantine folder.
	Quarantined int
	// MetaDamaged is a meta file with a damaged slot.
	MetaDamaged bool
}

// SegmentReport is what Check found of one segment.
type SegmentReport struct {
	ID          uint64
	Epoch       uint64
	Created     time.Time
	Sealed      bool
	Compacted   bool
	Bytes       int64
	Records     uint64
	First, Last uint64 // sequences, 0 without records
	Counts      [NumClasses]uint64
	Disowned    uint64 // records that a later segment has replaced
	Damage      []Damage
}

// CursorReport is one consumer's position.
type CursorReport struct {
	Name     string
	Position uint64
	Damaged  bool // one of the two slots is
}

// Damaged returns the number of damaged ranges, headers and slots; torn ends
// of segments that are not sealed do not count.
func (r Report) Damaged() (n int) {
	if r.MetaDamaged {
		n++
	}
	for _, c := range r.Cursors {
		if c.Damaged {
			n++
		}
	}
	for _, s := range r.Segments {
		for _, d := range s.Damage {
			if !d.Torn {
				n++
			}
		}
	}
	return n
}

// Records returns the number of records that can be read.
func (r Report) Records() (n uint64) {
	for _, s := range r.Segments {
		n += s.Records
	}
	return n
}

// Check reads a whole journal that nobody has open and changes nothing. It
// returns an error only for what cannot be read at all, and ErrVersion.
func Check(dir string) (Report, error) { return check(OS{}, dir, nil) }

// Dump calls visit for each record that can be read, in order, and stops at
// its first error. The payload is good during the call.
func Dump(dir string, visit func(Record) error) error {
	_, err := check(OS{}, dir, visit)
	return err
}

func check(fsys FS, dir string, visit func(Record) error) (r Report, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("check journal %s: %w", dir, err)
		}
	}()
	j := &Journal{fs: fsys, dir: dir} // for its paths
	found, err := readHeaders(fsys, dir)
	if err != nil {
		return r, err
	}
	r.Identity = found.identity
	if slices.Contains(found.others, metaName) {
		meta, err := peekSlots(fsys, j.path(metaName))
		if err != nil {
			return r, err
		}
		r.MetaDamaged = meta.hurt
		if meta.generation > 0 {
			r.Identity, r.Epoch = meta.values[0], meta.values[1]
		}
	}
	limits := make([]uint64, len(found.ids))
	limit := uint64(math.MaxUint64)
	for i := len(found.ids) - 1; i >= 0; i-- {
		limits[i] = limit
		if found.state[found.ids[i]] <= headerHurt {
			limit = min(limit, found.of[found.ids[i]].first)
		}
	}
	for i := range found.ids {
		s, err := checkSegment(j, found, i, r.Identity, limits[i], visit)
		if err != nil {
			return r, err
		}
		r.Segments = append(r.Segments, s)
		r.Epoch = max(r.Epoch, s.Epoch)
	}
	names, err := fsys.List(j.path(cursorFolder))
	if err != nil {
		return r, fmt.Errorf("list cursors: %w", err)
	}
	for _, name := range names {
		c, err := peekSlots(fsys, j.path(cursorFolder, name))
		if err != nil {
			return r, err
		}
		r.Cursors = append(r.Cursors, CursorReport{name, c.values[0], c.hurt})
	}
	names, err = fsys.List(j.path(quarantineFolder))
	r.Quarantined = len(names)
	return r, err
}

func peekSlots(fsys FS, name string) (*slotFile, error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s := &slotFile{f: f}
	if err := errors.Join(s.read(), f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return s, nil
}

func checkSegment(j *Journal, found headers, i int, identity, limit uint64, visit func(Record) error) (r SegmentReport, err error) {
	id := found.ids[i]
	h, state := found.of[id], found.state[id]
	if state > headerHurt {
		h = found.rebuild(i, identity)
	}
	r = SegmentReport{ID: id, Epoch: h.epoch, Created: h.created, Compacted: h.flags&flagCompacted != 0}
	if state != headerGood {
		r.Damage = append(r.Damage, Damage{Segment: id, Length: headerBlock, Header: true})
	}
	f, err := j.fs.OpenRead(j.path(segmentName(id)))
	if err != nil {
		return r, fmt.Errorf("open segment %d: %w", id, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if r.Bytes, err = f.Size(); err != nil {
		return r, fmt.Errorf("size of segment %d: %w", id, err)
	}
	var sc scanner
	sc.reset(f, saltOf(h.identity, id))
	var sum summary
	for {
		before := sc.last
		it := sc.next(r.Bytes)
		switch it.step {
		case stepRecord:
			if it.frame.sequence >= limit {
				r.Disowned++
				continue
			}
			sum.add(it.frame)
			if visit == nil {
				continue
			}
			if err := visit(Record{it.frame.sequence, uint64(it.frame.epoch), it.frame.class, it.payload}); err != nil {
				return r, err
			}
		case stepDamage:
			if !it.torn || before+1 < limit {
				r.Damage = append(r.Damage, Damage{Segment: id, Offset: it.from, Length: it.to - it.from, After: before, Torn: it.torn})
			}
		case stepSeal:
			r.Sealed = true
		case stepEnd:
			r.Records, r.First, r.Last, r.Counts = sum.records, sum.first, sum.last, sum.counts
			return r, nil
		}
	}
}

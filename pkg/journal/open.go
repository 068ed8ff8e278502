package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
	"syscall"
)

const metaName = "meta"

// Open opens the journal in dir, making it if there is none. Damage does not
// keep it from opening: it is set aside, counted and reported. Errors:
// ErrLocked, ErrVersion, fault.ErrInvalid for an option, and what the file
// system says when it cannot be read or written at all.
func Open(dir string, opts Options) (_ *Journal, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	j := &Journal{
		fs: opts.FS, dir: dir, opts: opts,
		room: make(chan struct{}), kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		readers: make(map[*Reader]struct{}), cursors: make(map[string]*Cursor), reported: make(map[damageKey]struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open journal %s: %w", dir, err), j.discard())
		}
	}()
	for _, d := range []string{dir, j.path(cursorFolder), j.path(quarantineFolder)} {
		if err := j.fs.MkdirAll(d); err != nil {
			return nil, err
		}
	}
	if j.lock, err = j.fs.Lock(j.path("lock")); err != nil {
		return nil, err
	}
	if err := j.recover(); err != nil {
		return nil, err
	}
	if err := j.begin(Sample); err != nil {
		if !errors.Is(err, ErrFull) {
			return nil, err
		}
		// A full disk keeps nobody from reading, and passes.
		j.used = opts.SegmentBytes
		j.full, j.fullClass, j.failing, j.wantRoom = true, Sample, err, true
	}
	go j.commit()
	return j, nil
}

// discard closes what Open had opened when it failed.
func (j *Journal) discard() (err error) {
	for _, c := range j.cursors {
		err = errors.Join(err, c.slots.f.Close())
	}
	if j.meta != nil {
		err = errors.Join(err, j.meta.f.Close())
	}
	if j.lock != nil {
		err = errors.Join(err, j.lock.Close())
	}
	return err
}

// recover brings the folder to the state that a new segment can follow. It
// writes nothing before it knows that no file is of a newer version.
func (j *Journal) recover() error {
	found, err := readHeaders(j.fs, j.dir)
	if err != nil {
		return err
	}
	identity := found.identity
	if identity == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		identity = le.Uint64(b[:]) | 1
	}
	if j.meta, err = openSlots(j.fs, j.path(metaName), [4]uint64{identity, 0, 1}); err != nil {
		return err
	}
	if j.meta.hurt {
		j.stats.damagedSlots.Add(1)
	}
	j.identity, j.epoch, j.next = j.meta.values[0], j.meta.values[1], max(1, j.meta.values[2])
	names, err := j.fs.List(j.path(cursorFolder))
	if err != nil {
		return fmt.Errorf("list cursors: %w", err)
	}
	for _, name := range names {
		if !goodCursorName(name) || len(j.cursors) >= maxCursors {
			continue
		}
		c, err := j.openCursor(name)
		if err != nil {
			return err
		}
		// Never hand out a sequence that a consumer has passed.
		j.next = max(j.next, c.Position()+1)
	}
	if err := j.loadQuarantine(); err != nil {
		return err
	}
	if err := j.loadSegments(found); err != nil {
		return err
	}
	for _, name := range found.others {
		if strings.HasSuffix(name, ".tmp") {
			if err := j.fs.Remove(j.path(name)); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	j.epoch = max(j.epoch+1, uint64(min(max(0, j.opts.now().Unix()), math.MaxUint32)))
	if err := j.meta.store([4]uint64{j.identity, j.epoch, j.next}); err != nil {
		return fmt.Errorf("store %s: %w", metaName, err)
	}
	if slices.Contains(found.others, reserveName) {
		j.adoptReserve()
	}
	j.restoreReserve()
	if err := errors.Join(j.fs.SyncDir(j.dir), j.fs.SyncDir(path.Dir(j.dir))); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

func (j *Journal) adoptReserve() {
	f, err := j.fs.Open(j.path(reserveName))
	if err != nil {
		return // restoreReserve makes another
	}
	if size, err := f.Size(); err == nil {
		j.reserved.Store(size)
	}
	_ = f.Close() // nothing was written
}

// headers is what the first blocks of all segments say.
type headers struct {
	identity uint64
	ids      []uint64
	of       map[uint64]header
	state    map[uint64]headerState
	others   []string
}

// readHeaders reads and changes nothing.
func readHeaders(fsys FS, dir string) (headers, error) {
	found := headers{of: make(map[uint64]header), state: make(map[uint64]headerState)}
	names, err := fsys.List(dir)
	if err != nil {
		return found, fmt.Errorf("list segments: %w", err)
	}
	for _, name := range names {
		id, ok := segmentID(name)
		if !ok {
			found.others = append(found.others, name)
			continue
		}
		h, state, err := readHeader(fsys, path.Join(dir, name))
		if err != nil {
			return found, err
		}
		if state == headerForeign {
			return found, fmt.Errorf("segment %d: version %d, this program reads up to %d: %w", id, h.id, version, ErrVersion)
		}
		if state <= headerHurt && h.id != id {
			state = headerBad // another segment's file under this name
		}
		if state <= headerHurt {
			found.identity = h.identity
		}
		found.ids = append(found.ids, id)
		found.of[id], found.state[id] = h, state
	}
	slices.Sort(found.ids)
	return found, nil
}

func readHeader(fsys FS, name string) (h header, state headerState, err error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return h, state, fmt.Errorf("open %s: %w", name, err)
	}
	block := make([]byte, headerBlock)
	n, err := f.ReadAt(block, 0)
	clear(block[n:])
	h, state = parseHeader(block)
	if err != nil && !errors.Is(err, io.EOF) && state == headerUnborn {
		state = headerBad // unreadable, so not known to be empty
	}
	if err := f.Close(); err != nil {
		return h, state, fmt.Errorf("close %s: %w", name, err)
	}
	return h, state, nil
}

// rebuild makes up the header of a segment from what else is known.
func (found headers) rebuild(i int, identity uint64) header {
	h := header{identity: identity, id: found.ids[i], first: 1}
	for k := i - 1; k >= 0; k-- {
		if prev := found.of[found.ids[k]]; found.state[found.ids[k]] <= headerHurt {
			h.first, h.epoch, h.created = prev.first, prev.epoch, prev.created
			break
		}
	}
	return h
}

func (j *Journal) loadSegments(found headers) error {
	v := &view{}
	segments := make([]*segment, len(found.ids))
	limit := uint64(math.MaxUint64)
	for i := len(found.ids) - 1; i >= 0; i-- {
		id := found.ids[i]
		h := found.of[id]
		if found.state[id] > headerHurt {
			h = found.rebuild(i, j.identity)
		}
		segments[i] = newSegment(h)
		segments[i].limit.Store(limit)
		if found.state[id] <= headerHurt {
			limit = min(limit, h.first)
			j.next, j.epoch = max(j.next, h.first), max(j.epoch, h.epoch)
		}
		j.lastID = max(j.lastID, id)
	}
	for i, s := range segments {
		empty, err := j.load(s, found.state[found.ids[i]])
		if err != nil {
			return err
		}
		if !empty {
			v.segments = append(v.segments, s)
		}
	}
	j.view.Store(v)
	return nil
}

// load reads a segment's seal, or all of it, and seals it. It removes one in
// which nothing is.
func (j *Journal) load(s *segment, state headerState) (empty bool, err error) {
	name := j.path(segmentName(s.id))
	f, err := j.fs.Open(name)
	if err != nil {
		return false, fmt.Errorf("open segment %d: %w", s.id, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return false, fmt.Errorf("size of segment %d: %w", s.id, err)
	}
	s.bytes.Store(size)
	if state == headerHurt || state == headerBad {
		j.report(Damage{Segment: s.id, Length: headerBlock, Header: true}, func(int64) []byte {
			b := make([]byte, headerBlock)
			n, _ := f.ReadAt(b, 0) // what can be read
			return b[:n]
		})
	}
	if sum, ok := readSeal(f, s, size); ok {
		s.adopt(sum)
		j.next = max(j.next, sum.last+1)
		return false, nil
	}
	hurt := j.scan(f, s, size)
	if s.summary().records == 0 && !hurt && state != headerBad {
		if err := j.fs.Remove(name); err != nil {
			return false, fmt.Errorf("remove empty segment %d: %w", s.id, err)
		}
		return true, nil
	}
	end := s.summary().end
	// The cut is durable before the seal is written, which otherwise could be
	// torn over what was torn before.
	if err := errors.Join(f.Truncate(end), f.Sync()); err != nil {
		return false, fmt.Errorf("cut segment %d: %w", s.id, err)
	}
	s.bytes.Store(end)
	if size, err = sealFile(f, s, end, j.opts.now()); err == nil {
		s.bytes.Store(size)
	} else if !errors.Is(err, syscall.ENOSPC) { // the next open scans it again
		j.stats.distrusted.Add(1)
	}
	s.sealed.Store(true)
	return false, nil
}

// adopt believes a seal.
func (s *segment) adopt(sum summary) {
	s.sum = sum
	s.readable.Store(sum.end)
	s.sealed.Store(true)
}

func readSeal(f io.ReaderAt, s *segment, size int64) (summary, bool) {
	var b [sealSize]byte
	if size < headerBlock+sealSize {
		return summary{}, false
	}
	if n, _ := f.ReadAt(b[:], size-sealSize); n < sealSize {
		return summary{}, false
	}
	sum, ok := parseSeal(b[:], s.salt)
	return sum, ok && sum.end == size-sealSize
}

// scan reads a segment that has no seal, up to its limit, and sets aside what
// is damaged. True if anything was.
func (j *Journal) scan(f io.ReaderAt, s *segment, size int64) (hurt bool) {
	var sc scanner
	sc.reset(f, s.salt)
	sum := s.summary()
	limit := s.limit.Load()
	defer func() {
		s.sum = sum
		s.readable.Store(sum.end)
	}()
	for {
		before := sc.last
		it := sc.next(size)
		switch it.step {
		case stepRecord:
			j.next, j.epoch = max(j.next, it.frame.sequence+1), max(j.epoch, uint64(it.frame.epoch))
			if it.frame.sequence < limit {
				sum.add(it.frame)
				sum.end = it.to
			}
		case stepDamage:
			if it.torn && before+1 >= limit {
				continue // disowned, so no loss
			}
			if it.torn {
				j.stats.torn.Add(1)
				j.stats.tornBytes.Add(uint64(it.to - it.from))
			}
			if !it.torn || !it.tail {
				hurt = true
				d := Damage{Segment: s.id, Offset: it.from, Length: it.to - it.from, After: before, Torn: it.torn}
				j.report(d, func(n int64) []byte { return sc.at(it.from, int(n), it.to) })
			}
		case stepEnd, stepSeal:
			return hurt
		}
	}
}

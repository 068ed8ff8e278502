package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Record is a record read.
type Record struct {
	// Sequence and Epoch together name the record for good.
	Sequence, Epoch uint64
	Class           Class
	// Payload is good until the reader's next call.
	Payload []byte
}

// Reader reads records in order of sequence. It is for one goroutine; several
// readers disturb neither each other nor the writers.
type Reader struct {
	j     *Journal
	next  uint64 // lowest sequence still wanted
	after uint64 // id of the last segment that was left
	seg   *segment
	file  File
	scan  scanner
	ready chan struct{}
}

// Read returns a reader whose first record is the oldest one kept at or above
// sequence. Close it.
func (j *Journal) Read(sequence uint64) *Reader {
	r := &Reader{j: j, next: sequence, ready: make(chan struct{}, 1)}
	j.readersMu.Lock()
	j.readers[r] = struct{}{}
	j.readersMu.Unlock()
	return r
}

// Next returns the next record and waits for one if need be. Damage is stepped
// over. Errors: ctx's, ErrClosed once all is read.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	for {
		rec, ok, err := r.TryNext()
		if ok || err != nil {
			return rec, err
		}
		select {
		case <-r.j.done:
			// What the last flush published is still to be read.
			if rec, ok, err := r.TryNext(); ok || err != nil {
				return rec, err
			}
			return Record{}, ErrClosed
		default:
		}
		select {
		case <-r.ready:
		case <-r.j.done:
		case <-ctx.Done():
			return Record{}, fmt.Errorf("read journal: %w", ctx.Err())
		}
	}
}

// TryNext returns the next record, false if there is none yet.
func (r *Reader) TryNext() (Record, bool, error) {
	for {
		if r.seg == nil {
			if ok, err := r.open(); !ok || err != nil {
				return Record{}, false, err
			}
		}
		end := r.seg.readable.Load()
		before := r.scan.last
		it := r.scan.next(end)
		switch it.step {
		case stepRecord:
			if it.frame.sequence >= r.seg.limit.Load() {
				if !r.leave() {
					r.scan.off = it.from // not replaced yet: the new segment is about to come
					r.scan.last = before
					return Record{}, false, nil
				}
				continue
			}
			if it.frame.sequence < r.next {
				continue
			}
			r.next = it.frame.sequence + 1
			return Record{it.frame.sequence, uint64(it.frame.epoch), it.frame.class, it.payload}, true, nil
		case stepDamage:
			r.j.damaged(r.seg, &r.scan, it, before)
		case stepSeal: // readable ends before it, unless the seal's own place was misread
		case stepEnd:
			if r.seg.readable.Load() == end && !r.leave() {
				return Record{}, false, nil
			}
		}
	}
}

// open opens the segment that holds the next record; false if there is none.
func (r *Reader) open() (bool, error) {
	for {
		v := r.j.view.Load()
		i := v.from(r.next)
		for ; i < len(v.segments); i++ {
			s := v.segments[i]
			if s.id > r.after && (s.summary().last >= r.next || i == len(v.segments)-1) {
				break
			}
		}
		if i >= len(v.segments) {
			return false, nil
		}
		s := v.segments[i]
		f, err := r.j.fs.OpenRead(r.j.path(segmentName(s.id)))
		if errors.Is(err, fs.ErrNotExist) && i < len(v.segments)-1 {
			r.after = s.id // it was shed just now
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open segment %d: %w", s.id, err)
		}
		r.seg, r.file = s, f
		r.scan.reset(f, s.salt)
		return true, nil
	}
}

// leave closes the segment if another follows it; false if none does. It also
// returns true, and stays, when more was published before the other began.
func (r *Reader) leave() bool {
	v := r.j.view.Load()
	if n := len(v.segments); n == 0 || v.segments[n-1].id <= r.seg.id {
		return false
	}
	if r.scan.off < r.seg.readable.Load() && r.scan.last < r.seg.limit.Load() {
		return true
	}
	r.after = r.seg.id
	_ = r.file.Close() // it was only read
	r.seg, r.file = nil, nil
	return true
}

// Close lets go of the reader's file.
func (r *Reader) Close() error {
	r.j.readersMu.Lock()
	delete(r.j.readers, r)
	r.j.readersMu.Unlock()
	if r.file == nil {
		return nil
	}
	f := r.file
	r.seg, r.file = nil, nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close reader: %w", err)
	}
	return nil
}

// pokeReaders wakes the readers that wait.
func (j *Journal) pokeReaders() {
	j.readersMu.Lock()
	defer j.readersMu.Unlock()
	for r := range j.readers {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

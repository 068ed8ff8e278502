package journal

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// makeRoom begins a new segment if somebody waits for one. While there is no
// room it tries when it is due, or for a higher class than the try before.
func (j *Journal) makeRoom() {
	j.mu.Lock()
	want, class := j.wantRoom, j.wantClass
	if want && j.full && class <= j.fullClass && time.Since(j.probed) < probeInterval {
		want = false
	}
	j.mu.Unlock()
	if !want {
		return
	}
	j.probed = time.Now()
	j.flush(true) // the old segment is durable before the new one is begun
	err := j.begin(class)
	j.mu.Lock()
	j.full, j.failing = err != nil, err
	j.fullClass = class
	if err == nil {
		j.wantRoom, j.wantClass = false, Sample
	}
	j.announceRoom()
	j.mu.Unlock()
}

// begin makes a new segment the active one and seals the old. It sheds records
// up to class for it; ErrFull if that is not enough. The old one stays active
// on error.
func (j *Journal) begin(class Class) error {
	h := header{identity: j.identity, id: j.nextID(), epoch: j.epoch, created: j.opts.now()}
	j.mu.Lock()
	h.first = j.next
	if first := firstSequence(j.queue); first != 0 {
		h.first = first
	}
	j.mu.Unlock()
	if j.cut != 0 {
		h.first = j.cut
	}
	f, err := j.createWithRoom(h, class)
	if err != nil {
		return err
	}
	if j.active != nil {
		if err := j.seal(); err != nil {
			j.stats.distrusted.Add(1) // it stays as it is: what is in it was synced
		}
	}
	s := newSegment(h)
	s.bytes.Store(j.opts.SegmentBytes)
	j.active, j.file, j.off, j.zeroed = s, f, headerBlock, headerBlock
	j.view.Store(j.view.Load().with(nil, s))
	j.mu.Lock()
	j.used = headerBlock + int64(len(j.queue))
	j.mu.Unlock()
	j.stats.segments.Add(1)
	j.pokeReaders()
	return nil
}

func (j *Journal) nextID() uint64 {
	id := j.lastID + 1
	j.lastID = id
	return id
}

func (j *Journal) createWithRoom(h header, class Class) (File, error) {
	for {
		reason := ReasonBytes
		v := j.view.Load()
		if len(v.segments) < maxSegments && v.bytes()+j.reserved.Load()+j.opts.SegmentBytes <= j.opts.MaxBytes {
			f, err := j.create(h, j.path(segmentName(h.id)), j.opts.SegmentBytes)
			if err == nil {
				return f, nil
			}
			if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
				return nil, fmt.Errorf("%w: begin segment %d: %w", ErrWrite, h.id, err)
			}
			reason = ReasonDisk
		}
		if !j.shed(class, reason) {
			return nil, fmt.Errorf("%w: begin segment %d: nothing left to shed up to class %d", ErrFull, h.id, class)
		}
	}
}

// seal ends the active segment. All records of it are synced before.
func (j *Journal) seal() error {
	s, f := j.active, j.file
	j.active, j.file = nil, nil
	size, err := sealFile(f, s, j.off, j.opts.now())
	if err == nil {
		s.bytes.Store(size)
		s.sealed.Store(true)
	}
	return errors.Join(err, f.Close())
}

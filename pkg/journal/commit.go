package journal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// zeros are written ahead; see Preallocation in the package's text.
var zeros [256 << 10]byte

// committer is the state of the goroutine that writes. It is the leader of
// every group: what queues up while it syncs is the next group.
type committer struct {
	active  *segment // nil after a failure, until the next segment is begun
	file    File
	off     int64 // end of what is written
	zeroed  int64 // end of what was written as zeros
	held    []byte
	dirty   time.Time // since when held is not empty
	probed  time.Time // when a segment was last asked for
	expired time.Time // when MaxAge was last looked at
	cut     uint64    // first sequence of what failed and is in no segment; 0 for nothing
	group   int       // completions of the last sync
	pace    time.Duration

	spareQueue                []byte
	spareWritten, spareSynced []waiting
	reserved                  atomic.Int64 // bytes of the reserve file
	lastID                    uint64       // of the newest segment
	closeErr                  error
}

func (j *Journal) commit() {
	defer close(j.done)
	timer := time.NewTimer(j.opts.Interval)
	defer timer.Stop()
	linger := time.NewTimer(time.Hour)
	defer linger.Stop()
	for {
		select {
		case <-j.kick:
		case <-timer.C:
		case <-j.stop:
			j.closeErr = j.finish()
			return
		}
		j.linger(linger)
		j.flush(len(j.held) > 0 && time.Since(j.dirty) >= j.opts.Interval)
		j.makeRoom()
		j.expire()
		timer.Reset(j.nextDue())
	}
}

// nextDue is when something is to be done that nobody asks for.
func (j *Journal) nextDue() time.Duration {
	d := expireInterval
	if len(j.held) > 0 {
		d = j.opts.Interval - time.Since(j.dirty)
	}
	j.mu.Lock()
	if j.full {
		d = min(d, probeInterval-time.Since(j.probed))
	}
	j.mu.Unlock()
	return max(0, d)
}

// linger waits for the writers of the group before: they have just been told
// and are about to come back. It waits no longer than half a sync takes, since
// more would cost more than the sync that it saves.
func (j *Journal) linger(timer *time.Timer) {
	limit := min(j.opts.Linger, j.pace/2)
	if j.group < 2 || limit <= 0 {
		return
	}
	j.mu.Lock()
	waiting := len(j.synced)
	if waiting == 0 || waiting >= j.group {
		j.mu.Unlock()
		return
	}
	j.enough = j.group
	j.mu.Unlock()
	timer.Reset(limit)
	for waiting < j.group {
		select {
		case <-j.kick:
			j.mu.Lock()
			waiting = len(j.synced)
			j.mu.Unlock()
			continue
		case <-timer.C:
		case <-j.stop:
		}
		break
	}
	j.mu.Lock()
	j.enough = 0
	j.mu.Unlock()
}

// flush writes the queue, and syncs if a record of it asks for it, force is
// set, or too much is written without sync.
func (j *Journal) flush(force bool) {
	j.mu.Lock()
	out, written, synced := j.queue, j.written, j.synced
	j.queue, j.written, j.synced = j.spareQueue[:0], j.spareWritten[:0], j.spareSynced[:0]
	if j.wantQueue {
		j.wantQueue = false
		j.announceRoom()
	}
	j.mu.Unlock()

	sync := force || len(synced) > 0 || int64(len(j.held)+len(out)) > j.queueLimit()
	var err error
	if len(out) > 0 || sync && len(j.held) > 0 {
		err = j.store(out, written, sync)
		if err == nil {
			written = written[:0] // store has told them
		}
	}
	complete(written, err)
	complete(synced, err)
	if sync {
		j.group = len(synced)
	}
	j.spareQueue, j.spareWritten, j.spareSynced = out, written[:0], synced[:0]
}

func complete(owed []waiting, err error) {
	for i := range owed {
		owed[i].to.Complete(owed[i].sequence, err)
	}
	clear(owed)
}

// store puts out behind the active segment, or with all that is not synced
// into a new one if the disk refuses. The completions of written are told as
// soon as out is written.
func (j *Journal) store(out []byte, written []waiting, sync bool) error {
	if j.active == nil {
		return j.replace(out, errors.New("no segment"))
	}
	err := j.write(out, sync)
	if err != nil {
		if err := j.replace(out, err); err != nil {
			return err
		}
		complete(written, nil)
		return nil
	}
	if !sync {
		if len(j.held) == 0 {
			j.dirty = time.Now()
		}
		j.held = append(j.held, out...)
		j.active.publish(out, j.off)
		j.pokeReaders()
		complete(written, nil)
		return nil
	}
	complete(written, nil)
	if err := j.sync(); err != nil {
		return j.replace(out, err)
	}
	j.active.publish(out, j.off)
	j.pokeReaders()
	return nil
}

func (j *Journal) write(out []byte, sync bool) error {
	stamp(out, j.active.salt)
	if len(out) > 0 {
		if _, err := j.file.WriteAt(out, j.off); err != nil {
			return fmt.Errorf("write segment %d: %w", j.active.id, err)
		}
	}
	j.off += int64(len(out))
	if sync && j.off+int64(len(zeros))/2 > j.zeroed && j.zeroed < j.opts.SegmentBytes {
		from := max(j.zeroed, (j.off+headerBlock-1)&^(headerBlock-1))
		to := min(from+int64(len(zeros)), j.opts.SegmentBytes)
		if to > from {
			if _, err := j.file.WriteAt(zeros[:to-from], from); err != nil {
				return fmt.Errorf("write ahead in segment %d: %w", j.active.id, err)
			}
			j.zeroed = to
		}
	}
	return nil
}

func (j *Journal) sync() error {
	start := time.Now()
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %d: %w", j.active.id, err)
	}
	took := time.Since(start)
	j.pace += (took - j.pace) / 8
	j.stats.syncs.Add(1)
	j.stats.syncNanos.Add(int64(took))
	j.held = j.held[:0]
	return nil
}

// replace gives up the active segment after an error of write or sync, for
// good, and writes what it may not have kept, and out, to a new one.
func (j *Journal) replace(out []byte, cause error) error {
	first := firstSequence(j.held)
	if first == 0 {
		first = firstSequence(out)
	}
	frames := append(j.held, out...)
	if j.cut == 0 || first != 0 && first < j.cut {
		j.cut = first
	}
	if j.active != nil {
		j.stats.distrusted.Add(1)
		j.active.disown(j.held, first)
		j.abandon()
	}
	for range 2 {
		err := j.begin(highestClass(frames))
		if err != nil {
			cause = errors.Join(cause, err)
			break
		}
		if err = j.write(frames, true); err == nil {
			err = j.sync()
		}
		if err == nil {
			j.active.publish(frames, j.off)
			j.held, j.cut = frames[:0], 0
			j.pokeReaders()
			return nil
		}
		cause = errors.Join(cause, err)
		j.cut = j.active.header.first
		j.stats.distrusted.Add(1)
		j.active.disown(nil, j.cut)
		j.abandon()
	}
	j.held = frames[:0]
	for class, n := range countFrames(frames) {
		j.stats.lost[class].Add(n)
	}
	kind := ErrWrite
	if errors.Is(cause, ErrFull) || errors.Is(cause, syscall.ENOSPC) {
		kind = ErrFull
	}
	err := fmt.Errorf("%w: %w", kind, cause)
	j.mu.Lock()
	j.used = j.opts.SegmentBytes + int64(len(j.queue)) // nothing fits until a segment is begun
	j.full, j.fullClass, j.failing, j.wantRoom = true, Critical, err, true
	j.announceRoom()
	j.mu.Unlock()
	return err
}

// abandon lets go of the active segment without writing to it.
func (j *Journal) abandon() {
	_ = j.file.Close() // nothing is expected of it any more
	j.active, j.file = nil, nil
}

// finish is the last thing the committer does.
func (j *Journal) finish() error {
	j.flush(true)
	j.mu.Lock()
	j.announceRoom()
	next := j.next
	j.mu.Unlock()
	var err error
	if j.active != nil {
		err = j.seal()
	}
	return errors.Join(err, j.meta.store([4]uint64{j.identity, j.epoch, next}))
}

// announceRoom lets those who wait for room look again. j.mu is held.
func (j *Journal) announceRoom() {
	close(j.room)
	j.room = make(chan struct{})
}

package journal

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Completion is told what became of a submitted record. Complete runs on the
// committer: it must not block, nor call the journal.
type Completion interface {
	// Complete gets nil once the record has the durability that was asked for.
	Complete(sequence uint64, err error)
}

// nobody wants to know.
type nobody struct{}

// Complete implements Completion.
func (nobody) Complete(uint64, error) {}

// Entry is a record to append.
type Entry struct {
	Class   Class
	Payload []byte
}

// waiting is a completion that is owed.
type waiting struct {
	sequence uint64
	to       Completion
}

// waiter turns a completion into something to wait for. Waiters are used
// again, so that an append allocates nothing.
type waiter struct {
	j    *Journal
	ch   chan error
	left atomic.Bool // set by whoever is first: the committer, or a caller who gives up
}

// Complete implements Completion.
func (w *waiter) Complete(_ uint64, err error) {
	if w.left.CompareAndSwap(false, true) {
		w.ch <- err // there is room: one completion a use
		return
	}
	w.j.mu.Lock()
	w.j.waiters = append(w.j.waiters, w)
	w.j.mu.Unlock()
}

// Append appends a record and returns its sequence once it is on disk. If ctx
// ends first its error comes with the sequence, and the record may still
// become durable. Errors: ErrFull, ErrWrite, ErrClosed, fault.ErrInvalid.
func (j *Journal) Append(ctx context.Context, class Class, payload []byte) (uint64, error) {
	return j.AppendWith(ctx, Always, class, payload)
}

// AppendWith is Append with a durability of the caller's choice.
func (j *Journal) AppendWith(ctx context.Context, d Durability, class Class, payload []byte) (uint64, error) {
	if d == None {
		return j.submit(ctx, d, class, payload, nil)
	}
	w := j.waiter()
	seq, err := j.submit(ctx, d, class, payload, w)
	if err != nil {
		j.free(w)
		return 0, err
	}
	return seq, j.await(ctx, w)
}

// Submit appends a record without waiting for the disk: done, if not nil, is
// told when the record has its durability. It waits only while the queue is
// full or a segment is begun. Errors are as of Append; done is told nothing
// when Submit fails. payload is copied.
func (j *Journal) Submit(ctx context.Context, d Durability, class Class, payload []byte, done Completion) (uint64, error) {
	return j.submit(ctx, d, class, payload, done)
}

// AppendBatch appends records with consecutive sequences and one sync. It
// returns the first sequence. Together they may take MaxPayload bytes, each
// with 32 bytes of overhead. Power loss may keep some of an unfinished batch.
func (j *Journal) AppendBatch(ctx context.Context, d Durability, entries []Entry) (uint64, error) {
	size, class := int64(0), Sample
	for i := range entries {
		if err := j.check(d, entries[i].Class, entries[i].Payload); err != nil {
			return 0, fmt.Errorf("entry %d: %w", i, err)
		}
		size += frameSize(len(entries[i].Payload))
		class = max(class, entries[i].Class)
	}
	if limit := j.queueLimit(); len(entries) == 0 || size > limit {
		return 0, fault.Invalid("entries", "must be 1 to %d bytes framed, are %d", limit, size)
	}
	w := j.waiter()
	if err := j.lockWithRoom(ctx, class, size); err != nil {
		j.free(w)
		return 0, err
	}
	first := j.next
	for i := range entries {
		j.push(entries[i].Class, entries[i].Payload, payloadCRC(entries[i].Payload))
	}
	if d != None {
		j.owe(d, waiting{j.next - 1, w})
	}
	j.mu.Unlock()
	j.wake()
	if d == None {
		j.free(w)
		return first, nil
	}
	return first, j.await(ctx, w)
}

func (j *Journal) check(d Durability, class Class, payload []byte) error {
	if class >= NumClasses {
		return fault.Invalid("class", "must be below %d, is %d", NumClasses, class)
	}
	if d > None {
		return fault.Invalid("durability", "must be at most %d, is %d", None, d)
	}
	if limit := j.MaxPayload(); len(payload) > limit {
		return fault.Invalid("payload", "must be at most %d bytes, is %d", limit, len(payload))
	}
	return nil
}

func (j *Journal) submit(ctx context.Context, d Durability, class Class, payload []byte, done Completion) (uint64, error) {
	if err := j.check(d, class, payload); err != nil {
		return 0, err
	}
	crc := payloadCRC(payload) // before the lock: writers share the work
	if err := j.lockWithRoom(ctx, class, frameSize(len(payload))); err != nil {
		return 0, err
	}
	seq := j.push(class, payload, crc)
	wake := true
	if done == nil && d == Always {
		done = nobody{} // it is synced all the same
	}
	if done != nil {
		wake = j.owe(d, waiting{seq, done})
	}
	j.mu.Unlock()
	if wake {
		j.wake()
	}
	return seq, nil
}

// push queues a record and returns its sequence. j.mu is held.
func (j *Journal) push(class Class, payload []byte, crc uint32) uint64 {
	seq := j.next
	f := frame{payloadCRC: crc, length: len(payload), class: class, epoch: uint32(j.epoch), sequence: seq}
	j.queue = appendFrame(j.queue, f, payload)
	j.used += f.size()
	j.next++
	return seq
}

// owe queues a completion, and reports whether the committer is to wake. j.mu
// is held.
func (j *Journal) owe(d Durability, w waiting) bool {
	if d != Always {
		j.written = append(j.written, w)
		return true
	}
	j.synced = append(j.synced, w)
	return len(j.synced) >= j.enough
}

// lockWithRoom returns with j.mu held and room for size bytes, or with neither.
func (j *Journal) lockWithRoom(ctx context.Context, class Class, size int64) error {
	j.mu.Lock()
	for {
		if j.closed {
			j.mu.Unlock()
			return ErrClosed
		}
		fits := j.used+size+sealSize <= j.opts.SegmentBytes
		if fits && int64(len(j.queue))+size <= j.queueLimit() {
			return nil
		}
		if !fits {
			if j.full && class <= j.fullClass {
				err := j.failing
				j.wantRoom = true
				j.stats.refused[class].Add(1)
				j.mu.Unlock()
				return err
			}
			j.wantRoom, j.wantClass = true, max(j.wantClass, class)
		}
		j.wantQueue = j.wantQueue || fits
		room := j.room
		j.mu.Unlock()
		j.wake()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("wait for room in the journal: %w", ctx.Err())
		}
		j.mu.Lock()
	}
}

// await waits for a completion. A caller who gives up leaves the waiter to the
// committer.
func (j *Journal) await(ctx context.Context, w *waiter) error {
	select {
	case err := <-w.ch:
		j.free(w)
		return err
	case <-ctx.Done():
	}
	if w.left.CompareAndSwap(false, true) {
		return fmt.Errorf("wait for the journal's sync: %w", ctx.Err())
	}
	err := <-w.ch // the committer was first
	j.free(w)
	return err
}

func (j *Journal) waiter() *waiter {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.waiters)
	if n == 0 {
		return &waiter{j: j, ch: make(chan error, 1)}
	}
	w := j.waiters[n-1]
	j.waiters = j.waiters[:n-1]
	w.left.Store(false)
	return w
}

func (j *Journal) free(w *waiter) {
	j.mu.Lock()
	j.waiters = append(j.waiters, w)
	j.mu.Unlock()
}

func (j *Journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default: // it is awake
	}
}

// Sync returns once all that was appended before is on disk.
func (j *Journal) Sync(ctx context.Context) error {
	w := j.waiter()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		j.free(w)
		return ErrClosed
	}
	j.synced = append(j.synced, waiting{j.next - 1, w})
	j.mu.Unlock()
	j.wake()
	return j.await(ctx, w)
}

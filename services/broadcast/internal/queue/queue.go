// Package queue keeps a bounded queue of statuses for each device, hands them
// out in fair turns, and accounts for every one of them.
//
// A device costs no goroutine and no timer. One lock guards all of it, and
// nothing waits while holding it, so that putting a status in takes well below
// a microsecond whatever the sink does.
package queue

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bounds the queues.
type Limits struct {
	// Capacity is how many statuses a device's queue holds, the one in flight
	// included; at least 1.
	Capacity int
	// EnqueueLimit is how long a status waits for a place in a full queue. With
	// 0 it does not wait.
	EnqueueLimit time.Duration
	// MaxDevices is how many devices may have a queue.
	MaxDevices int
	// MaxBytes bounds the payloads of all queues together.
	MaxBytes int
	// Window is how many statuses of all devices may be in flight; at least 1.
	// Of one device it is never more than one, so that a redelivery cannot
	// come after a newer status.
	Window int
}

// maxWaiting bounds the statuses of one device that wait for a place. Only a
// burst is to wait; a device that keeps up this backlog is told queue_full.
const maxWaiting = 16

// keepRing is the largest ring that a device keeps when its queue is empty.
const keepRing = 4

// Queues holds the queues of all devices.
type Queues struct {
	wake chan struct{} // holds a token when Take may find something
	kick chan struct{} // holds a token when the first waiter came

	listMu sync.Mutex // guards sorted; before mu
	sorted []*device

	mu       sync.Mutex // guards what follows
	limits   Limits
	devices  map[string]*device
	all      []*device // as devices; only appended to, so that a copy of the slice stays valid
	ready    readyList
	waiting  waitList
	total    Ledger
	inFlight int
	bytes    int
	closed   bool
	empty    chan struct{} // closed when nothing is queued; nil unless WaitEmpty waits
}

// device is one device's queue: a ring of payloads, of which the first stays in
// its place while it is in flight.
type device struct {
	id        string
	ledger    Ledger
	ring      [][]byte
	head, len int

	firstWaiter, lastWaiter *waiter
	waiters                 int

	nextReady *device
	flying    bool   // the ring's head is in flight
	flight    uint64 // tells one flight from the next
}

// New returns queues with these limits.
func New(l Limits) *Queues {
	return &Queues{
		wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		limits: l, devices: make(map[string]*device),
	}
}

// Put takes a status in; it never waits. The payload belongs to the queues from
// then on. dropped counts the status when it is dropped, at once or after it
// waited for a place in vain.
func (q *Queues) Put(id string, payload []byte, dropped *atomic.Uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total.Accepted++
	d := q.devices[id]
	if d == nil {
		if len(q.devices) >= q.limits.MaxDevices {
			q.total.Dropped[TooManyDevices]++
			dropped.Add(1)
			return
		}
		d = &device{id: id}
		q.devices[id] = d
		q.all = append(q.all, d)
	}
	d.ledger.Accepted++
	d.ledger.Queued++
	q.total.Queued++
	q.bytes += len(payload)
	switch {
	case q.closed:
		q.drop(d, payload, Shutdown, dropped)
	case q.bytes > q.limits.MaxBytes:
		q.drop(d, payload, BytesFull, dropped)
	case d.len < q.limits.Capacity && d.waiters == 0:
		d.push(payload)
		if d.len == 1 {
			q.turn(d)
		}
	case d.waiters >= maxWaiting || q.limits.EnqueueLimit <= 0:
		q.drop(d, payload, QueueFull, dropped)
	default:
		q.wait(d, payload, dropped)
	}
}

// Item is a status in flight.
type Item struct {
	Device  string
	Payload []byte // not to be changed

	device *device
	flight uint64
}

// Take waits for a status and a place in the window and hands the status out.
// The devices that have one take turns. The caller answers with Done or Retry.
// The error is ctx's.
func (q *Queues) Take(ctx context.Context) (Item, error) {
	for {
		if err := ctx.Err(); err != nil {
			q.signal() // the token that this call may have used up is for the next one
			return Item{}, fmt.Errorf("take status: %w", err)
		}
		if item, ok := q.tryTake(); ok {
			return item, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

func (q *Queues) tryTake() (Item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inFlight >= q.limits.Window {
		return Item{}, false
	}
	d := q.ready.pop()
	if d == nil {
		return Item{}, false
	}
	d.flying = true
	d.flight++
	q.inFlight++
	return Item{Device: d.id, Payload: d.ring[d.head], device: d, flight: d.flight}, true
}

// Done says that the sink has confirmed a status. For an item that was answered
// before it does nothing.
func (q *Queues) Done(item Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := item.device
	if !q.land(item) {
		return
	}
	q.forget(d, d.pop())
	d.ledger.Delivered++
	q.total.Delivered++
	q.promote(d)
	q.turn(d)
	q.tellEmpty()
}

// Retry says that a status was not confirmed: it stays the first of its queue
// and is handed out again in its device's next turn.
func (q *Queues) Retry(item Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.land(item) {
		q.turn(item.device)
	}
}

// land ends a flight; false means that it had ended before.
func (q *Queues) land(item Item) bool {
	d := item.device
	if d == nil || !d.flying || d.flight != item.flight {
		return false
	}
	d.flying = false
	q.inFlight--
	return true
}

// turn gives a device a place among those that have something to send.
func (q *Queues) turn(d *device) {
	if d.len > 0 {
		q.ready.push(d)
	}
	q.signal()
}

// signal lets Take look again.
func (q *Queues) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Close drops what is queued, and what is put in afterwards, and returns how
// many it dropped.
func (q *Queues) Close() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	before := q.total.Dropped[Shutdown]
	for w := q.waiting.first; w != nil; w = q.waiting.first {
		q.unlink(w)
		q.drop(w.device, w.payload, Shutdown, w.dropped)
	}
	var uncounted atomic.Uint64
	for _, d := range q.all {
		if d.flying {
			d.flying = false
			q.inFlight--
		}
		for d.len > 0 {
			q.drop(d, d.pop(), Shutdown, &uncounted)
		}
	}
	q.ready = readyList{}
	return q.total.Dropped[Shutdown] - before
}

// WaitEmpty waits until nothing is queued. The error is ctx's.
func (q *Queues) WaitEmpty(ctx context.Context) error {
	for {
		q.mu.Lock()
		if q.total.Queued == 0 {
			q.mu.Unlock()
			return nil
		}
		if q.empty == nil {
			q.empty = make(chan struct{})
		}
		empty := q.empty
		q.mu.Unlock()
		select {
		case <-empty:
		case <-ctx.Done():
			return fmt.Errorf("wait for empty queues: %w", ctx.Err())
		}
	}
}

func (q *Queues) tellEmpty() {
	if q.total.Queued == 0 && q.empty != nil {
		close(q.empty)
		q.empty = nil
	}
}

// SetCapacity changes the capacity of every queue. A queue that holds more
// keeps what it has.
func (q *Queues) SetCapacity(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits.Capacity = n
	for _, d := range q.all {
		q.promote(d)
	}
}

// drop accounts for a status that is counted as queued and in no list.
func (q *Queues) drop(d *device, payload []byte, r Reason, dropped *atomic.Uint64) {
	q.forget(d, payload)
	d.ledger.Dropped[r]++
	q.total.Dropped[r]++
	dropped.Add(1)
	q.tellEmpty()
}

// forget takes a status out of what is queued.
func (q *Queues) forget(d *device, payload []byte) {
	d.ledger.Queued--
	q.total.Queued--
	q.bytes -= len(payload)
}

// push puts a payload at the end of a queue.
func (d *device) push(payload []byte) {
	if d.len == len(d.ring) {
		grown := make([][]byte, max(1, 2*len(d.ring)))
		n := copy(grown, d.ring[d.head:])
		copy(grown[n:], d.ring[:d.head])
		d.ring, d.head = grown, 0
	}
	d.ring[(d.head+d.len)%len(d.ring)] = payload
	d.len++
}

// pop takes the first payload from a queue.
func (d *device) pop() []byte {
	payload := d.ring[d.head]
	d.ring[d.head] = nil
	d.head = (d.head + 1) % len(d.ring)
	d.len--
	if d.len == 0 && len(d.ring) > keepRing {
		d.ring, d.head = nil, 0 // a burst is over; 100,000 idle devices are to cost little
	}
	return payload
}

// readyList holds the devices that have something to send and nothing in
// flight, in the order of their turns.
type readyList struct{ first, last *device }

func (l *readyList) push(d *device) {
	if l.last == nil {
		l.first = d
	} else {
		l.last.nextReady = d
	}
	l.last = d
}

func (l *readyList) pop() *device {
	d := l.first
	if d == nil {
		return nil
	}
	l.first = d.nextReady
	if l.first == nil {
		l.last = nil
	}
	d.nextReady = nil
	return d
}

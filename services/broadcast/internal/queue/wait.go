package queue

import (
	"context"
	"sync/atomic"
	"time"
)

// sweepEvery is the shortest time between two looks at the waiters: deadlines
// that are this near to each other are handled together.
const sweepEvery = 5 * time.Millisecond

// waiter is a status that waits for a place in its device's queue.
type waiter struct {
	device   *device
	payload  []byte
	dropped  *atomic.Uint64
	deadline time.Time

	prev, next *waiter // among all, by deadline
	nextOwn    *waiter // among its device's
}

// waitList holds the waiters of all devices, the earliest deadline first.
type waitList struct{ first, last *waiter }

func (q *Queues) wait(d *device, payload []byte, dropped *atomic.Uint64) {
	w := &waiter{device: d, payload: payload, dropped: dropped, deadline: time.Now().Add(q.limits.EnqueueLimit), prev: q.waiting.last}
	if w.prev == nil {
		q.waiting.first = w
		select {
		case q.kick <- struct{}{}:
		default: // the sweeper is woken already
		}
	} else {
		w.prev.next = w
	}
	q.waiting.last = w
	if d.lastWaiter == nil {
		d.firstWaiter = w
	} else {
		d.lastWaiter.nextOwn = w
	}
	d.lastWaiter = w
	d.waiters++
}

// unlink takes a waiter out of both lists. It must be its device's first: they
// get places, and run out of time, in their order.
func (q *Queues) unlink(w *waiter) {
	if w.prev == nil {
		q.waiting.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.waiting.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	d := w.device
	d.firstWaiter = w.nextOwn
	if d.firstWaiter == nil {
		d.lastWaiter = nil
	}
	d.waiters--
}

// promote gives a device's waiters the places that became free. Whoever calls it
// for a queue that is empty gives the device its turn.
func (q *Queues) promote(d *device) {
	if d.firstWaiter == nil {
		return
	}
	now := time.Now()
	for w := d.firstWaiter; w != nil && d.len < q.limits.Capacity; w = d.firstWaiter {
		q.unlink(w)
		if w.deadline.After(now) {
			d.push(w.payload)
		} else {
			q.drop(d, w.payload, EnqueueTimeout, w.dropped)
		}
	}
}

// SetEnqueueLimit changes how long a status waits for a place, also for those
// that wait now.
func (q *Queues) SetEnqueueLimit(limit time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits.EnqueueLimit = limit
	latest := time.Now().Add(limit)
	for w := q.waiting.last; w != nil && w.deadline.After(latest); w = w.prev {
		w.deadline = latest
	}
	select {
	case q.kick <- struct{}{}:
	default: // the sweeper is woken already
	}
}

// Sweep drops the statuses whose wait is over, until ctx ends. One timer serves
// all devices, and none runs while nothing waits.
func (q *Queues) Sweep(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.kick:
		case <-timer.C:
		}
		if pause, ok := q.expire(time.Now()); ok {
			timer.Reset(max(pause, sweepEvery))
		}
	}
}

// expire drops the waiters whose deadline has come, and returns how long the
// next one has.
func (q *Queues) expire(now time.Time) (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.waiting.first; w != nil; w = q.waiting.first {
		if left := w.deadline.Sub(now); left > 0 {
			return left, true
		}
		q.unlink(w)
		q.drop(w.device, w.payload, EnqueueTimeout, w.dropped)
	}
	return 0, false
}

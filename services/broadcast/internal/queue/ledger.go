package queue

import (
	"cmp"
	"slices"
)

// Reason says why a status was dropped.
type Reason uint8

// The reasons.
const (
	// EnqueueTimeout is a status that found its device's queue full and waited
	// the enqueue limit without getting a place.
	EnqueueTimeout Reason = iota
	// QueueFull is a status that found the places for waiting taken, too.
	QueueFull
	// TooManyDevices is a status of a device beyond the limit of devices.
	TooManyDevices
	// BytesFull is a status that would have taken the queues over their limit
	// in bytes.
	BytesFull
	// Shutdown is a status that the end of the service cut off.
	Shutdown

	reasonCount
)

var reasonNames = [reasonCount]string{"enqueue_timeout", "queue_full", "too_many_devices", "bytes_full", "shutdown"}

// String returns the reason as counters name it.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return "unknown"
}

// Drops counts dropped statuses by Reason.
type Drops [reasonCount]uint64

// Sum returns how many were dropped for any reason.
func (d Drops) Sum() uint64 {
	var sum uint64
	for _, n := range d {
		sum += n
	}
	return sum
}

// ByReason returns the counts under the reasons' names; those of zero only when
// zeros is set.
func (d Drops) ByReason(zeros bool) map[string]uint64 {
	m := make(map[string]uint64)
	for r, n := range d {
		if n > 0 || zeros {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// Ledger accounts for every status: Accepted = Delivered + Queued +
// Dropped.Sum(), at all times.
type Ledger struct {
	// Accepted counts the statuses that were put in, dropped ones included.
	Accepted uint64
	// Delivered counts those that the sink confirmed.
	Delivered uint64
	// Queued is how many are in queues, waiting for a place in one, or in
	// flight.
	Queued uint64
	// Dropped counts the others.
	Dropped Drops
}

// Stats is the whole ledger with what it costs.
type Stats struct {
	Ledger
	Devices  int // devices that have a queue
	InFlight int // statuses taken and neither done nor retried
	Bytes    int // payload bytes of the queued statuses
}

// Stats returns the ledger of all devices.
func (q *Queues) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{Ledger: q.total, Devices: len(q.devices), InFlight: q.inFlight, Bytes: q.bytes}
}

// Device is the ledger of one device.
type Device struct {
	Ledger
	ID       string
	Capacity int
}

// List returns up to size devices with ids after the given one, ordered by id,
// and whether there are more.
func (q *Queues) List(after string, size int) (page []Device, more bool) {
	q.listMu.Lock()
	defer q.listMu.Unlock()
	// Sorting happens outside mu: with 100,000 devices it takes long enough to
	// be felt by those who put statuses in.
	q.mu.Lock()
	all := q.all
	q.mu.Unlock()
	if len(q.sorted) != len(all) {
		q.sorted = slices.Clone(all)
		slices.SortFunc(q.sorted, func(a, b *device) int { return cmp.Compare(a.id, b.id) })
	}
	from, found := slices.BinarySearchFunc(q.sorted, after, func(d *device, id string) int { return cmp.Compare(d.id, id) })
	if found {
		from++
	}
	rest := q.sorted[from:]
	more = len(rest) > size
	rest = rest[:min(size, len(rest))]

	page = make([]Device, 0, len(rest))
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range rest {
		page = append(page, Device{Ledger: d.ledger, ID: d.id, Capacity: q.limits.Capacity})
	}
	return page, more
}

package fleet

import "time"

// backlog is a meter's readings between measuring and acknowledgement. Only
// their times are kept: what a reading says follows from its sequence.
type backlog struct {
	ring   []entry // by sequence modulo its length, a power of two
	window uint64  // entries at most; 0 before the first Welcome

	// acked ≤ written ≤ measured, all sequences.
	acked    uint64 // the node answers for it
	written  uint64 // handed to the present connection
	measured uint64
}

type entry struct {
	at       int64         // Unix ns of its measuring
	sent     time.Duration // when it was first sent, on the meter's clock
	rejected bool
}

func (b *backlog) at(sequence uint64) *entry { return &b.ring[sequence&uint64(len(b.ring)-1)] }

// open is the state of the backlog at a Welcome. A node that has forgotten the
// session acknowledges less than before: what it acknowledged once is its own.
func (b *backlog) open(window uint64) {
	b.window = window
	b.written = b.acked
}

// room is how many readings may be sent now.
func (b *backlog) room() uint64 {
	inFlight := b.written - b.acked
	if inFlight >= b.window {
		return 0
	}
	return b.window - inFlight
}

// measure adds a reading and returns its sequence.
func (b *backlog) measure(at int64, sent time.Duration) uint64 {
	if held := b.measured - b.acked; held == uint64(len(b.ring)) {
		b.grow(max(16, 2*held))
	}
	b.measured++
	*b.at(b.measured) = entry{at: at, sent: sent}
	return b.measured
}

func (b *backlog) grow(size uint64) {
	old := backlog{ring: b.ring}
	b.ring = make([]entry, size)
	for s := b.acked + 1; s <= b.measured; s++ {
		*b.at(s) = *old.at(s)
	}
}

// reject marks a reading that is in flight; it reports whether it is new.
func (b *backlog) reject(sequence uint64) bool {
	if sequence <= b.acked || sequence > b.measured {
		return false
	}
	e := b.at(sequence)
	was := e.rejected
	e.rejected = true
	return !was
}

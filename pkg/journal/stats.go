package journal

import (
	"sync/atomic"
	"time"
)

// counters are what happened since the journal was opened.
type counters struct {
	syncs, segments, removed             atomic.Uint64
	syncNanos                            atomic.Int64
	distrusted, failedSheds              atomic.Uint64
	damaged, damagedBytes, unquarantined atomic.Uint64
	torn, tornBytes, damagedSlots        atomic.Uint64
	refused, lost                        [NumClasses]atomic.Uint64
	shed                                 [NumClasses][numReasons]atomic.Uint64
}

// Stats is the journal in numbers. What happened is counted since it was
// opened.
type Stats struct {
	Epoch       uint64
	First, Last uint64 // sequences that are kept; Last is below First for none
	Delivered   uint64 // sequence that every cursor has passed
	Segments    int    // files
	Bytes       int64  // on disk, with the reserve
	Queued      int    // bytes that wait to be written
	Full        bool   // no room for a new segment at the last try

	Syncs       uint64
	SyncTime    time.Duration // sum
	Begun       uint64        // segments begun
	Removed     uint64        // segments removed
	Distrusted  uint64        // segments given up after an error of write or sync
	FailedSheds uint64        // segments that could not be removed or rewritten

	Damaged       uint64 // ranges, each counted once
	DamagedBytes  uint64
	DamagedSlots  uint64 // cursors, or meta, with a damaged slot when opened
	Unquarantined uint64 // damaged ranges that could not be kept
	Torn          uint64 // ranges that power loss kept from being written
	TornBytes     uint64

	Refused [NumClasses]uint64            // appends that got ErrFull or ErrWrite for want of room
	Lost    [NumClasses]uint64            // records whose write or sync failed
	Shed    [NumClasses]map[string]uint64 // records that no consumer had seen, by Reason
}

// Stats returns the numbers of this moment.
func (j *Journal) Stats() Stats {
	v := j.view.Load()
	c := &j.stats
	s := Stats{
		Epoch: j.epoch, First: j.First(), Last: j.Last(), Delivered: j.delivered(),
		Segments: len(v.segments), Bytes: v.bytes() + j.reserved.Load(),
		Syncs: c.syncs.Load(), SyncTime: time.Duration(c.syncNanos.Load()),
		Begun: c.segments.Load(), Removed: c.removed.Load(),
		Distrusted: c.distrusted.Load(), FailedSheds: c.failedSheds.Load(),
		Damaged: c.damaged.Load(), DamagedBytes: c.damagedBytes.Load(), DamagedSlots: c.damagedSlots.Load(),
		Unquarantined: c.unquarantined.Load(), Torn: c.torn.Load(), TornBytes: c.tornBytes.Load(),
	}
	for class := range NumClasses {
		s.Refused[class], s.Lost[class] = c.refused[class].Load(), c.lost[class].Load()
		s.Shed[class] = make(map[string]uint64, numReasons)
		for r := range numReasons {
			s.Shed[class][r.String()] = c.shed[class][r].Load()
		}
	}
	j.mu.Lock()
	s.Queued, s.Full = len(j.queue), j.full
	j.mu.Unlock()
	return s
}

// Package latency counts durations in few bytes, so that a load generator can
// time every reading without becoming the load.
package latency

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// subBits sets the resolution: a bucket is at most 1/32 of its value wide,
	// so that a percentile is at most 3.1 % off.
	subBits = 5
	sub     = 1 << subBits
	// buckets reaches 2^37 µs, 38 hours; what is longer counts there.
	buckets = (38 - subBits) * sub
)

// Histogram counts durations. Its zero value is ready, and all its methods may
// be called at the same time.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Uint64 // µs
	max    atomic.Uint64 // µs
}

// Record counts one duration, to the microsecond; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	us := uint64(max(d, 0) / time.Microsecond)
	h.counts[bucket(us)].Add(1)
	h.sum.Add(us)
	for {
		old := h.max.Load()
		if us <= old || h.max.CompareAndSwap(old, us) {
			return
		}
	}
}

// Counts returns what has been recorded so far.
func (h *Histogram) Counts() *Counts {
	c := &Counts{sum: h.sum.Load(), max: h.max.Load()}
	for i := range h.counts {
		n := h.counts[i].Load()
		c.counts[i] = n
		c.total += n
	}
	return c
}

// Counts is the state of a Histogram at one moment.
type Counts struct {
	counts [buckets]uint64
	total  uint64
	sum    uint64
	max    uint64
}

// Total returns how many durations were recorded.
func (c *Counts) Total() uint64 { return c.total }

// Since returns what was recorded after earlier, an older state of the same
// histogram. Its maximum is that of its highest bucket.
func (c *Counts) Since(earlier *Counts) *Counts {
	d := &Counts{sum: c.sum - earlier.sum}
	for i := range c.counts {
		if n := c.counts[i] - earlier.counts[i]; n > 0 {
			d.counts[i] = n
			d.total += n
			d.max = min(upper(i), c.max)
		}
	}
	return d
}

// Percentile returns the duration that p percent of the recorded ones do not
// exceed, 0 for an empty state. p is 0 to 100.
func (c *Counts) Percentile(p float64) time.Duration {
	if c.total == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(p/100*float64(c.total))))
	var seen uint64
	for i, n := range c.counts {
		if seen += n; seen >= rank {
			return time.Duration(min(upper(i), c.max)) * time.Microsecond
		}
	}
	return c.Max()
}

// Max returns the longest duration.
func (c *Counts) Max() time.Duration { return time.Duration(c.max) * time.Microsecond }

// Mean returns the average duration, 0 for an empty state.
func (c *Counts) Mean() time.Duration {
	if c.total == 0 {
		return 0
	}
	return time.Duration(c.sum/c.total) * time.Microsecond
}

// bucket numbers are linear below 2*sub and logarithmic above.
func bucket(us uint64) int {
	if us < sub {
		return int(us)
	}
	shift := bits.Len64(us) - subBits - 1
	return min(shift*sub+int(us>>shift), buckets-1)
}

// upper is the largest value of a bucket.
func upper(i int) uint64 {
	if i < 2*sub {
		return uint64(i)
	}
	shift := i/sub - 1
	return uint64(i-shift*sub+1)<<shift - 1
}

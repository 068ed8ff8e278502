package ledger

import (
	"math/bits"
	"sync"
	"time"
)

// Latency is a histogram of the last 5 to 10 s. Its buckets grow by a sixteenth
// (a log-linear histogram, as HdrHistogram's), so a quantile is at most 6.25 %
// above the truth. The zero value is ready.
type Latency struct {
	mu     sync.Mutex // guards what follows
	counts [2][buckets]uint32
	turn   int
	turned time.Time
}

const (
	subBuckets = 16
	// buckets reach 2^36 µs, which no acknowledgement takes.
	buckets = 33 * subBuckets
	turn    = 5 * time.Second
)

func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	exp := bits.Len64(us) - 5 // us>>exp is 16 to 31
	return min((exp+1)*subBuckets+int(us>>exp)-subBuckets, buckets-1)
}

// upper returns the largest value of a bucket.
func upper(b int) uint64 {
	if b < subBuckets {
		return uint64(b)
	}
	exp := b/subBuckets - 1
	return (uint64(b%subBuckets)+subBuckets+1)<<exp - 1
}

// Observe counts n acknowledgements that took d at the moment now.
func (l *Latency) Observe(now time.Time, d time.Duration, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	l.counts[l.turn][bucketOf(uint64(max(d, 0).Microseconds()))] += uint32(n)
}

func (l *Latency) advance(now time.Time) {
	switch age := now.Sub(l.turned); {
	case age < turn:
	case age < 2*turn:
		l.turn = 1 - l.turn
		clear(l.counts[l.turn][:])
		l.turned = l.turned.Add(turn)
	default:
		clear(l.counts[0][:])
		clear(l.counts[1][:])
		l.turned = now
	}
}

// Quantiles returns the quantiles of the last 5 to 10 s; 0 when nothing was
// observed.
func (l *Latency) Quantiles(now time.Time, qs ...float64) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	var total uint64
	for b := range buckets {
		total += uint64(l.counts[0][b]) + uint64(l.counts[1][b])
	}
	out := make([]time.Duration, len(qs))
	for i, q := range qs {
		rank, seen := uint64(q*float64(total)), uint64(0)
		for b := range buckets {
			seen += uint64(l.counts[0][b]) + uint64(l.counts[1][b])
			if seen > rank {
				out[i] = time.Duration(upper(b)) * time.Microsecond
				break
			}
		}
	}
	return out
}

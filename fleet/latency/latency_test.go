package latency

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPercentilesAreWithinTheResolution(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	all := make([]time.Duration, 20_000)
	for i := range all {
		all[i] = time.Duration(rng.ExpFloat64()*3000) * time.Microsecond
		h.Record(all[i])
	}
	slices.Sort(all)
	c := h.Counts()
	for _, p := range []float64{0, 50, 90, 99, 99.9, 100} {
		exact := all[max(0, int(p/100*float64(len(all)))-1)]
		got := c.Percentile(p)
		if got < exact || float64(got) > float64(exact)*(1+1.0/sub)+float64(time.Microsecond) {
			t.Errorf("Percentile(%v) = %v, want %v to 1/%d above", p, got, exact, sub)
		}
	}
	if got, want := c.Max(), all[len(all)-1]; got != want {
		t.Errorf("Max() = %v, want %v", got, want)
	}
	if got := c.Total(); got != uint64(len(all)) {
		t.Errorf("Total() = %d, want %d", got, len(all))
	}
}

func TestEveryBucketHoldsItsUpperBound(t *testing.T) {
	for i := range buckets {
		if got := bucket(upper(i)); got != i {
			t.Errorf("bucket(upper(%d)=%d) = %d, want %d", i, upper(i), got, i)
		}
		if i > 0 && bucket(upper(i-1)+1) != i {
			t.Errorf("bucket(%d) = %d, want %d", upper(i-1)+1, bucket(upper(i-1)+1), i)
		}
	}
}

func TestSince(t *testing.T) {
	var h Histogram
	h.Record(time.Second)
	before := h.Counts()
	h.Record(time.Millisecond)
	h.Record(-time.Millisecond)
	h.Record(1000 * time.Hour)
	got := h.Counts().Since(before)
	if got.Total() != 3 || got.Percentile(50) < time.Millisecond || got.Percentile(50) > 1032*time.Microsecond {
		t.Errorf("Since: total %d, median %v; want 3, 1ms", got.Total(), got.Percentile(50))
	}
	if empty := before.Since(before); empty.Percentile(99) != 0 || empty.Mean() != 0 {
		t.Errorf("an empty state has P99 %v and mean %v, want 0 and 0", empty.Percentile(99), empty.Mean())
	}
}

package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func limits() Limits {
	return Limits{Capacity: 2, EnqueueLimit: 200 * time.Millisecond, MaxDevices: 3, MaxBytes: 1 << 20, Window: 2}
}

// bubble runs f with fake time and the sweeper beside it.
func bubble(t *testing.T, l Limits, f func(t *testing.T, q *Queues)) {
	synctest.Test(t, func(t *testing.T) {
		q := New(l)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return q.Sweep(ctx) })
		f(t, q)
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("Sweep = %v, want nil", err)
		}
	})
}

func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func put(q *Queues, id string, n uint64) *atomic.Uint64 {
	var dropped atomic.Uint64
	q.Put(id, binary.BigEndian.AppendUint64(nil, n), &dropped)
	return &dropped
}

func take(t *testing.T, q *Queues) Item {
	t.Helper()
	item, ok := q.tryTake()
	if !ok {
		t.Fatal("nothing to take")
	}
	return item
}

func TestWaitsThenDrops(t *testing.T) {
	bubble(t, limits(), func(t *testing.T, q *Queues) {
		put(q, "a", 1)
		put(q, "a", 2)
		third := put(q, "a", 3)
		advance(199 * time.Millisecond)
		if got := third.Load(); got != 0 {
			t.Errorf("dropped before the limit = %v, want 0", got)
		}
		q.Done(take(t, q)) // the third gets the place
		fourth := put(q, "a", 4)
		advance(100 * time.Millisecond)
		fifth := put(q, "a", 5)
		advance(120 * time.Millisecond)
		if fourth.Load() != 1 || fifth.Load() != 0 {
			t.Errorf("dropped = %v, %v, want the older waiter only", fourth.Load(), fifth.Load())
		}
		want := Ledger{Accepted: 5, Delivered: 1, Queued: 3, Dropped: Drops{EnqueueTimeout: 1}}
		if got := q.Stats().Ledger; got != want {
			t.Errorf("ledger = %+v, want %+v", got, want)
		}
	})
}

func TestRefusesAtOnce(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Limits)
		puts   int
		device func(i int) string
		want   Drops
	}{
		{"queue full", func(*Limits) {}, 2 + maxWaiting + 3, func(int) string { return "a" }, Drops{QueueFull: 3}},
		{"no wait", func(l *Limits) { l.EnqueueLimit = 0 }, 5, func(int) string { return "a" }, Drops{QueueFull: 3}},
		{"devices", func(*Limits) {}, 5, func(i int) string { return fmt.Sprint(i) }, Drops{TooManyDevices: 2}},
		{"bytes", func(l *Limits) { l.MaxBytes = 17 }, 3, func(i int) string { return fmt.Sprint(i) }, Drops{BytesFull: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := limits()
			tt.change(&l)
			q := New(l)
			for i := range tt.puts {
				put(q, tt.device(i), uint64(i))
			}
			if got := q.Stats().Dropped; got != tt.want {
				t.Errorf("dropped = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTakesTurns(t *testing.T) {
	l := limits()
	l.Capacity, l.Window = 100, 1
	q := New(l)
	for i := range 50 {
		put(q, "noisy", uint64(i))
	}
	put(q, "calm", 1)
	put(q, "stuck", 1)
	var order []string
	for range 6 {
		item := take(t, q)
		order = append(order, item.Device)
		if item.Device == "stuck" {
			q.Retry(item)
		} else {
			q.Done(item)
		}
	}
	if got, want := fmt.Sprint(order), "[noisy calm stuck noisy stuck noisy]"; got != want {
		t.Errorf("order = %v, want %v", got, want)
	}
}

func TestOneFlightADevice(t *testing.T) {
	q := New(limits())
	put(q, "a", 1)
	put(q, "a", 2)
	first := take(t, q)
	if item, ok := q.tryTake(); ok {
		t.Fatalf("took %v while %v is in flight", item, first)
	}
	q.Retry(first)
	again := take(t, q)
	q.Done(first) // an answer that comes late
	if got := q.Stats(); got.Delivered != 0 || got.InFlight != 1 {
		t.Errorf("stats = %+v, want the late answer ignored", got)
	}
	if binary.BigEndian.Uint64(again.Payload) != 1 {
		t.Errorf("took %x again, want the first", again.Payload)
	}
	q.Done(again)
	q.Done(again)
	if got := q.Stats().Delivered; got != 1 {
		t.Errorf("delivered = %v, want 1", got)
	}
}

func TestTakeGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(limits())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var g errgroup.Group
		g.Go(func() error { _, err := q.Take(ctx); return err })
		synctest.Wait()
		put(q, "a", 1) // wakes the taker, which may see the end of its context first
		cancel()
		err := g.Wait()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Take = %v, want context.Canceled", err)
		}
		if err != nil { // then its token goes to the next
			if _, err := q.Take(t.Context()); err != nil {
				t.Errorf("next Take = %v, want nil", err)
			}
		}
	})
}

func TestLiveLimits(t *testing.T) {
	bubble(t, limits(), func(t *testing.T, q *Queues) {
		for i := range 4 {
			put(q, "a", uint64(i))
		}
		q.SetCapacity(3)
		put(q, "a", 4)
		q.SetEnqueueLimit(10 * time.Millisecond)
		advance(20 * time.Millisecond)
		want := Ledger{Accepted: 5, Queued: 3, Dropped: Drops{EnqueueTimeout: 2}}
		if got := q.Stats().Ledger; got != want {
			t.Errorf("ledger = %+v, want %+v", got, want)
		}
	})
}

func TestCloseAndWaitEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(limits())
		for i := range 4 {
			put(q, "a", uint64(i))
		}
		item := take(t, q)
		var g errgroup.Group
		g.Go(func() error { return q.WaitEmpty(t.Context()) })
		synctest.Wait()
		if got := q.Close(); got != 4 {
			t.Errorf("Close = %v, want 4", got)
		}
		if err := g.Wait(); err != nil {
			t.Errorf("WaitEmpty = %v, want nil", err)
		}
		q.Done(item)
		put(q, "b", 1)
		want := Ledger{Accepted: 5, Dropped: Drops{Shutdown: 5}}
		if got := q.Stats(); got.Ledger != want || got.InFlight != 0 || got.Bytes != 0 {
			t.Errorf("stats = %+v, want %+v", got, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Take after Close = %v, want nothing until the deadline", err)
		}
	})
}

func TestList(t *testing.T) {
	l := limits()
	l.MaxDevices = 100
	q := New(l)
	for _, id := range []string{"c", "a", "e", "b"} {
		put(q, id, 1)
	}
	page, more := q.List("", 3)
	if len(page) != 3 || !more || page[0].ID != "a" || page[2].ID != "c" {
		t.Errorf("List = %v, %v, want a to c and more", page, more)
	}
	put(q, "d", 1)
	page, more = q.List("c", 3)
	if len(page) != 2 || more || page[0].ID != "d" || page[0].Accepted != 1 || page[0].Capacity != 2 {
		t.Errorf("List after c = %+v, %v, want d and e", page, more)
	}
	if page, more = q.List("bb", 1); len(page) != 1 || !more || page[0].ID != "c" {
		t.Errorf("List after bb = %v, %v, want c", page, more)
	}
}

// noDeadline hides t.Deadline, which may not be called in a synctest bubble.
type noDeadline struct{ *testing.T }

// TestLedger drives the queues at random and compares them with what a naive
// account of the same steps says.
func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(noDeadline{t}, func(rt *rapid.T) {
			l := Limits{
				Capacity:     rapid.IntRange(1, 4).Draw(rt, "capacity"),
				EnqueueLimit: time.Duration(rapid.IntRange(0, 50).Draw(rt, "limit")) * time.Millisecond,
				MaxDevices:   3, MaxBytes: rapid.SampledFrom([]int{100, 1 << 20}).Draw(rt, "bytes"),
				Window: rapid.IntRange(1, 3).Draw(rt, "window"),
			}
			q := New(l)
			ctx, cancel := context.WithCancel(t.Context())
			var g errgroup.Group
			g.Go(func() error { return q.Sweep(ctx) })
			defer func() { cancel(); _ = g.Wait() }()

			var sequence, accepted, delivered uint64
			var dropped atomic.Uint64
			var flying []Item
			last := make(map[string]uint64)
			device := rapid.SampledFrom([]string{"a", "b", "c", "d"})
			rt.Repeat(map[string]func(*rapid.T){
				"put": func(rt *rapid.T) {
					sequence++
					accepted++
					q.Put(device.Draw(rt, "device"), binary.BigEndian.AppendUint64(nil, sequence), &dropped)
				},
				"take": func(rt *rapid.T) {
					item, ok := q.tryTake()
					if !ok {
						return
					}
					for _, f := range flying {
						if f.Device == item.Device {
							rt.Fatalf("two of %s in flight", item.Device)
						}
					}
					flying = append(flying, item)
				},
				"done": func(rt *rapid.T) {
					if len(flying) == 0 {
						return
					}
					i := rapid.IntRange(0, len(flying)-1).Draw(rt, "flight")
					item := flying[i]
					flying = append(flying[:i:i], flying[i+1:]...)
					if n := binary.BigEndian.Uint64(item.Payload); n <= last[item.Device] {
						rt.Fatalf("%s: %d delivered after %d", item.Device, n, last[item.Device])
					} else {
						last[item.Device] = n
					}
					q.Done(item)
					delivered++
				},
				"retry": func(rt *rapid.T) {
					if len(flying) > 0 {
						q.Retry(flying[0])
						flying = flying[1:]
					}
				},
				"time":     func(rt *rapid.T) { advance(time.Duration(rapid.IntRange(1, 60).Draw(rt, "ms")) * time.Millisecond) },
				"capacity": func(rt *rapid.T) { q.SetCapacity(rapid.IntRange(1, 4).Draw(rt, "capacity")) },
				"limit": func(rt *rapid.T) {
					q.SetEnqueueLimit(time.Duration(rapid.IntRange(0, 50).Draw(rt, "limit")) * time.Millisecond)
				},
				"": func(rt *rapid.T) {
					synctest.Wait() // the accounts below are taken one after the other; the sweeper may not come between
					s := q.Stats()
					if s.Accepted != accepted || s.Delivered != delivered || s.Dropped.Sum() != dropped.Load() ||
						s.Accepted != s.Delivered+s.Queued+s.Dropped.Sum() || s.InFlight != len(flying) || s.InFlight > l.Window {
						rt.Fatalf("stats = %+v, accepted %d, delivered %d, dropped %d, flying %d", s, accepted, delivered, dropped.Load(), len(flying))
					}
					sum := Ledger{Accepted: s.Dropped[TooManyDevices], Dropped: Drops{TooManyDevices: s.Dropped[TooManyDevices]}}
					page, _ := q.List("", 10)
					for _, d := range page {
						if d.Accepted != d.Delivered+d.Queued+d.Dropped.Sum() {
							rt.Fatalf("%s: ledger = %+v", d.ID, d.Ledger)
						}
						sum.Accepted += d.Accepted
						sum.Delivered += d.Delivered
						sum.Queued += d.Queued
						for r, n := range d.Dropped {
							sum.Dropped[r] += n
						}
					}
					if sum != s.Ledger {
						rt.Fatalf("devices sum up to %+v, total is %+v", sum, s.Ledger)
					}
					if s.Bytes != int(8*s.Queued) {
						rt.Fatalf("bytes = %d, want %d", s.Bytes, 8*s.Queued)
					}
				},
			})
			// Whatever happened, all that is queued can still be had.
			for _, f := range flying {
				q.Retry(f)
			}
			for q.Stats().Queued > 0 {
				item, ok := q.tryTake()
				if !ok {
					rt.Fatalf("stats = %+v, and nothing to take", q.Stats())
				}
				q.Done(item)
			}
		})
	})
}

package ledger_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ledger"
)

func TestLedgerBalances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := ledger.New()
		open := 0
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.IntRange(0, 64).Draw(t, "n")
				l.Take(n, rapid.IntRange(0, 3).Draw(t, "duplicates"))
				open += n
			},
			"done": func(t *rapid.T) {
				n := rapid.IntRange(0, open).Draw(t, "n")
				rejected := rapid.IntRange(0, n).Draw(t, "rejected")
				l.Done(n-rejected, rejected)
				open -= n
			},
			"drop": func(t *rapid.T) {
				n := rapid.IntRange(0, open).Draw(t, "n")
				l.Drop("shutdown", n)
				open -= n
			},
			"": func(t *rapid.T) {
				f := l.Figures()
				if got := f.Delivered + f.Rejected + f.InFlight + f.Dropped["shutdown"]; got != f.Received || f.InFlight != uint64(open) {
					t.Fatalf("received %d, accounted for %d; in flight %d, want %d", f.Received, got, f.InFlight, open)
				}
			},
		})
	})
}

func TestLatencyQuantiles(t *testing.T) {
	start := time.Now()
	var l ledger.Latency
	for us := 1; us <= 10000; us++ {
		l.Observe(start, time.Duration(us)*time.Microsecond, 1)
	}
	for i, q := range l.Quantiles(start, 0.5, 0.99) {
		want := []time.Duration{5000 * time.Microsecond, 9900 * time.Microsecond}[i]
		if q < want || q > want+want/16 {
			t.Errorf("quantile %d = %v, want %v to %v", i, q, want, want+want/16)
		}
	}
	if got := l.Quantiles(start.Add(7*time.Second), 0.5)[0]; got == 0 {
		t.Error("after 7 s the median is 0, want the last turn still in it")
	}
	if got := l.Quantiles(start.Add(30*time.Second), 0.5)[0]; got != 0 {
		t.Errorf("after 30 s of silence the median is %v, want 0", got)
	}
	l.Observe(start.Add(31*time.Second), 1000*time.Hour, 1)
	if got := l.Quantiles(start.Add(31*time.Second), 0.5)[0]; got < time.Hour {
		t.Errorf("median of one absurd value = %v, want over an hour", got)
	}
}

func TestLatencyForgetsAfterTenSeconds(t *testing.T) {
	start := time.Now()
	var l ledger.Latency
	l.Observe(start, time.Second, 1)
	l.Observe(start.Add(9900*time.Millisecond), time.Millisecond, 1)
	if got := l.Quantiles(start.Add(9950*time.Millisecond), 0.99)[0]; got < time.Second {
		t.Errorf("quantile after 9.95 s = %v, want the first second still in it", got)
	}
	if got := l.Quantiles(start.Add(10100*time.Millisecond), 0.99)[0]; got > 2*time.Millisecond {
		t.Errorf("quantile after 10.1 s = %v, want the first second forgotten", got)
	}
}

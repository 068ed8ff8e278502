package supervise

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	type end struct {
		life    time.Duration
		pause   time.Duration
		looping bool
	}
	const ms = time.Millisecond
	tests := []struct {
		name string
		ends []end
	}{
		{"short lives double, then loop", []end{
			{0, 100 * ms, false},
			{time.Second, 200 * ms, false},
			{0, 400 * ms, false},
			{0, 800 * ms, false},
			{0, maxPause, true},
			{0, maxPause, true},
			{0, maxPause, true},
			{shortLife, settledPause, false}, // it worked for a while: no loop any more
			{0, settledPause, false},
		}},
		{"killed again and again while it works", []end{
			{3 * time.Second, 100 * ms, false},
			{3 * time.Second, 100 * ms, false},
			{3 * time.Second, 100 * ms, false},
			{3 * time.Second, 100 * ms, false},
			{3 * time.Second, 100 * ms, false},
			{3 * time.Second, 100 * ms, false},
		}},
		{"a long life forgets", []end{
			{0, 100 * ms, false},
			{0, 200 * ms, false},
			{longLife, 100 * ms, false},
			{0, 100 * ms, false},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b backoff
			now := time.Now()
			for i, e := range tt.ends {
				now = now.Add(e.life)
				pause, looping := b.after(now, e.life)
				if pause != e.pause || looping != e.looping {
					t.Errorf("end %d: after(life %v) = %v, %v, want %v, %v", i, e.life, pause, looping, e.pause, e.looping)
				}
				now = now.Add(pause)
			}
		})
	}
}

func TestBackoffLoopsOnlyWithinTheWindow(t *testing.T) {
	var b backoff
	now := time.Now()
	for i := range 20 {
		now = now.Add(loopWindow / 3)
		if _, looping := b.after(now, time.Second); looping {
			t.Fatalf("end %d counts as a crash loop, at one each %v", i, loopWindow/3)
		}
	}
}

func TestRefusedConfig(t *testing.T) {
	tests := []struct {
		exit   Exit
		served bool
		want   bool
	}{
		{Exit{Code: 2, Output: "bad configuration of ingest, 1 fault(s):\n  window: must be 1 to 4096, is 0"}, false, true},
		{Exit{Code: 2}, false, true},
		{Exit{Code: 2}, true, false},
		{Exit{Code: 1, Output: "bad configuration"}, false, false},
		{Exit{Code: 2, Output: "panic: runtime error\n\ngoroutine 1 [running]:"}, false, false},
		{Exit{Code: 2, Output: "main.main()\n\tx.go:1 +0x1"}, false, false},
		{Exit{Code: -1}, false, false},
	}
	for _, tt := range tests {
		if got := refusedConfig(tt.exit, tt.served); got != tt.want {
			t.Errorf("refusedConfig(%+v, %v) = %v, want %v", tt.exit, tt.served, got, tt.want)
		}
	}
}

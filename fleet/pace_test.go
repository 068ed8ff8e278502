package fleet

import (
	"testing"
	"time"
)

// TestPaceKeepsItsSchedule wakes when it is told to, now and then late, and
// counts.
func TestPaceKeepsItsSchedule(t *testing.T) {
	epoch := time.Now()
	tests := []struct {
		name  string
		rate  float64
		batch int
		tick  time.Duration
		late  time.Duration // of each 10th wake-up
		wakes int           // a second, at most
	}{
		{"slower than the tick", 50, 1, 10 * time.Millisecond, 0, 51},
		{"faster than the tick", 250, 1, 10 * time.Millisecond, 0, 101},
		{"an odd rate", 242.1875, 1, 10 * time.Millisecond, 3 * time.Millisecond, 101},
		{"no tick", 250, 1, 0, 2 * time.Millisecond, 251},
		{"batches", 400, 8, 10 * time.Millisecond, 0, 51},
		{"late ones", 250, 1, 10 * time.Millisecond, 700 * time.Millisecond, 101},
		{"seldom", 0.5, 1, 10 * time.Millisecond, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPace(Options{Rate: tt.rate, Batch: tt.batch, Tick: tt.tick}, epoch, 0.5)
			const run = 100 * time.Second
			sent, wakes, now := uint64(0), 0, epoch
			for ; now.Sub(p.start) < run; wakes++ {
				frames, late := p.due(now)
				if late != 0 {
					t.Fatalf("due gave up %d frames", late)
				}
				p.take(frames)
				sent += frames
				next := p.wake(now)
				if !next.After(now) {
					t.Fatalf("wake(%v) = %v, which is no later", now.Sub(p.start), next.Sub(p.start))
				}
				if now = next; wakes%10 == 9 {
					now = now.Add(tt.late)
				}
			}
			want := tt.rate * run.Seconds() / float64(tt.batch)
			if d := float64(sent) - want; d < -1-(tt.tick+tt.late).Seconds()*tt.rate || d > 1 {
				t.Errorf("sent %d frames in %v, want %v", sent, run, want)
			}
			if limit := tt.wakes*int(run.Seconds()) + 2; wakes > limit {
				t.Errorf("woke %d times, want at most %d", wakes, limit)
			}
		})
	}
}

func TestPaceGivesUpWhatIsTooLate(t *testing.T) {
	epoch := time.Now()
	p := newPace(Options{Rate: 100, Batch: 1, Tick: time.Millisecond}, epoch, 0)
	if frames, late := p.due(epoch.Add(-time.Second)); frames != 0 || late != 0 {
		t.Errorf("before the start %d frames are due and %d given up, want none", frames, late)
	}
	frames, late := p.due(epoch.Add(10 * time.Second))
	if frames != 101 || late != 900 {
		t.Errorf("after 10 s without one %d frames are due and %d given up, want 101 and 900", frames, late)
	}
	p.take(frames)
	if frames, late := p.due(epoch.Add(10 * time.Second)); frames != 0 || late != 0 {
		t.Errorf("after these %d frames are due and %d given up, want none", frames, late)
	}
}

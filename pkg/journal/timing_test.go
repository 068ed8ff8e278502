package journal

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// afterLoss is what a disk that lost all it could has of the journal.
func afterLoss(t *testing.T, disk *memFS) map[uint64]Record {
	t.Helper()
	j, err := Open("j", Options{FS: disk.crash(func(int) int { return 0 }), SegmentBytes: minSegment})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	return all(t, j, 0)
}

func TestIntervalBoundsWhatPowerLossTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemFS(512)
		j := open(t, "j", Options{FS: disk, SegmentBytes: minSegment})
		if _, err := j.AppendWith(t.Context(), Interval, Sample, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := afterLoss(t, disk); len(got) != 0 {
			t.Errorf("records after power loss at once = %v, want none", got)
		}
		// Others that keep the committer busy do not put the sync off.
		for range 60 {
			<-time.After(10 * time.Millisecond)
			if _, err := j.AppendWith(t.Context(), None, Sample, []byte("y")); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := afterLoss(t, disk); len(got) < 40 {
			t.Errorf("%d records after 600 ms, want those of the first 500", len(got))
		}
		if s := j.Stats(); s.Syncs != 1 {
			t.Errorf("Syncs = %d, want 1", s.Syncs)
		}
	})
}

func TestSubmitAlwaysSyncsWithoutBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemFS(512)
		j := open(t, "j", Options{FS: disk, SegmentBytes: minSegment})
		if _, err := j.Submit(t.Context(), Always, Alarm, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := afterLoss(t, disk); len(got) != 1 {
			t.Errorf("records = %v, want 1", got)
		}
	})
}

func TestAppendGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemFS(512)
		j := open(t, "j", Options{FS: disk, SegmentBytes: minSegment})
		disk.fail = func(op, _ string) error {
			if op == "sync" {
				<-time.After(20 * time.Millisecond)
			}
			return nil
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			start := time.Now()
			_, err := j.Append(ctx, Sample, []byte("x"))
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Millisecond {
				t.Errorf("Append() = %v after %v, want %v after 5ms", err, took, context.DeadlineExceeded)
			}
			cancel()
		}
		start := time.Now()
		mustAppend(t, j, Sample, "y")
		if took := time.Since(start); took > 40*time.Millisecond {
			t.Errorf("Append() took %v, want the sync under way and its own", took)
		}
		if got := all(t, j, 0); len(got) != 4 {
			t.Errorf("records = %v, want 4: giving up does not take a record back", got)
		}
	})
}

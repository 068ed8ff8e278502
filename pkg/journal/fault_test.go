package journal

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// TestFailedSyncIsNeverTrustedAgain fails one sync while records wait that
// readers have seen.
func TestFailedSyncIsNeverTrustedAgain(t *testing.T) {
	for _, op := range []string{"sync", "write"} {
		t.Run(op, func(t *testing.T) {
			disk := newMemFS(512)
			j := open(t, "j", Options{FS: disk, SegmentBytes: minSegment, Interval: time.Hour})
			mustAppend(t, j, Sample, "synced")
			for range 3 {
				if _, err := j.AppendWith(t.Context(), Interval, Sample, []byte("written")); err != nil {
					t.Fatal(err)
				}
			}
			r := j.Read(1)
			defer func() { _ = r.Close() }()
			for want := range uint64(4) {
				if rec, ok, err := r.TryNext(); !ok || err != nil || rec.Sequence != want+1 {
					t.Fatalf("TryNext() = %v, %v, %v, want %d", rec, ok, err, want+1)
				}
			}
			var failed string
			disk.mu.Lock()
			disk.fail = func(o, name string) error {
				switch {
				case failed == "" && o == op && isSegment(name):
					failed = name
					return syscall.EIO
				case name == failed && o != "read" && o != "open":
					t.Errorf("%s of %s after its %s failed", o, name, op)
				}
				return nil
			}
			disk.mu.Unlock()
			if seq := mustAppend(t, j, Alarm, "after"); seq != 5 {
				t.Errorf("Append() = %d, want 5", seq)
			}
			if rec, ok, err := r.TryNext(); !ok || err != nil || rec.Sequence != 5 || string(rec.Payload) != "after" {
				t.Errorf("TryNext() = %v, %v, %v, want 5", rec, ok, err)
			}
			if got := all(t, j, 0); len(got) != 5 {
				t.Errorf("records = %v, want 5", got)
			}
			if s := j.Stats(); s.Distrusted != 1 || failed == "" {
				t.Errorf("Distrusted = %d, want 1", s.Distrusted)
			}
			disk.mu.Lock()
			disk.fail = nil
			disk.mu.Unlock()
		})
	}
}

func TestBrokenDiskIsReportedAndRecoversByItself(t *testing.T) {
	disk := newMemFS(512)
	j := open(t, "j", Options{FS: disk, SegmentBytes: minSegment})
	mustAppend(t, j, Sample, "before")
	var broken atomic.Bool
	broken.Store(true)
	disk.mu.Lock()
	disk.fail = func(op, _ string) error {
		if broken.Load() && op != "read" && op != "open" {
			return syscall.EIO
		}
		return nil
	}
	disk.mu.Unlock()
	for range 3 {
		if _, err := j.Append(t.Context(), Critical, []byte("lost")); !errors.Is(err, ErrWrite) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Append() on a broken disk = %v, want %v", err, ErrWrite)
		}
	}
	broken.Store(false)
	testkit.Eventually(t, 5*time.Second, "the journal to recover", func() bool {
		_, err := j.Append(t.Context(), Sample, []byte("after"))
		return err == nil
	})
	for seq, rec := range all(t, j, 0) {
		if string(rec.Payload) == "lost" {
			t.Errorf("record %d was reported as failed and is there", seq)
		}
	}
}

// TestFullDiskShedsSamplesBeforeAlarms runs on a disk in memory; on a real one
// see TestFullExt4.
func TestFullDiskShedsSamplesBeforeAlarms(t *testing.T) {
	disk := newMemFS(4096)
	disk.limit = 2 << 20
	j := open(t, "j", Options{FS: disk, SegmentBytes: 128 << 10})
	fillDisk(t, j, 2<<20, func() {
		disk.mu.Lock()
		disk.limit = 4 << 20
		disk.mu.Unlock()
	})
}

// fillDisk appends more than size bytes to a journal whose consumer is away,
// and calls grow for more space.
func fillDisk(t *testing.T, j *Journal, size int, grow func()) {
	if _, err := j.Cursor("away"); err != nil {
		t.Fatal(err)
	}
	alarms := make(map[uint64]bool)
	payload := []byte(strings.Repeat("x", 1000))
	for i := range 3 * size / len(payload) {
		class := Sample
		if i%50 == 0 {
			class = Alarm
		}
		seq, err := j.AppendWith(t.Context(), Interval, class, payload)
		if err != nil {
			t.Fatalf("Append() %d = %v; %+v", i, err, j.Stats())
		}
		if class == Alarm {
			alarms[seq] = true
		}
	}
	s := j.Stats()
	if s.Shed[Sample]["disk"] == 0 || s.Shed[Alarm]["disk"] != 0 {
		t.Errorf("shed = %v, want samples and no alarms", s.Shed)
	}
	got := all(t, j, 0)
	for seq := range alarms {
		if got[seq].Class != Alarm {
			t.Errorf("alarm %d is gone", seq)
		}
	}
	if kept := uint64(len(got)) + s.Shed[Sample]["disk"]; kept != s.Last {
		t.Errorf("%d read + %d shed = %d, want all %d", len(got), s.Shed[Sample]["disk"], kept, s.Last)
	}
	// With nothing but alarms left, samples are refused and alarms still taken.
	for range 2 * size / len(payload) {
		if _, err := j.AppendWith(t.Context(), Interval, Alarm, payload); err != nil {
			t.Fatalf("Append(Alarm) = %v; %+v", err, j.Stats())
		}
	}
	var err error
	for i := 0; err == nil; i++ {
		if i > size/len(payload) {
			t.Fatal("a journal full of alarms takes samples")
		}
		_, err = j.AppendWith(t.Context(), Interval, Sample, payload)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("Append(Sample) = %v, want %v", err, ErrFull)
	}
	if s := j.Stats(); !s.Full || s.Refused[Sample] == 0 {
		t.Errorf("Stats() = %+v, want full and a sample refused", s)
	}
	grow()
	testkit.Eventually(t, 5*time.Second, "the journal to see the space", func() bool {
		_, err := j.Append(t.Context(), Sample, payload)
		return err == nil
	})
	if s := j.Stats(); s.Full || s.Damaged+s.Torn != 0 {
		t.Errorf("Stats() = %+v, want neither full nor damaged", s)
	}
}

func TestRetentionRemovesTheDeliveredFirst(t *testing.T) {
	now := atomic.Int64{}
	now.Store(time.Now().Unix())
	disk := newMemFS(512)
	j := open(t, "j", Options{
		FS: disk, SegmentBytes: minSegment, MaxBytes: 8 * minSegment, MaxAge: time.Hour, Interval: time.Millisecond,
		now: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	c, err := j.Cursor("nats")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		seq := mustAppend(t, j, Sample, fmt.Sprintf("%0500d", i))
		if i%100 == 0 {
			if err := c.Commit(seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := j.Stats()
	if s.Bytes > 8*minSegment || s.Removed == 0 || s.Shed[Sample]["bytes"] != 0 {
		t.Errorf("Stats() = %+v, want at most %d bytes and nothing shed", s, 8*minSegment)
	}
	if err := c.Commit(j.Last()); err != nil {
		t.Fatal(err)
	}
	now.Add(7200)
	testkit.Eventually(t, 5*time.Second, "old segments to go", func() bool {
		mustAppend(t, j, Sample, "tick")
		return j.Stats().Segments == 1
	})
}

// TestOpeningOnAFullDiskShedsNoAlarms opens a journal that may not grow.
func TestOpeningOnAFullDiskShedsNoAlarms(t *testing.T) {
	disk := newMemFS(512)
	opts := Options{FS: disk, SegmentBytes: minSegment}
	j, err := Open("j", opts)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		mustAppend(t, j, Alarm, strings.Repeat("x", 1000))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	disk.mu.Lock()
	disk.limit = disk.used()
	disk.mu.Unlock()
	j = open(t, "j", opts)
	if got := len(all(t, j, 0)); got != 200 {
		t.Errorf("records = %d, want 200", got)
	}
	if _, err := j.Append(t.Context(), Sample, []byte("x")); !errors.Is(err, ErrFull) {
		t.Errorf("Append(Sample) = %v, want %v", err, ErrFull)
	}
	// An alarm may replace older alarms.
	mustAppend(t, j, Alarm, "new")
	disk.mu.Lock()
	disk.limit = 0
	disk.mu.Unlock()
}

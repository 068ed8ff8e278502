package journal

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestBitRot flips one bit of a journal at a time, anywhere in its segments,
// and wants it noticed, and all records but the one it hit.
func TestBitRot(t *testing.T) {
	runs := 5000
	if testing.Short() {
		runs /= 10
	}
	clean, want := rotten(t)
	var files []string
	total := 0
	for name, n := range clean.names {
		if isSegment(name) {
			files = append(files, name)
			total += len(n.data)
		}
	}
	slices.Sort(files)
	rng := rand.New(rand.NewPCG(1, 2))
	others, read := 0, 0
	for run := range runs {
		disk := clean.crash(func(int) int { return 0 })
		at := rng.IntN(total)
		name := ""
		for _, name = range files {
			if at < len(disk.names[name].data) {
				break
			}
			at -= len(disk.names[name].data)
		}
		bit := byte(1) << rng.IntN(8)
		disk.names[name].data[at] ^= bit
		reports := 0
		j, err := Open("j", Options{FS: disk, SegmentBytes: minSegment, OnDamage: func(Damage) { reports++ }})
		if err != nil {
			t.Fatalf("run %d: Open() with bit %#x of %s at %d flipped = %v", run, bit, name, at, err)
		}
		got := all(t, j, 0)
		s := j.Stats()
		for seq, rec := range got {
			if w := want[seq]; w.Epoch != rec.Epoch || w.Class != rec.Class || !bytes.Equal(w.Payload, rec.Payload) {
				t.Fatalf("run %d: record %d is wrong with bit %#x of %s at %d flipped", run, seq, bit, name, at)
			}
		}
		if s.Damaged+s.Torn == 0 {
			t.Errorf("run %d: bit %#x of %s at %d flipped: not noticed", run, bit, name, at)
		}
		if len(got) < len(want) && s.Torn > 0 {
			t.Errorf("run %d: bit %#x of %s at %d flipped: %d records lost and called torn", run, bit, name, at, len(want)-len(got))
		}
		all(t, j, 0)
		if now := j.Stats().Damaged; now != s.Damaged || uint64(reports) != now {
			t.Errorf("run %d: damage counted %d then %d times and reported %d times", run, s.Damaged, now, reports)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		others += len(want) - 1
		read += min(len(got), len(want)-1)
	}
	t.Logf("%d flips: %d of %d other records read", runs, read, others)
	if read*1000 < others*999 {
		t.Errorf("%d of %d other records read, want 99.9 %%", read, others)
	}
}

// rotten returns a journal of sealed segments and, as after kill -9, one that
// is not.
func rotten(t *testing.T) (*memFS, map[uint64]Record) {
	disk := newMemFS(512)
	j, err := Open("j", Options{FS: disk, SegmentBytes: minSegment})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1200 {
		payload := make([]byte, rng.IntN(300))
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		if _, err := j.AppendWith(t.Context(), Interval, Class(rng.IntN(NumClasses)), payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := all(t, j, 0)
	after := disk.crash(func(int) int { return 0 })
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return after, want
}

func TestDamageIsQuarantinedAndReportedOnceAcrossRestarts(t *testing.T) {
	disk, want := rotten(t)
	for _, n := range disk.names {
		if isSegment(n.name) {
			n.data[headerBlock+100] ^= 4
			n.disk[headerBlock+100] ^= 4
		}
	}
	first := -1
	for run := range 3 {
		j, err := Open("j", Options{FS: disk, SegmentBytes: minSegment})
		if err != nil {
			t.Fatal(err)
		}
		got := len(all(t, j, 0))
		s := j.Stats()
		if run == 0 {
			first = int(s.Damaged)
		} else if s.Damaged != 0 {
			t.Errorf("run %d: damage reported again: %+v", run, s)
		}
		if got != len(want)-first {
			t.Errorf("run %d: %d records, want %d", run, got, len(want)-first)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		report, err := check(disk, "j", nil)
		if err != nil || report.Quarantined != first || first == 0 {
			t.Errorf("Check() = %d quarantined, %v, want %d", report.Quarantined, err, first)
		}
	}
}

func TestOpenAMillionRecords(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 150 MB")
	}
	const n = 1_000_000
	dir := t.TempDir()
	j, err := Open(dir, Options{MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 100)
	start := time.Now()
	for range n {
		if _, err := j.Submit(context.Background(), None, Sample, payload, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(start)
	start = time.Now()
	j = open(t, dir, Options{MaxBytes: 1 << 30})
	opened := time.Since(start)
	start = time.Now()
	r := j.Read(0)
	got := 0
	for {
		_, ok, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		got++
	}
	_ = r.Close()
	t.Logf("%d records: appended in %v, opened in %v, read and checked in %v", got, wrote, opened, time.Since(start))
	if got != n {
		t.Errorf("records = %d, want %d", got, n)
	}
}

func FuzzScan(f *testing.F) {
	const salt = 7
	var frames []byte
	for i := range 5 {
		p := bytes.Repeat([]byte{byte(i)}, i*50)
		frames = appendFrame(frames, frame{payloadCRC: payloadCRC(p), length: len(p), class: Alarm, epoch: 9, sequence: uint64(i + 1)}, p)
	}
	frames = append(frames, summary{records: 5, first: 1, last: 5}.encode(9)...)
	stamp(frames, salt)
	f.Add(frames)
	f.Add(frames[24:])
	f.Add(append(make([]byte, 1024), frames...))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := append(make([]byte, headerBlock), data...)
		var sc scanner
		sc.reset(bytes.NewReader(file), salt)
		end, at, last := int64(len(file)), int64(headerBlock), uint64(0)
		for range len(data)/frameAlign + 2 {
			it := sc.next(end)
			if it.step == stepEnd {
				return
			}
			if it.from < at || it.to <= it.from || it.to > end {
				t.Fatalf("step %d from %d to %d, at %d of %d", it.step, it.from, it.to, at, end)
			}
			at = it.to
			if it.step != stepRecord {
				continue
			}
			if it.frame.sequence <= last || payloadCRC(it.payload) != it.frame.payloadCRC {
				t.Fatalf("record %+v after %d", it.frame, last)
			}
			last = it.frame.sequence
		}
		t.Fatalf("no end after %d steps", len(data)/frameAlign+2)
	})
}

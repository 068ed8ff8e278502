package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

func open(t testing.TB, dir string, opts Options) *Journal {
	t.Helper()
	j, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return j
}

// all reads what there is from sequence on.
func all(t testing.TB, j *Journal, sequence uint64) map[uint64]Record {
	t.Helper()
	r := j.Read(sequence)
	defer func() { _ = r.Close() }()
	got := make(map[uint64]Record)
	last := uint64(0)
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		if rec.Sequence <= last {
			t.Fatalf("sequence %d after %d", rec.Sequence, last)
		}
		last = rec.Sequence
		rec.Payload = append([]byte(nil), rec.Payload...)
		got[last] = rec
	}
}

func mustAppend(t testing.TB, j *Journal, class Class, payload string) uint64 {
	t.Helper()
	seq, err := j.Append(context.Background(), class, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestRecordsOutliveRestartsUnderTheSameName(t *testing.T) {
	dir := t.TempDir()
	type name struct{ epoch, sequence uint64 }
	want := make(map[name]string)
	for run := range 4 {
		j, err := Open(dir, Options{SegmentBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			payload := fmt.Sprintf("run %d record %d %s", run, i, strings.Repeat("x", i%300))
			seq := mustAppend(t, j, Class(i%NumClasses), payload)
			if wantSeq := uint64(run*500 + i + 1); seq != wantSeq {
				t.Fatalf("Append() = %d, want %d", seq, wantSeq)
			}
			want[name{j.Epoch(), seq}] = payload
		}
		got := all(t, j, 0)
		if len(got) != len(want) {
			t.Errorf("run %d: %d records, want %d", run, len(got), len(want))
		}
		for _, rec := range got {
			if p, ok := want[name{rec.Epoch, rec.Sequence}]; !ok || p != string(rec.Payload) {
				t.Fatalf("record %d/%d = %q, want %q", rec.Epoch, rec.Sequence, rec.Payload, p)
			}
		}
		if got := all(t, j, 321); len(got) != len(want)-320 {
			t.Errorf("records from 321 = %d, want %d", len(got), len(want)-320)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		report, err := Check(dir)
		if err != nil || report.Damaged() != 0 || report.Records() != uint64(len(want)) {
			t.Errorf("Check() = %d records, %d damaged, %v, want %d, 0", report.Records(), report.Damaged(), err, len(want))
		}
	}
}

func TestWritersShareSyncs(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	var wg sync.WaitGroup
	const writers, each = 32, 50
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := j.Append(t.Context(), Sample, fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(all(t, j, 0)); got != writers*each {
		t.Errorf("records = %d, want %d", got, writers*each)
	}
	if s := j.Stats(); s.Syncs >= writers*each/2 {
		t.Errorf("syncs = %d for %d records of %d writers, want groups", s.Syncs, writers*each, writers)
	}
}

func TestReaderWaitsAndEndsWithTheJournal(t *testing.T) {
	j, err := Open(t.TempDir(), Options{SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	errs := make(chan error, 1)
	go func() {
		r := j.Read(1)
		defer func() { _ = r.Close() }()
		for want := uint64(1); ; want++ {
			rec, err := r.Next(context.Background())
			switch {
			case errors.Is(err, ErrClosed) && want == n+1:
				errs <- nil
				return
			case err != nil:
				errs <- fmt.Errorf("before %d: %w", want, err)
				return
			case rec.Sequence != want || binary.LittleEndian.Uint64(rec.Payload) != want:
				errs <- fmt.Errorf("read %d, want %d", rec.Sequence, want)
				return
			}
		}
	}()
	payload := make([]byte, 100)
	for i := range uint64(n) {
		binary.LittleEndian.PutUint64(payload, i+1)
		if _, err := j.AppendWith(t.Context(), Durability(i%3), Sample, payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	if _, err := j.Append(t.Context(), Sample, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append() after Close() = %v, want %v", err, ErrClosed)
	}
}

func TestAppendBatchIsConsecutive(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	mustAppend(t, j, Sample, "before")
	first, err := j.AppendBatch(t.Context(), Always, []Entry{{Sample, []byte("a")}, {Alarm, []byte("b")}})
	if err != nil || first != 2 {
		t.Fatalf("AppendBatch() = %d, %v, want 2", first, err)
	}
	got := all(t, j, 2)
	if string(got[2].Payload) != "a" || string(got[3].Payload) != "b" || got[3].Class != Alarm {
		t.Errorf("records = %v, want a and b", got)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	j := open(t, t.TempDir(), Options{SegmentBytes: 64 << 10})
	if _, err := j.Append(t.Context(), NumClasses, nil); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("Append(class %d) = %v, want invalid", NumClasses, err)
	}
	if _, err := j.Append(t.Context(), Sample, make([]byte, j.MaxPayload()+1)); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("Append(too long) = %v, want invalid", err)
	}
	if _, err := j.Append(t.Context(), Sample, make([]byte, j.MaxPayload())); err != nil {
		t.Errorf("Append(longest) = %v", err)
	}
	if _, err := j.Cursor("../x"); !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("Cursor(../x) = %v, want invalid", err)
	}
	for _, o := range []Options{{SegmentBytes: 1}, {MaxBytes: 1}, {MaxAge: -1}, {Interval: -1}, {Linger: time.Second}} {
		if _, err := Open(t.TempDir(), o); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("Open(%+v) = %v, want invalid", o, err)
		}
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open() = %v, want %v", err, ErrLocked)
	}
}

func TestNewerVersionIsRefusedUntouched(t *testing.T) {
	for _, file := range []string{"0000000000000001.seg", "meta", "cursors/nats"} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			j, err := Open(dir, Options{SegmentBytes: 64 << 10})
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, j, Sample, "x")
			c, err := j.Cursor("nats")
			if err == nil {
				err = c.Commit(1)
			}
			if err = errors.Join(err, j.Close()); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, file)
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for off := 0; off+64 <= len(raw) && off <= 4096; off += 2048 {
				if b := raw[off : off+64]; b[8] == version {
					b[8] = version + 1
					binary.LittleEndian.PutUint32(b[60:], crcOf(b[:60]))
				}
			}
			if err := os.WriteFile(name, raw, 0o640); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			if _, err := Open(dir, Options{}); !errors.Is(err, ErrVersion) || !strings.Contains(fmt.Sprint(err), "version 2") {
				t.Errorf("Open() = %v, want %v", err, ErrVersion)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("files changed: %s, were %s", after, before)
			}
		})
	}
}

func TestCursorsHoldRecordsAndSequences(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	c, err := j.Cursor("nats")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		mustAppend(t, j, Sample, "x")
	}
	// A consumer that has seen what power loss then took.
	if err := errors.Join(c.Commit(10), c.Commit(4), j.Close()); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, Options{SegmentBytes: 64 << 10})
	if seq := mustAppend(t, j, Sample, "y"); seq != 11 {
		t.Errorf("Append() = %d, want 11, above the cursor", seq)
	}
	if got := j.Stats().Delivered; got != 10 {
		t.Errorf("Delivered = %d, want 10", got)
	}
	if err := j.DropCursor("nats"); err != nil {
		t.Error(err)
	}
	if err := j.DropCursor("nats"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("DropCursor() again = %v, want not found", err)
	}
}

// done counts completions.
type done struct {
	sync.WaitGroup
	err error
}

func (d *done) Complete(_ uint64, err error) {
	d.err = errors.Join(d.err, err)
	d.Done()
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	j := open(t, t.TempDir(), Options{SegmentBytes: 64 << 20, Linger: -1})
	ctx, payload := context.Background(), make([]byte, 200)
	var d done
	submit := func() {
		d.Add(100)
		for range 100 {
			if _, err := j.Submit(ctx, Always, Sample, payload, &d); err != nil {
				t.Fatal(err)
			}
		}
		d.Wait()
	}
	appendOne := func() {
		if _, err := j.Append(ctx, Sample, payload); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		submit() // the buffers grow to what they need
	}
	if n := testing.AllocsPerRun(50, submit); n != 0 {
		t.Errorf("100 Submit() allocate %v times, want 0", n)
	}
	if n := testing.AllocsPerRun(50, appendOne); n != 0 {
		t.Errorf("Append() allocates %v times, want 0", n)
	}
	r := j.Read(1)
	defer func() { _ = r.Close() }()
	read := func() {
		if _, ok, err := r.TryNext(); !ok || err != nil {
			t.Fatalf("TryNext() = %v, %v", ok, err)
		}
	}
	read()
	if n := testing.AllocsPerRun(1000, read); n != 0 {
		t.Errorf("TryNext() allocates %v times, want 0", n)
	}
	if d.err != nil {
		t.Error(d.err)
	}
}

package journal

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// schedules is how many power losses `make test` goes through.
const schedules = 10_000

// TestPowerLoss appends, fails syncs, closes and loses power at any moment, and
// holds the journal to its promise: it opens, what was acknowledged is there
// under its name, and no name is given twice.
func TestPowerLoss(t *testing.T) {
	n := schedules
	if testing.Short() {
		n /= 10
	}
	checks := flag.Lookup("rapid.checks")
	was := checks.Value.String()
	if err := checks.Value.Set(fmt.Sprint(n)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = checks.Value.Set(was) }()
	rapid.Check(t, powerLoss)
}

type recordName struct{ epoch, sequence uint64 }

// ledger is what the test knows of the records.
type ledger struct {
	mu      sync.Mutex
	born    map[recordName]string // every record that was ever taken
	durable map[recordName]bool   // and those that were acknowledged as durable
	run     int                   // acknowledgements of runs before come from a disk that is gone
}

type ack struct {
	l    *ledger
	run  int
	name recordName
	ok   chan struct{} // closed once name is set
}

func (a *ack) Complete(_ uint64, err error) {
	<-a.ok
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	if err == nil && a.run == a.l.run {
		a.l.durable[a.name] = true
	}
}

func powerLoss(t *rapid.T) {
	disk := newMemFS(rapid.SampledFrom([]int64{512, 4096}).Draw(t, "sector"))
	l := &ledger{born: make(map[recordName]string), durable: make(map[recordName]bool)}
	cursor := uint64(0)
	for run := range rapid.IntRange(1, 3).Draw(t, "crashes") + 1 {
		j, err := Open("j", Options{
			FS: disk, SegmentBytes: minSegment, Interval: time.Minute, Linger: -1,
			OnDamage: func(d Damage) {
				if !d.Torn {
					t.Errorf("run %d: %v, but nothing rots here", run, d)
				}
			},
		})
		if err != nil {
			t.Fatalf("run %d: Open() = %v", run, err)
		}
		l.verify(t, j, cursor)
		cursor = l.work(t, j, disk, cursor)
		l.mu.Lock()
		choose := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "loss"), 0))
		after := disk.crash(choose.IntN)
		l.run++
		l.mu.Unlock()
		disk.mu.Lock()
		disk.fail = nil
		disk.mu.Unlock()
		_ = j.Close() // on a disk that is gone
		disk = after
	}
}

// verify reads the journal as it opened.
func (l *ledger) verify(t *rapid.T, j *Journal, cursor uint64) {
	r := j.Read(0)
	defer func() { _ = r.Close() }()
	seen := make(map[recordName]bool)
	last := uint64(0)
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatalf("TryNext() = %v", err)
		}
		if !ok {
			break
		}
		name := recordName{rec.Epoch, rec.Sequence}
		if want, ok := l.born[name]; !ok || want != string(rec.Payload) {
			t.Fatalf("record %v = %q, want %q", name, rec.Payload, want)
		}
		if rec.Sequence <= last {
			t.Fatalf("sequence %d after %d", rec.Sequence, last)
		}
		last = rec.Sequence
		seen[name] = true
	}
	for name := range l.durable {
		if !seen[name] {
			t.Fatalf("record %v was acknowledged and is lost; %d of %d are there; %+v", name, len(seen), len(l.durable), j.Stats())
		}
	}
	if j.next <= last || j.next <= cursor {
		t.Fatalf("next sequence %d, last %d, cursor %d", j.next, last, cursor)
	}
	if c, err := j.Cursor("nats"); err != nil || c.Position() < cursor {
		t.Fatalf("Cursor() = %v, %v, want at least %d", c, err, cursor)
	}
}

// work appends this and that, and returns the durable position of the cursor.
func (l *ledger) work(t *rapid.T, j *Journal, disk *memFS, cursor uint64) uint64 {
	ctx := context.Background()
	for range rapid.IntRange(0, 12).Draw(t, "steps") {
		switch step := rapid.IntRange(0, 11).Draw(t, "step"); step {
		case 0: // the next sync of a segment fails
			disk.mu.Lock()
			once := true
			disk.fail = func(op, name string) error {
				if once && op == "sync" && isSegment(name) && !strings.HasSuffix(name, ".tmp") {
					once = false
					return syscall.EIO
				}
				return nil
			}
			disk.mu.Unlock()
		case 1:
			c, err := j.Cursor("nats")
			if err != nil {
				t.Fatal(err)
			}
			if at := j.Last(); c.Commit(at) == nil {
				cursor = max(cursor, at)
			}
		default:
			size := rapid.IntRange(0, 12000).Draw(t, "size")
			d := Durability(step % 3)
			l.append(t, ctx, j, d, Class(step%NumClasses), size, step > 8)
		}
	}
	return cursor
}

func (l *ledger) append(t *rapid.T, ctx context.Context, j *Journal, d Durability, class Class, size int, wait bool) {
	payload := bytes.Repeat([]byte{byte(1 + size%255)}, size)
	a := &ack{l: l, run: l.run, ok: make(chan struct{})}
	l.mu.Lock()
	n := len(l.born)
	l.mu.Unlock()
	payload = append(payload, fmt.Sprint(n)...)
	var to Completion = a
	if d != Always {
		to = nil // nothing is promised of power loss
	}
	seq, err := j.Submit(ctx, d, class, payload, to)
	if err != nil {
		t.Fatalf("Submit() = %v", err)
	}
	a.name = recordName{j.Epoch(), seq}
	l.mu.Lock()
	if was, ok := l.born[a.name]; ok {
		t.Fatalf("record %v is %q and %q", a.name, was, payload)
	}
	l.born[a.name] = string(payload)
	l.mu.Unlock()
	close(a.ok)
	if wait {
		if err := j.Sync(ctx); err != nil {
			t.Fatalf("Sync() = %v", err)
		}
	}
}

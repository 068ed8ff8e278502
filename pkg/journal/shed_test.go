package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestPowerLossWhileShedding loses power while segments are rewritten to keep
// their alarms: none of those may go.
func TestPowerLossWhileShedding(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds /= 10
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 0))
		disk := newMemFS(512 << (3 * rng.IntN(2)))
		opts := Options{FS: disk, SegmentBytes: minSegment, MaxBytes: 6 * minSegment}
		j, err := Open("j", opts)
		if err != nil {
			t.Fatal(err)
		}
		alarms := make(map[uint64]string)
		// The committer is at it while the power goes: the last records are
		// not waited for.
		ctx := context.Background()
		for i := range 300 + rng.IntN(300) {
			class := Sample
			if rng.IntN(20) == 0 {
				class = Alarm
			}
			payload := fmt.Sprintf("%d %s", i, strings.Repeat("x", 1500))
			d := None
			if class == Alarm {
				d = Always
			}
			seq, err := j.AppendWith(ctx, d, class, []byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			if class == Alarm {
				alarms[seq] = payload
			}
		}
		shed := j.Stats().Shed
		after := disk.crash(rng.IntN)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if shed[Sample]["bytes"] == 0 || shed[Alarm]["bytes"] != 0 {
			t.Fatalf("shed = %v, want samples only", shed)
		}
		opts.FS = after
		if j, err = Open("j", opts); err != nil {
			t.Fatal(err)
		}
		got := all(t, j, 0)
		for seq, payload := range alarms {
			if string(got[seq].Payload) != payload {
				t.Errorf("round %d: alarm %d is gone", round, seq)
			}
		}
		if s := j.Stats(); s.Damaged != 0 {
			t.Errorf("round %d: Damaged = %d, want 0", round, s.Damaged)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzOpen opens a journal with any bytes for a segment.
func FuzzOpen(f *testing.F) {
	disk := newMemFS(512)
	j, err := Open("j", Options{FS: disk, SegmentBytes: minSegment})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 20 {
		mustAppend(f, j, Class(i%NumClasses), strings.Repeat("x", i*10))
	}
	open := disk.crash(func(int) int { return 0 })
	if err := j.Close(); err != nil {
		f.Fatal(err)
	}
	const name = "j/0000000000000001.seg"
	f.Add(disk.names[name].data)
	f.Add(open.names[name].data[:8192])
	f.Add(make([]byte, 5000))
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := open.crash(func(int) int { return 0 })
		disk.names[name].data = data
		var first int
		for run := range 2 {
			j, err := Open("j", Options{FS: disk, SegmentBytes: minSegment})
			if err != nil {
				if strings.Contains(err.Error(), ErrVersion.Error()) {
					return
				}
				t.Fatal(err)
			}
			n := len(all(t, j, 0))
			if run == 0 {
				first = n
			} else if n != first {
				t.Errorf("%d records, then %d", first, n)
			}
			seq := mustAppend(t, j, Alarm, "more")
			if got := all(t, j, seq); len(got) != 1 || string(got[seq].Payload) != "more" {
				t.Errorf("records from %d = %v, want the one appended", seq, got)
			}
			first++
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

package journal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// appendUntilKilled is the process that dies: four writers append and print
// what was acknowledged.
func appendUntilKilled(dir string) int {
	j, err := Open(dir, Options{SegmentBytes: 256 << 10})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for w := range 3 {
		go appendAndPrint(j, w)
	}
	appendAndPrint(j, 3)
	return 1
}

func appendAndPrint(j *Journal, writer int) {
	for i := 0; ; i++ {
		payload := fmt.Sprintf("%d-%d-%d-%s", j.Epoch(), writer, i, strings.Repeat("x", i%500))
		seq, err := j.AppendWith(context.Background(), Durability(i%2), Class(i%NumClasses), []byte(payload))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, _ = io.WriteString(os.Stdout, fmt.Sprintf("%d %d %s\n", j.Epoch(), seq, payload))
	}
}

// TestKill9 kills a writing process fifty times.
func TestKill9(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 10
	}
	dir := filepath.Join(t.TempDir(), "j")
	acked := make(map[recordName]string)
	for range kills {
		killWriter(t, dir, acked)
	}
	found := make(map[recordName]string)
	last := uint64(0)
	err := Dump(dir, func(r Record) error {
		if r.Sequence <= last {
			t.Errorf("sequence %d after %d", r.Sequence, last)
		}
		last = r.Sequence
		found[recordName{r.Epoch, r.Sequence}] = string(r.Payload)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for name, payload := range acked {
		if found[name] != payload {
			lost++
		}
	}
	t.Logf("%d kills: %d acknowledged, %d found, %d lost", kills, len(acked), len(found), lost)
	if lost != 0 || len(acked) < 10*kills {
		t.Errorf("%d of %d acknowledged records lost", lost, len(acked))
	}
	start := time.Now()
	j := open(t, dir, Options{})
	t.Logf("opened %d bytes in %v", j.Stats().Bytes, time.Since(start))
	if s := j.Stats(); s.Damaged != 0 {
		t.Errorf("Damaged = %d after kills, want 0", s.Damaged)
	}
}

func killWriter(t *testing.T, dir string, acked map[recordName]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JOURNAL_KILLED="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The first line says that it writes; the moment after it is random.
	after := 20 + rand.IntN(300)
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if n == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		var name recordName
		var payload string
		if k, _ := fmt.Sscanf(lines.Text(), "%d %d %s", &name.epoch, &name.sequence, &payload); k == 3 {
			acked[name] = payload
		}
	}
	_ = cmd.Wait() // it was killed
}

package peercred

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// told returns the log's lines and how many refusals they tell.
func told(t *testing.T, log *bytes.Buffer) (lines int, calls uint64) {
	t.Helper()
	for s := bufio.NewScanner(log); s.Scan(); lines++ {
		var line struct {
			Msg   string
			Audit bool
			Calls uint64
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil || !line.Audit {
			t.Fatalf("line %q, %v, want an audit line", s.Bytes(), err)
		}
		if line.Msg == "call refused" {
			line.Calls = 1
		}
		calls += line.Calls
	}
	return lines, calls
}

func TestAuditIsBoundedAndComplete(t *testing.T) {
	tests := []struct {
		name     string
		peers    int // that call in turn
		rounds   int // calls of each
		seconds  int // over which they call
		maxLines int
	}{
		{"one refusal", 1, 1, 1, 1},
		{"a flood", 1, 10_000, 1, 2},
		{"a flood that lasts", 1, 1_000, 10, 11},
		{"two callers", 2, 1_000, 1, 4},
		{"more callers than are told apart", 2 * maxTallies, 10, 1, 2*maxTallies + 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				g := NewGuard(&Access{self: 1}, slog.New(slog.NewJSONHandler(&log, nil)))
				for i := range tt.seconds {
					for range tt.rounds {
						for p := range tt.peers {
							ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: Peer{UID: uint32(1000 + p), PID: int32(i)}})
							if err := g.check(ctx, "/x.y.Z/Get"); !errors.Is(err, fault.ErrDenied) {
								t.Fatalf("check() = %v, want ErrDenied", err)
							}
						}
					}
					wait(auditPeriod)
				}
				wait(2 * auditPeriod)
				lines, calls := told(t, &log)
				if want := uint64(tt.peers * tt.rounds * tt.seconds); calls != want || g.Refused() != want {
					t.Errorf("lines tell %d refusals, Refused() = %d, want %d", calls, g.Refused(), want)
				}
				if lines > tt.maxLines {
					t.Errorf("lines = %d, want at most %d", lines, tt.maxLines)
				}
				if n := len(g.audit.tallies); n != 0 {
					t.Errorf("tallies kept = %d, want none once it is quiet", n)
				}
			})
		})
	}
}

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	<-time.After(d + time.Millisecond)
	synctest.Wait()
}

func TestAuditTellsTheCallApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := NewGuard(&Access{self: 1}, slog.New(slog.NewJSONHandler(&log, nil)))
		for i := range 3 {
			_ = g.check(context.Background(), fmt.Sprintf("/x.y.Z/Get%d", i)) // of no known peer
		}
		if lines, _ := told(t, &log); lines != 3 {
			t.Errorf("lines for three methods = %d, want 3", lines)
		}
		wait(auditPeriod)
	})
}

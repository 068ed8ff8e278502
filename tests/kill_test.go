package tests

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// TestKillEachService kills each service in turn under load. The others keep
// serving, it is back within 3 s, readings flow again, and none that was
// acknowledged is missing at the end.
func TestKillEachService(t *testing.T) {
	n := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := n.meters(func(o *fleet.Options) { o.Meters, o.Rate = 128, 50 })
	type result struct {
		report fleet.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r, err := f.Run(ctx)
		done <- result{r, err}
	}()
	testkit.Eventually(t, 20*time.Second, "the fleet", func() bool { return f.Snapshot().Connected == 128 })

	for _, victim := range services {
		pids := n.pids()
		if pids[victim] == 0 {
			t.Fatalf("%s has no pid", victim)
		}
		before := f.Snapshot().Acked
		killed := time.Now()
		if err := syscall.Kill(pids[victim], syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s: %v", victim, err)
		}
		for _, other := range services {
			if other != victim && !n.serving(other) {
				t.Errorf("%s does not serve while %s is away", other, victim)
			}
		}
		testkit.Eventually(t, 10*time.Second, victim+" to be back", func() bool {
			return n.serving(victim) && n.pid(victim) != pids[victim]
		})
		back := time.Since(killed)
		if back > 3*time.Second {
			t.Errorf("%s was back after %v, want 3 s at the most", victim, back)
		}
		testkit.Eventually(t, 15*time.Second, "readings to flow after "+victim, func() bool {
			now := f.Snapshot()
			return now.Acked > before+6400 && now.Connected == 128
		})
		for _, other := range services {
			if now := n.pid(other); other != victim && now != pids[other] {
				t.Errorf("killing %s changed the process of %s from %d to %d", victim, other, pids[other], now)
			}
		}
		t.Logf("%-9s back after %v", victim, back.Round(10*time.Millisecond))
	}
	cancel()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	tel := n.telemetry()
	t.Logf("%v", r.report)
	t.Logf("JetStream: %d readings, %d of them twice, %d out of order", tel.distinct, tel.duplicates, tel.disorder)
	if uint64(tel.distinct) < r.report.Acked {
		t.Errorf("%d readings were acknowledged, JetStream has %d", r.report.Acked, tel.distinct)
	}
	if r.report.Lost != 0 {
		t.Errorf("%d readings were never acknowledged", r.report.Lost)
	}
	n.ingest()
	n.broadcast()
}

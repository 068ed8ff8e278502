package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

// statuses subscribes to every device's status over MQTT, as an operator
// would, and keeps the last sequence of each.
type statuses struct {
	mu   sync.Mutex // guards last
	last map[string]uint64
}

func (n *node) subscribe() *statuses {
	n.t.Helper()
	s := &statuses{last: make(map[string]uint64)}
	client := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker(fmt.Sprintf("tcp://127.0.0.1:%d", n.ports["mqtt"])).SetClientID("test-subscriber").SetAutoReconnect(false))
	if token := client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		n.t.Fatalf("mqtt connect: %v", token.Error())
	}
	n.t.Cleanup(func() { client.Disconnect(100) })
	token := client.Subscribe("xinghuo/site/node/devices/+/status", 1, func(_ mqtt.Client, m mqtt.Message) {
		var status struct {
			Device   string `json:"device"`
			Sequence uint64 `json:"sequence"`
		}
		if err := json.Unmarshal(m.Payload(), &status); err != nil {
			n.t.Errorf("status %s: %v", m.Payload(), err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last[status.Device] = status.Sequence
	})
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		n.t.Fatalf("mqtt subscribe: %v", token.Error())
	}
	return s
}

func (s *statuses) equal(want map[string]uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for device, sequence := range want {
		if s.last[device] != sequence {
			return false
		}
	}
	return len(s.last) == len(want)
}

// TestEveryReadingArrives is the promise of the first page of the README.
func TestEveryReadingArrives(t *testing.T) {
	n := start(t)
	live := n.subscribe()
	report, err := n.meters(func(o *fleet.Options) { o.Meters, o.Rate, o.Duration = 128, 50, 20*time.Second }).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	if want := uint64(128 * 50 * 20); report.Sent+report.Withheld < want*99/100 {
		t.Errorf("sent %d and withheld %d readings, want about %d", report.Sent, report.Withheld, want)
	}
	if report.Acked != report.Sent || report.Lost != 0 || report.Reconnects != 0 {
		t.Errorf("sent %d, acked %d, lost %d, reconnects %d; want all acked", report.Sent, report.Acked, report.Lost, report.Reconnects)
	}
	tel := n.telemetry()
	if uint64(tel.distinct) != report.Sent || tel.duplicates != 0 || tel.disorder != 0 {
		t.Errorf("JetStream has %d readings, %d twice, %d out of order; want %d, 0, 0", tel.distinct, tel.duplicates, tel.disorder, report.Sent)
	}
	if s := n.ingest(); sum(s.GetDropped()) != 0 || s.GetStatuses()["dropped"] != 0 {
		t.Errorf("ingest dropped %v, statuses %v", s.GetDropped(), s.GetStatuses())
	}
	testkit.Eventually(t, 10*time.Second, "each device's last status over MQTT", func() bool { return live.equal(tel.last) })
	if b := n.broadcast(); sum(b.GetDropped()) != 0 {
		t.Errorf("broadcast dropped %v", b.GetDropped())
	}
	retained := n.subscribe() // a newcomer gets the retained ones
	testkit.Eventually(t, 10*time.Second, "each device's retained status", func() bool { return retained.equal(tel.last) })
}

func TestRejectedReadingsAreEvents(t *testing.T) {
	n := start(t)
	report, err := n.meters(func(o *fleet.Options) {
		o.Meters, o.Rate, o.Duration, o.HotEvery = 16, 50, 5*time.Second, 10
	}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tel := n.telemetry()
	if tel.hot != 0 || uint64(tel.distinct) != report.Sent-report.Hot {
		t.Errorf("JetStream has %d readings, %d of them hot; want %d, 0", tel.distinct, tel.hot, report.Sent-report.Hot)
	}
	if got := n.rejected(); uint64(got) != report.Hot || report.Rejected != report.Hot || report.Hot == 0 {
		t.Errorf("%d rejected as events, %d told to meters, want %d of both", got, report.Rejected, report.Hot)
	}
	if s := n.ingest(); s.GetRejected() != report.Hot {
		t.Errorf("ingest counts %d rejected, want %d", s.GetRejected(), report.Hot)
	}
}

// TestBlockedBroker points broadcast at a broker that takes connections and
// then says nothing more.
func TestBlockedBroker(t *testing.T) {
	measure := func(t *testing.T, n *node) fleet.Report {
		r, err := n.meters(func(o *fleet.Options) { o.Meters, o.Rate, o.Duration = 64, 50, 8*time.Second }).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Acked != r.Sent {
			t.Errorf("sent %d, acked %d", r.Sent, r.Acked)
		}
		t.Log(r)
		return r
	}
	var free fleet.Report
	t.Run("free", func(t *testing.T) { free = measure(t, start(t)) })
	t.Run("blocked", func(t *testing.T) {
		// A status each 10 ms fills a queue of 64 in under a second.
		n := start(t, "XINGHUO_BROADCAST_MQTT_URL=tcp://"+deafBroker(t), "XINGHUO_INGEST_STATUS_INTERVAL=10ms")
		blocked := measure(t, n)
		// 20 ms is the noise of two shared cores, not a limit of the product.
		if limit := max(2*free.Latency.P50, 20_000); blocked.Latency.P50 > limit {
			t.Errorf("median ack latency %d µs with a blocked broker, %d without; want at most %d", blocked.Latency.P50, free.Latency.P50, limit)
		}
		testkit.Eventually(t, 10*time.Second, "drops", func() bool { return sum(n.broadcast().GetDropped()) > 0 })
		counted, total := n.queueDrops()
		if len(counted) != 64 {
			t.Errorf("drops are counted for %d devices, want 64", len(counted))
		}
		if whole := sum(n.broadcast().GetDropped()); whole < total {
			t.Errorf("the ledger has %d drops, the queues %d", whole, total)
		}
	})
}

// TestCommandDeadline holds that a command ends at its deadline.
func TestCommandDeadline(t *testing.T) {
	n := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	f := n.meters(func(o *fleet.Options) { o.Meters, o.Rate = 4, 10 })
	go func() {
		defer close(done)
		if _, err := f.Run(ctx); err != nil {
			t.Errorf("fleet: %v", err)
		}
	}()
	defer func() { cancel(); <-done }()
	testkit.Eventually(t, 10*time.Second, "four meters", func() bool { return f.Snapshot().Connected == 4 })

	if err := n.command("meter-0001", `{"read":"voltage"}`, 1000); err != nil {
		t.Errorf("command: %v", err)
	}
	worst := time.Duration(math.MinInt64)
	for range 20 {
		begin := time.Now()
		if err := n.command("meter-0002", `{"silent":true}`, 50); err == nil {
			t.Error("a silent meter answered")
		}
		worst = max(worst, time.Since(begin)-50*time.Millisecond)
	}
	t.Logf("worst overrun of a 50 ms deadline: %v", worst)
	if worst < 0 {
		t.Errorf("a command ended %v before its deadline", -worst)
	}
}

package mqtt_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/mqtt"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/mqtttest"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

const wait = 20 * time.Second

type fixture struct {
	queues    *queue.Queues
	publisher *mqtt.Publisher
	dropped   atomic.Uint64

	mu     sync.Mutex
	states []string
}

// start runs a publisher against a broker. stop waits for its end.
func start(t *testing.T, url string) (f *fixture, stop func()) {
	t.Helper()
	f = &fixture{queues: queue.New(queue.Limits{Capacity: 64, EnqueueLimit: 50 * time.Millisecond, MaxDevices: 1000, MaxBytes: 64 << 20, Window: 256})}
	f.publisher = mqtt.New(mqtt.Config{
		URL: url, Site: "s", Node: "n", AckTimeout: 500 * time.Millisecond, Flush: 2 * time.Second, Window: 256,
	}, f.queues, func(away error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.states = append(f.states, fmt.Sprint(away))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.publisher.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return f, stop
}

func (f *fixture) put(device, sequence int) {
	f.queues.Put(name(device), []byte(strconv.Itoa(sequence)), &f.dropped)
}

func name(device int) string { return fmt.Sprintf("m%03d", device) }

func topic(device int) string { return "xinghuo/s/n/devices/" + name(device) + "/status" }

func (f *fixture) waitConnected(t *testing.T, want bool) {
	t.Helper()
	testkit.Eventually(t, wait, fmt.Sprintf("connected = %v", want), func() bool { return f.publisher.Stats().Connected == want })
}

func (f *fixture) waitEmpty(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := f.queues.WaitEmpty(ctx); err != nil {
		t.Fatalf("queues = %+v, want them empty", f.queues.Stats())
	}
}

var brokers = map[string]func(testing.TB) string{
	"nats":      func(t testing.TB) string { return natstest.MQTT(t, natstest.Start(t)) },
	"mosquitto": mqtttest.Mosquitto,
}

func TestPublishes(t *testing.T) {
	for broker, open := range brokers {
		t.Run(broker, func(t *testing.T) {
			url := open(t)
			live := mqtttest.Watch(t, url, "xinghuo/s/n/#")
			f, stop := start(t, url)
			const devices, each = 128, 20
			for n := 1; n <= each; n++ {
				for d := range devices {
					f.put(d, n)
				}
			}
			f.waitEmpty(t)
			if got := f.queues.Stats(); got.Delivered != devices*each {
				t.Errorf("stats = %+v, want %v delivered", got, devices*each)
			}
			// A newcomer finds the last status of each, and the node's own.
			late := mqtttest.Watch(t, url, "xinghuo/s/n/#")
			testkit.Eventually(t, wait, "retained statuses", func() bool { return late.Topics() == devices+1 })
			want := mqtttest.Message{Payload: strconv.Itoa(each), Retained: true, QoS: 1}
			if got := late.Last(topic(7)); got != want {
				t.Errorf("retained = %+v, want %+v", got, want)
			}
			if got := late.Last("xinghuo/s/n/status").Payload; got != `{"online":true}` {
				t.Errorf("node's status = %s, want it online", got)
			}
			// QoS 1 to a subscriber of NATS waits for the subscriber's window.
			testkit.Eventually(t, wait, "every status of m000", func() bool { return len(live.All(topic(0))) == each })
			for i, m := range live.All(topic(0)) {
				if m.Payload != strconv.Itoa(i+1) {
					t.Errorf("message %d = %s, want them in order", i, m.Payload)
				}
			}
			stop()
			testkit.Eventually(t, wait, "the node's farewell", func() bool { return late.Last("xinghuo/s/n/status").Payload == `{"online":false}` })
		})
	}
}

func TestWillSpeaksForTheDead(t *testing.T) {
	for broker, open := range brokers {
		t.Run(broker, func(t *testing.T) {
			url := open(t)
			gate := mqtttest.NewGate(t, url)
			f, _ := start(t, gate.URL())
			f.waitConnected(t, true)
			gate.Refuse()
			w := mqtttest.Watch(t, url, "xinghuo/s/n/status")
			testkit.Eventually(t, wait, "the will", func() bool { return w.Last("xinghuo/s/n/status").Payload == `{"online":false}` })
			gate.Pass()
			testkit.Eventually(t, wait, "its return", func() bool { return w.Last("xinghuo/s/n/status").Payload == `{"online":true}` })
		})
	}
}

// TestSurvives drives statuses through brokers that fail in several ways: none
// is lost or overtaken, and what cannot go out is counted.
func TestSurvives(t *testing.T) {
	tests := []struct {
		name string
		fail func(t *testing.T, g *mqtttest.Gate)
		mend func(t *testing.T, g *mqtttest.Gate, url string)
	}{
		{"cut", func(_ *testing.T, g *mqtttest.Gate) { g.Refuse() }, func(_ *testing.T, g *mqtttest.Gate, _ string) { g.Pass() }},
		{"hangs after CONNACK", func(_ *testing.T, g *mqtttest.Gate) { g.Hang() }, func(_ *testing.T, g *mqtttest.Gate, url string) { g.To(url) }},
		{"hangs mid-packet", func(_ *testing.T, g *mqtttest.Gate) { g.Freeze() }, func(_ *testing.T, g *mqtttest.Gate, url string) { g.To(url) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := brokers["nats"](t)
			gate := mqtttest.NewGate(t, url)
			w := mqtttest.Watch(t, url, "xinghuo/s/n/devices/#")
			f, _ := start(t, gate.URL())
			f.waitConnected(t, true)
			const devices = 8
			n := 0
			burst := func() {
				for range 20 {
					n++
					for d := range devices {
						f.put(d, n)
					}
				}
			}
			burst()
			tt.fail(t, gate)
			burst()
			f.waitConnected(t, false)
			for range 4 {
				burst() // beyond capacity: the newest are dropped
			}
			tt.mend(t, gate, url)
			f.waitConnected(t, true)
			f.waitEmpty(t)
			s := f.queues.Stats()
			if s.Accepted != uint64(n*devices) || s.Accepted != s.Delivered+s.Dropped.Sum() || s.Dropped.Sum() != f.dropped.Load() || s.Dropped.Sum() == 0 {
				t.Errorf("stats = %+v, want the ledger of %d with drops", s, n*devices)
			}
			for d := range devices {
				testkit.Eventually(t, wait, "the statuses of "+name(d), func() bool {
					seen := make(map[string]bool)
					for _, m := range w.All(topic(d)) {
						seen[m.Payload] = true
					}
					page, _ := f.queues.List(name(d-1), 1)
					return uint64(len(seen)) >= page[0].Delivered
				})
				last := 0
				for _, m := range w.All(topic(d)) {
					at, _ := strconv.Atoi(m.Payload)
					if at < last {
						t.Errorf("%s: %d came after %d", name(d), at, last)
					}
					last = at
				}
			}
		})
	}
}

func TestBrokerRestart(t *testing.T) {
	first := natstest.Start(t)
	gate := mqtttest.NewGate(t, natstest.MQTT(t, first))
	f, _ := start(t, gate.URL())
	f.put(1, 1)
	f.waitEmpty(t)
	first.Shutdown()
	first.WaitForShutdown()
	f.put(1, 2)
	f.waitConnected(t, false)
	url := brokers["nats"](t)
	gate.To(url)
	f.waitEmpty(t)
	w := mqtttest.Watch(t, url, "xinghuo/#")
	testkit.Eventually(t, wait, "the status put while it was away", func() bool { return w.Last(topic(1)).Payload == "2" })
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.states) < 3 || f.states[0] != "<nil>" || f.states[1] == "<nil>" || f.states[len(f.states)-1] != "<nil>" {
		t.Errorf("states = %q, want there, away, there", f.states)
	}
}

func TestStopsWhileBrokerHangs(t *testing.T) {
	url := brokers["nats"](t)
	gate := mqtttest.NewGate(t, url)
	f, stop := start(t, gate.URL())
	f.waitConnected(t, true)
	gate.Freeze()
	for d := range 300 {
		f.put(d, 1)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("stop took %v, want it bounded", took)
	}
	n := f.queues.Close()
	if s := f.queues.Stats(); s.Accepted != s.Delivered+n || s.Dropped[queue.Shutdown] != n {
		t.Errorf("stats = %+v, closed %d, want them to add up", s, n)
	}
}

func TestCheckURL(t *testing.T) {
	for url, want := range map[string]string{
		"tcp://127.0.0.1:1883": "", "mqtt://broker:1883": "", "tcp://[::1]:1883": "",
		"": "must be", "127.0.0.1:1883": "must be", "ssl://a:8883": "must be", "tcp://a": "must be", "tcp://a:1/x": "must be", "tcp://u:p@a:1": "must be",
	} {
		err := mqtt.CheckURL(url)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("CheckURL(%q) = %v, want %q", url, err, want)
		}
	}
}

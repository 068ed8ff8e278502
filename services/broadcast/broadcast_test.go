package broadcast_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
	"github.com/xinghuo-edge/xinghuo/services/broadcast"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/mqtttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

const wait = 20 * time.Second

type running struct {
	broadcastv1.BroadcastServiceClient
	admin  adminv1.AdminServiceClient
	runDir string
	stop   func()
}

// run starts the service on a real socket; it is to end with nil.
func run(t *testing.T, broker string, args ...string) *running {
	t.Helper()
	return runLogged(t, broker, io.Discard, args...)
}

func runLogged(t *testing.T, broker string, logs io.Writer, args ...string) *running {
	t.Helper()
	r := &running{runDir: testkit.SocketDir(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	args = append([]string{"-run_dir", r.runDir, "-state_dir", t.TempDir(), "-mqtt.url", broker, "-grace_timeout", "1s"}, args...)
	go func() { done <- broadcast.Run(ctx, args, logs) }()
	conn, err := mesh.Dial(r.runDir, "broadcast")
	if err != nil {
		t.Fatal(err)
	}
	r.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(r.stop)
	r.BroadcastServiceClient, r.admin = broadcastv1.NewBroadcastServiceClient(conn), adminv1.NewAdminServiceClient(conn)
	return r
}

func (r *running) stats(t *testing.T) *broadcastv1.GetStatsResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	s, err := r.GetStats(ctx, &broadcastv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var dropped uint64
	for _, n := range s.GetDropped() {
		dropped += n
	}
	if s.GetAccepted() != s.GetDelivered()+s.GetQueued()+dropped {
		t.Errorf("ledger = %v, want it balanced", s)
	}
	return s
}

func (r *running) waitBroker(t *testing.T, want bool) {
	t.Helper()
	testkit.Eventually(t, wait, fmt.Sprintf("broker_connected = %v", want), func() bool { return r.stats(t).GetBrokerConnected() == want })
}

// reporter sends batches of one status of each device and waits for each ack.
type reporter struct {
	t        *testing.T
	stream   broadcastv1.BroadcastService_PublishStatusClient
	devices  int
	sequence uint64
	dropped  uint64
}

func (r *running) report(t *testing.T, devices int) *reporter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	t.Cleanup(cancel)
	stream, err := r.PublishStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &reporter{t: t, stream: stream, devices: devices}
}

func (p *reporter) send() {
	p.t.Helper()
	p.sequence++
	req := &broadcastv1.PublishStatusRequest{Sequence: p.sequence}
	for d := range p.devices {
		req.Statuses = append(req.Statuses, &broadcastv1.DeviceStatus{DeviceId: fmt.Sprintf("m%03d", d), Connected: true, Sequence: p.sequence})
	}
	if err := p.stream.Send(req); err != nil {
		p.t.Fatal(err)
	}
	ack, err := p.stream.Recv()
	if err != nil || ack.GetSequence() != p.sequence {
		p.t.Fatalf("ack = %v, %v, want %d", ack, err, p.sequence)
	}
	p.dropped = ack.GetDropped()
}

func TestRun(t *testing.T) {
	broker := natstest.MQTT(t, natstest.Start(t))
	r := run(t, broker, "-site", "hz", "-node", "n1")
	p := r.report(t, 128)
	for range 30 {
		p.send()
	}
	testkit.Eventually(t, wait, "delivery", func() bool { return r.stats(t).GetDelivered() == 128*30 })
	w := mqtttest.Watch(t, broker, "xinghuo/hz/n1/devices/+/status")
	testkit.Eventually(t, wait, "retained statuses", func() bool { return w.Topics() == 128 })
	if got := w.Last("xinghuo/hz/n1/devices/m127/status").Payload; !strings.Contains(got, `"device":"m127"`) || !strings.Contains(got, `"sequence":30,`) {
		t.Errorf("retained = %s, want sequence 30 of m127", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	stats, err := r.admin.GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"xinghuo_broadcast_delivered_total", "xinghuo_broadcast_dropped_total", "xinghuo_broadcast_broker_connected"} {
		if !strings.Contains(stats.String(), want) {
			t.Errorf("GetStats lacks %s", want)
		}
	}
	info, err := r.admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil || len(info.GetDegradations()) != 0 {
		t.Errorf("GetInfo = %v, %v, want no degradation", info, err)
	}
}

// TestBrokerHangs holds the broker still: it takes and never confirms. Every
// batch is acknowledged all the same, and what does not fit is counted.
func TestBrokerHangs(t *testing.T) {
	broker := natstest.MQTT(t, natstest.Start(t))
	gate := mqtttest.NewGate(t, broker)
	r := run(t, gate.URL(), "-mqtt.ack_timeout", "3s", "-enqueue_limit", "50ms")
	r.waitBroker(t, true)
	const devices, batches = 128, 200
	p := r.report(t, devices)
	gate.Freeze()
	before := r.stats(t).GetDelivered()
	for range batches {
		p.send()
	}
	testkit.Eventually(t, wait, "the wait of those without a place to end", func() bool { return r.stats(t).GetQueued() <= devices*64 })
	s := r.stats(t)
	if s.GetAccepted() != devices*batches || s.GetDelivered() > before+devices || s.GetDropped()["queue_full"] == 0 || s.GetDropped()["enqueue_timeout"] == 0 {
		t.Errorf("stats = %v, want all accepted and the surplus dropped for both reasons", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	list, err := r.ListQueues(ctx, &broadcastv1.ListQueuesRequest{PageSize: 1000})
	if err != nil || len(list.GetQueues()) != devices {
		t.Fatalf("ListQueues = %d, %v, want %d", len(list.GetQueues()), err, devices)
	}
	for _, q := range list.GetQueues() {
		var dropped uint64
		for _, n := range q.GetDropped() {
			dropped += n
		}
		if q.GetAccepted() != batches || dropped == 0 || q.GetAccepted() != q.GetDelivered()+uint64(q.GetDepth())+dropped {
			t.Errorf("queue = %v, want drops and a balance", q)
		}
	}
	r.waitBroker(t, false)
	info, err := r.admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil || len(info.GetDegradations()) != 1 || info.GetDegradations()[0].GetComponent() != "mqtt" {
		t.Errorf("GetInfo = %v, %v, want mqtt degraded", info, err)
	}

	gate.To(broker)
	r.waitBroker(t, true)
	testkit.Eventually(t, wait, "the backlog to go out", func() bool { return r.stats(t).GetQueued() == 0 })
	p.send()
	if p.dropped == 0 {
		t.Error("dropped on the stream = 0, want the count")
	}
	w := mqtttest.Watch(t, broker, "xinghuo/site/node/devices/m000/status")
	testkit.Eventually(t, wait, "the last status", func() bool {
		return strings.Contains(w.Last("xinghuo/site/node/devices/m000/status").Payload, fmt.Sprintf(`"sequence":%d,`, p.sequence))
	})
}

// TestStop stops the service right after an acknowledgement: what it took in
// goes out if the broker is there, and is counted in the log if not.
func TestStop(t *testing.T) {
	broker := natstest.MQTT(t, natstest.Start(t))
	for _, tt := range []struct {
		name   string
		broker string
		want   string // in the log
	}{
		{"broker there", broker, ""},
		{"broker away", "tcp://127.0.0.1:1", `"msg":"statuses dropped"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logs bytes.Buffer // read after Run's end only
			r := runLogged(t, tt.broker, &logs, "-grace_timeout", "30s")
			if tt.want == "" {
				r.waitBroker(t, true)
			}
			p := r.report(t, 128)
			for range 20 {
				p.send()
			}
			r.stop()
			if tt.want != "" {
				if !strings.Contains(logs.String(), tt.want) || !strings.Contains(logs.String(), `"statuses":2560`) {
					t.Errorf("log = %s, want %s of 2560", logs.String(), tt.want)
				}
				return
			}
			if strings.Contains(logs.String(), "statuses dropped") {
				t.Errorf("log = %s, want nothing dropped", logs.String())
			}
			w := mqtttest.Watch(t, broker, "xinghuo/site/node/devices/+/status")
			testkit.Eventually(t, wait, "retained statuses", func() bool { return w.Topics() == 128 })
			if got := w.Last("xinghuo/site/node/devices/m100/status").Payload; !strings.Contains(got, `"sequence":20,`) {
				t.Errorf("retained = %s, want sequence 20", got)
			}
		})
	}
}

// configs is a config service with these settings.
type configs struct {
	configv1.UnimplementedConfigServiceServer
	settings map[string]string
}

func (c *configs) Watch(_ *configv1.WatchRequest, stream configv1.ConfigService_WatchServer) error {
	for name, value := range c.settings {
		if err := stream.Send(&configv1.WatchResponse{Event: &configv1.WatchResponse_Put{Put: &configv1.Entry{Name: name, Value: value, Revision: 1}}}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func TestLiveSettings(t *testing.T) {
	r := run(t, "tcp://127.0.0.1:1", "-enqueue_limit", "0s")
	cfg := settings.DefaultNode()
	cfg.RunDir, cfg.GraceTimeout = r.runDir, 0
	srv, err := node.New("config", cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	configv1.RegisterConfigServiceServer(srv, &configs{settings: map[string]string{
		"queue_capacity": "3", "enqueue_limit": "soon", "colour": "red",
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("config: Run = %v, want nil", err)
		}
	}()
	r.report(t, 1).send()
	testkit.Eventually(t, wait, "the capacity to change", func() bool {
		list, err := r.ListQueues(r.report(t, 1).stream.Context(), &broadcastv1.ListQueuesRequest{})
		return err == nil && list.GetQueues()[0].GetCapacity() == 3
	})
	p := r.report(t, 1)
	for range 5 {
		p.send()
	}
	if p.dropped != 3 {
		t.Errorf("dropped = %d of 6 in a queue of 3, want 3", p.dropped)
	}
}

func TestRunRefuses(t *testing.T) {
	err := broadcast.Run(t.Context(), []string{
		"-mqtt.url", "http://x", "-mqtt.ack_timeout", "1ms", "-mqtt.window", "0", "-queue_capacity", "0",
		"-enqueue_limit", "1h", "-max_devices", "0", "-max_queued_bytes", "1", "-site", "a b",
	}, io.Discard)
	var bad *settings.Error
	if !errors.As(err, &bad) || len(bad.Faults) != 8 {
		t.Errorf("Run = %v, want eight faults", err)
	}
}

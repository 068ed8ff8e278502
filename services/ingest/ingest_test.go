package ingest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"

	"github.com/xinghuo-edge/xinghuo/services/ingest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

// fakePolicy rejects a temperature above 85.
type fakePolicy struct {
	policyv1.UnimplementedPolicyServiceServer
}

func (fakePolicy) EvaluateStream(stream grpc.BidiStreamingServer[policyv1.EvaluateStreamRequest, policyv1.EvaluateStreamResponse]) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		resp := &policyv1.EvaluateStreamResponse{BatchId: req.GetBatchId(), Generation: 1}
		for _, r := range req.GetReadings() {
			v := &policyv1.Verdict{Action: policyv1.Action_ACTION_ACCEPT}
			for _, value := range r.GetReading().GetValues() {
				if value.GetName() == "poison" {
					return fault.Invalid("readings", "poison")
				}
				if value.GetName() == "temperature" && value.GetNumber() > 85 {
					v = &policyv1.Verdict{Action: policyv1.Action_ACTION_REJECT, Module: "threshold", Reason: "too hot"}
				}
			}
			resp.Verdicts = append(resp.Verdicts, v)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// fakeBroadcast keeps the last status of each device.
type fakeBroadcast struct {
	broadcastv1.UnimplementedBroadcastServiceServer

	mu   sync.Mutex // guards last
	last map[string]*broadcastv1.DeviceStatus
}

func (f *fakeBroadcast) PublishStatus(stream grpc.BidiStreamingServer[broadcastv1.PublishStatusRequest, broadcastv1.PublishStatusResponse]) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		for _, s := range req.GetStatuses() {
			f.last[s.GetDeviceId()] = s
		}
		f.mu.Unlock()
		if err := stream.Send(&broadcastv1.PublishStatusResponse{Sequence: req.GetSequence()}); err != nil {
			return err
		}
	}
}

func (f *fakeBroadcast) status(id string) *broadcastv1.DeviceStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[id]
}

// program runs a service until stop, which fails the test when it did not end
// in good order.
func program(t *testing.T, run func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func peer(t *testing.T, dir, name string, register func(*node.Server)) (stop func()) {
	t.Helper()
	cfg := settings.DefaultNode()
	cfg.RunDir, cfg.StateDir = dir, dir
	srv, err := node.New(name, cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	register(srv)
	return program(t, func(ctx context.Context) error { return srv.Run(ctx) })
}

// bench is ingest with real NATS, and policy and broadcast on real sockets.
type rig struct {
	t          *testing.T
	dir        string
	door       string
	nats       *server.Server
	key        *devicetoken.Key
	client     ingestv1.IngestServiceClient
	broadcast  *fakeBroadcast
	stop       func()
	stopPolicy func()
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func newRig(t *testing.T, args ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: testkit.SocketDir(t), door: freePort(t), nats: natstest.Start(t), broadcast: &fakeBroadcast{last: make(map[string]*broadcastv1.DeviceStatus)}}
	r.startPolicy()
	peer(t, r.dir, "broadcast", func(s *node.Server) { broadcastv1.RegisterBroadcastServiceServer(s, r.broadcast) })
	args = append([]string{
		"-run_dir", r.dir, "-state_dir", r.dir, "-listen", r.door, "-nats_url", r.nats.ClientURL(),
		"-token_key_file", filepath.Join(r.dir, "token.key"), "-status_interval", "10ms",
	}, args...)
	var err error
	if r.key, err = devicetoken.LoadOrCreate(filepath.Join(r.dir, "token.key")); err != nil {
		t.Fatal(err)
	}
	logs := os.Stderr
	if !testing.Verbose() {
		logs, _ = os.Open(os.DevNull)
	}
	r.stop = program(t, func(ctx context.Context) error { return ingest.Run(ctx, args, logs) })
	conn, err := mesh.Dial(r.dir, "ingest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r.client = ingestv1.NewIngestServiceClient(conn)
	testkit.Eventually(t, 10*time.Second, "the device door", func() bool {
		c, err := net.Dial("tcp", r.door)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return r
}

func (r *rig) startPolicy() {
	r.stopPolicy = peer(r.t, r.dir, "policy", func(s *node.Server) { policyv1.RegisterPolicyServiceServer(s, fakePolicy{}) })
}

func (r *rig) stats() *ingestv1.GetStatsResponse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	s, err := r.client.GetStats(ctx, &ingestv1.GetStatsRequest{})
	if err != nil {
		r.t.Fatalf("GetStats: %v", err)
	}
	var dropped uint64
	for _, n := range s.GetDropped() {
		dropped += n
	}
	if got := s.GetDelivered() + s.GetRejected() + s.GetInFlight() + dropped; got != s.GetReceived() {
		r.t.Errorf("ledger: received %d, accounted for %d: %v", s.GetReceived(), got, s)
	}
	return s
}

// stored counts the readings in JetStream by device, and fails on one that
// stands twice or out of order.
func (r *rig) stored() map[string]int {
	r.t.Helper()
	nc, err := nats.Connect(r.nats.ClientURL())
	if err != nil {
		r.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "XH_TEL_site_node")
	if err != nil {
		r.t.Fatal(err)
	}
	count, last := make(map[string]int), make(map[string]uint64)
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && seq > 0; seq++ {
		raw, err := stream.GetMsg(ctx, seq)
		if err != nil {
			r.t.Fatalf("get message %d: %v", seq, err)
		}
		var tel telemetryv1.Telemetry
		if err := proto.Unmarshal(raw.Data, &tel); err != nil {
			r.t.Fatal(err)
		}
		if want := "xh.v1.site.node.tel.ws." + tel.GetDeviceId(); raw.Subject != want {
			r.t.Errorf("subject %s, want %s", raw.Subject, want)
		}
		for _, a := range tel.GetReadings() {
			if s := a.GetReading().GetSequence(); s <= last[tel.GetDeviceId()] {
				r.t.Errorf("device %s: sequence %d after %d", tel.GetDeviceId(), s, last[tel.GetDeviceId()])
			}
			last[tel.GetDeviceId()] = a.GetReading().GetSequence()
			count[tel.GetDeviceId()]++
		}
	}
	return count
}

// deviceConn is a device.
type deviceConn struct {
	*websocket.Conn
	t       *testing.T
	welcome *devicev1.Welcome
}

func (r *rig) dialRaw(id, token string, protocols ...string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: 10 * time.Second}
	return d.Dial("ws://"+r.door+"/v1/devices/"+id, http.Header{"Authorization": {"Bearer " + token}})
}

func (r *rig) connect(id string, session uint64) *deviceConn {
	r.t.Helper()
	ws, _, err := r.dialRaw(id, r.key.Token(id), "xinghuo.v1+proto")
	if err != nil {
		r.t.Fatalf("connect %s: %v", id, err)
	}
	d := &deviceConn{Conn: ws, t: r.t}
	r.t.Cleanup(func() { _ = ws.Close() })
	d.send(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Hello{Hello: &devicev1.Hello{Session: session}}})
	d.welcome = d.recv().GetWelcome()
	if d.welcome == nil {
		r.t.Fatal("the first frame is no Welcome")
	}
	return d
}

func (d *deviceConn) send(f *devicev1.DeviceFrame) {
	d.t.Helper()
	raw, err := proto.Marshal(f)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.WriteMessage(websocket.BinaryMessage, raw); err != nil {
		d.t.Fatalf("send: %v", err)
	}
}

func (d *deviceConn) recv() *devicev1.NodeFrame {
	d.t.Helper()
	_ = d.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, raw, err := d.ReadMessage()
	if err != nil {
		d.t.Fatalf("receive: %v", err)
	}
	f := new(devicev1.NodeFrame)
	if err := proto.Unmarshal(raw, f); err != nil {
		d.t.Fatal(err)
	}
	return f
}

// awaitAck reads until everything up to sequence is acknowledged, and returns
// the rejections on the way.
func (d *deviceConn) awaitAck(sequence uint64) []*devicev1.Rejection {
	d.t.Helper()
	var rejections []*devicev1.Rejection
	for {
		ack := d.recv().GetAck()
		rejections = append(rejections, ack.GetRejections()...)
		if ack.GetSequence() >= sequence {
			return rejections
		}
	}
}

func readings(first, n int, temperature float64) *devicev1.DeviceFrame {
	batch := &devicev1.ReadingBatch{}
	for i := range n {
		batch.Readings = append(batch.Readings, &telemetryv1.Reading{
			Sequence: uint64(first + i),
			Values:   []*telemetryv1.Value{{Name: "temperature", Number: temperature}, {Name: "voltage_volts", Number: 230 + float64(i)}},
		})
	}
	return &devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Readings{Readings: batch}}
}

func TestReadingsReachJetStreamInOrder(t *testing.T) {
	r := newRig(t)
	const devices, each = 8, 500
	var wg sync.WaitGroup
	for i := range devices {
		d := r.connect(fmt.Sprintf("meter-%d", i), 7)
		wg.Go(func() {
			go func() {
				for s := 1; s <= each; s += 5 {
					raw, _ := proto.Marshal(readings(s, 5, 20))
					if d.WriteMessage(websocket.BinaryMessage, raw) != nil {
						return
					}
				}
			}()
			d.awaitAck(each)
		})
	}
	wg.Wait()
	s := r.stats()
	if s.GetReceived() != devices*each || s.GetDelivered() != devices*each || s.GetInFlight() != 0 || s.GetConnectedDevices() != devices {
		t.Errorf("stats = %v, want %d received and delivered", s, devices*each)
	}
	for id, n := range r.stored() {
		if n != each {
			t.Errorf("JetStream has %d readings of %s, want %d", n, id, each)
		}
	}
	testkit.Eventually(t, 5*time.Second, "the last status", func() bool {
		st := r.broadcast.status("meter-3")
		return st.GetSequence() == each && st.GetConnected() && len(st.GetValues()) == 2
	})
}

func TestRejectedReadingsStayOutOfTelemetry(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	d.send(readings(1, 3, 20))
	d.send(readings(4, 2, 99))
	d.send(readings(6, 1, 20))
	rejections := d.awaitAck(6)
	if len(rejections) != 2 || rejections[0].GetSequence() != 4 || rejections[0].GetReason() != "too hot" {
		t.Errorf("rejections = %v, want 4 and 5, too hot", rejections)
	}
	if s := r.stats(); s.GetDelivered() != 4 || s.GetRejected() != 2 {
		t.Errorf("stats = %v, want 4 delivered, 2 rejected", s)
	}
	if got := r.stored()["meter-1"]; got != 4 {
		t.Errorf("JetStream has %d readings, want 4", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := r.client.GetDevice(ctx, &ingestv1.GetDeviceRequest{DeviceId: "meter-1"})
	if err != nil || got.GetDevice().GetRejected() != 2 || got.GetDevice().GetValues()[0].GetNumber() != 20 {
		t.Errorf("GetDevice = %v, %v, want 2 rejected and the last accepted value 20", got, err)
	}
}

func TestResentReadingsAreTakenOnce(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	d.send(readings(1, 10, 20))
	d.awaitAck(10)
	_ = d.Close()
	d = r.connect("meter-1", 7)
	if got := d.welcome.GetAckedSequence(); got != 10 {
		t.Errorf("welcome.acked_sequence = %d, want 10", got)
	}
	d.send(readings(6, 10, 20)) // 6 to 10 again
	d.awaitAck(15)
	if s := r.stats(); s.GetReceived() != 15 || s.GetDuplicates() != 5 {
		t.Errorf("stats = %v, want 15 received, 5 duplicates", s)
	}
	d = r.connect("meter-1", 8) // it booted: its sequences start again
	if got := d.welcome.GetAckedSequence(); got != 0 {
		t.Errorf("welcome.acked_sequence of a new session = %d, want 0", got)
	}
	d.send(readings(1, 1, 20))
	d.awaitAck(1)
	if got := r.stats().GetDelivered(); got != 16 {
		t.Errorf("delivered = %d, want 16", got)
	}
}

func TestPolicyAwayHoldsAndResumes(t *testing.T) {
	r := newRig(t, "-window", "32")
	d := r.connect("meter-1", 7)
	d.send(readings(1, 10, 20))
	d.awaitAck(10)
	r.stopPolicy()
	for s := 11; s < 91; s += 10 {
		d.send(readings(s, 10, 20))
	}
	testkit.Eventually(t, 5*time.Second, "a full window", func() bool { return r.stats().GetInFlight() == 32 })
	r.startPolicy()
	d.awaitAck(90)
	if got := r.stored()["meter-1"]; got != 90 {
		t.Errorf("JetStream has %d readings, want 90", got)
	}
}

func TestPolicyAwayPasses(t *testing.T) {
	r := newRig(t, "-policy_mode", "pass")
	r.stopPolicy()
	d := r.connect("meter-1", 7)
	d.send(readings(1, 10, 99))
	d.awaitAck(10)
	if s := r.stats(); s.GetUnevaluated() != 10 || s.GetDelivered() != 10 {
		t.Errorf("stats = %v, want 10 delivered and unevaluated", s)
	}
}

func TestPolicyAwayDrops(t *testing.T) {
	r := newRig(t, "-policy_mode", "drop")
	r.stopPolicy()
	d := r.connect("meter-1", 7)
	d.send(readings(1, 10, 20))
	if got := d.awaitAck(10); len(got) != 10 || got[0].GetReason() != "policy_away" {
		t.Errorf("rejections = %v, want 10 for policy_away", got)
	}
	if s := r.stats(); s.GetDropped()["policy_away"] != 10 || s.GetDelivered() != 0 {
		t.Errorf("stats = %v, want 10 dropped", s)
	}
}

func TestReadingsThatPolicyRefusesAreDropped(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	d.send(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Readings{Readings: &devicev1.ReadingBatch{Readings: []*telemetryv1.Reading{
		{Sequence: 1, Values: []*telemetryv1.Value{{Name: "poison"}}},
	}}}})
	if got := d.awaitAck(1); len(got) != 1 || got[0].GetReason() != "policy_refused" {
		t.Errorf("rejections = %v, want one for policy_refused", got)
	}
	d.send(readings(2, 1, 20))
	d.awaitAck(2)
	if s := r.stats(); s.GetDropped()["policy_refused"] != 1 || s.GetDelivered() != 1 {
		t.Errorf("stats = %v, want 1 dropped, 1 delivered", s)
	}
}

func TestNATSAwayIsWaitedFor(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	d.send(readings(1, 10, 20))
	d.awaitAck(10)
	opts := r.nats.ClientURL()
	var port int
	if _, err := fmt.Sscanf(opts, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	dir := r.nats.StoreDir()
	r.nats.Shutdown()
	r.nats.WaitForShutdown()
	d.send(readings(11, 10, 20))
	testkit.Eventually(t, 5*time.Second, "10 readings in flight", func() bool { return r.stats().GetInFlight() == 10 })
	r.nats = natstest.Restart(t, port, dir)
	d.awaitAck(20)
	if got := r.stored()["meter-1"]; got != 20 {
		t.Errorf("JetStream has %d readings, want 20", got)
	}
}

func TestStopAcknowledgesWhatItTook(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	d.send(readings(1, 1, 20))
	d.awaitAck(1)
	d.send(readings(2, 50, 20))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.stop()
	}()
	acked := uint64(1)
	for {
		_ = d.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, raw, err := d.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
				t.Errorf("closed with %v, want 1012", err)
			}
			break
		}
		f := new(devicev1.NodeFrame)
		if err := proto.Unmarshal(raw, f); err != nil {
			t.Fatal(err)
		}
		acked = max(acked, f.GetAck().GetSequence())
	}
	<-stopped
	if got := r.stored()["meter-1"]; uint64(got) != acked {
		t.Errorf("JetStream has %d readings, %d were acknowledged; want the same", got, acked)
	}
}

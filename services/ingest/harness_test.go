package ingest_test

import (
	"context"
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

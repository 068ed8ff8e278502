package fleet_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/fleet"
)

// fakeNode is a device door with the parts of the node that a meter can tell:
// it takes readings once, rejects hot ones and acknowledges. Its fields are set
// before it starts.
type fakeNode struct {
	t        *testing.T
	key      *devicetoken.Key
	window   uint32
	mute     bool   // acknowledges nothing
	ackEvery uint64 // acknowledges when it has had so many more; 0 means each frame
	breakAt  uint64 // breaks each device's first connection at this sequence, unacknowledged
	closeAt  uint64 // closes at this sequence with closeAs
	closeAs  int
	forgets  bool // its Welcome acknowledges nothing
	commands []string

	mu      sync.Mutex // guards below
	devices map[string]*fakeDevice
	batches map[int]int // frames by their readings
}

type fakeDevice struct {
	session  uint64
	connects int
	taken    uint64 // highest sequence
	acked    uint64
	readings uint64 // distinct
	repeated uint64 // readings that came again
	gaps     uint64
	rejected uint64
	first    *telemetryv1.Reading
	results  []*devicev1.CommandResult
}

func (n *fakeNode) start(t *testing.T) string {
	n.t, n.devices, n.batches = t, make(map[string]*fakeDevice), make(map[int]int)
	if n.window == 0 {
		n.window = 256
	}
	// Hijacked connections are not the server's to close: the base context is.
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		n.serve(w, r)
	}))
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.Start()
	t.Cleanup(func() { cancel(); srv.Close(); open.Wait() })
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

func (n *fakeNode) serve(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/v1/devices/")
	if n.key != nil && !n.key.Valid(id, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
		http.Error(w, "wrong token", http.StatusUnauthorized)
		return
	}
	up := websocket.Upgrader{Subprotocols: []string{"xinghuo.v1+proto", "xinghuo.v1+json"}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		n.t.Errorf("upgrade: %v", err)
		return
	}
	defer func() { _ = ws.Close() }()
	defer context.AfterFunc(r.Context(), func() { _ = ws.Close() })()
	c := &fakeConn{node: n, ws: ws, json: ws.Subprotocol() == "xinghuo.v1+json"}
	hello := c.receive().GetHello()
	if hello == nil {
		return
	}
	n.mu.Lock()
	d := n.devices[id]
	if d == nil {
		d = &fakeDevice{session: hello.GetSession()}
		n.devices[id] = d
	}
	if d.session != hello.GetSession() {
		n.t.Errorf("%s changed its session from %d to %d", id, d.session, hello.GetSession())
	}
	d.connects++
	c.first = d.connects == 1
	welcome := &devicev1.Welcome{AckedSequence: d.acked, Window: n.window}
	if n.forgets {
		welcome.AckedSequence = 0
	}
	n.mu.Unlock()
	c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Welcome{Welcome: welcome}})
	for i, payload := range n.commands {
		c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Command{Command: &devicev1.Command{Id: uint64(i + 1), Payload: []byte(payload)}}})
	}
	for {
		f := c.receive()
		if f == nil {
			return
		}
		if res := f.GetCommandResult(); res != nil {
			n.mu.Lock()
			d.results = append(d.results, proto.CloneOf(res))
			n.mu.Unlock()
			continue
		}
		if !c.take(d, f.GetReadings().GetReadings()) {
			return
		}
	}
}

// take takes a batch in and acknowledges it; false breaks the connection.
func (c *fakeConn) take(d *fakeDevice, readings []*telemetryv1.Reading) bool {
	n := c.node
	n.mu.Lock()
	defer n.mu.Unlock()
	n.batches[len(readings)]++
	ack := &devicev1.Ack{}
	for _, r := range readings {
		switch {
		case r.GetSequence() <= d.taken:
			d.repeated++
			continue
		case r.GetSequence() > d.taken+1:
			d.gaps++
		}
		d.taken = r.GetSequence()
		d.readings++
		if d.first == nil {
			d.first = proto.CloneOf(r)
		}
		if last := r.GetValues()[len(r.GetValues())-1]; last.GetNumber() > 85 {
			d.rejected++
			ack.Rejections = append(ack.Rejections, &devicev1.Rejection{Sequence: r.GetSequence(), Reason: "hot"})
		}
		if n.breakAt > 0 && d.taken == n.breakAt && c.first {
			return false
		}
		if n.closeAt > 0 && d.taken == n.closeAt {
			_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(n.closeAs, "as the test says"), time.Now().Add(time.Second))
			return false
		}
	}
	if d.taken-d.acked > uint64(n.window) {
		n.t.Errorf("%d readings in flight, over the window of %d", d.taken-d.acked, n.window)
	}
	if n.mute || d.taken-d.acked < n.ackEvery && len(ack.Rejections) == 0 {
		return true
	}
	d.acked = d.taken
	ack.Sequence = d.acked
	c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Ack{Ack: ack}})
	return true
}

type fakeConn struct {
	node  *fakeNode
	ws    *websocket.Conn
	json  bool
	first bool
}

func (c *fakeConn) receive() *devicev1.DeviceFrame {
	kind, raw, err := c.ws.ReadMessage()
	if err != nil {
		return nil
	}
	f := &devicev1.DeviceFrame{}
	if c.json {
		err = protojson.Unmarshal(raw, f)
	} else {
		err = proto.Unmarshal(raw, f)
	}
	if err != nil || c.json != (kind == websocket.TextMessage) {
		c.node.t.Errorf("frame of kind %d: %v", kind, err)
		return nil
	}
	return f
}

func (c *fakeConn) send(f *devicev1.NodeFrame) {
	kind, raw, err := websocket.BinaryMessage, []byte(nil), error(nil)
	if c.json {
		kind = websocket.TextMessage
		raw, err = protojson.Marshal(f)
	} else {
		raw, err = proto.Marshal(f)
	}
	if err != nil {
		c.node.t.Errorf("marshal: %v", err)
		return
	}
	_ = c.ws.WriteMessage(kind, raw) // the meter may be gone
}

// sum adds up what all devices have seen.
func (n *fakeNode) sum() fakeDevice {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all fakeDevice
	for d := range maps.Values(n.devices) {
		all.connects += d.connects
		all.readings += d.readings
		all.repeated += d.repeated
		all.gaps += d.gaps
		all.rejected += d.rejected
		all.results = append(all.results, d.results...)
	}
	return all
}

// options are those of a small quick fleet that runs until it is told to end.
func options(url string) fleet.Options {
	o := fleet.DefaultOptions()
	o.URL, o.Meters, o.Rate = url, 4, 200
	return o
}

// answered is how many readings make a run.
const answered = 200

func enough(r fleet.Report) bool { return r.Acked+r.Rejected >= answered }

// run runs a fleet until the snapshot is as it should be, and ends it.
func run(t *testing.T, o fleet.Options, until func(fleet.Report) bool) (fleet.Report, error) {
	t.Helper()
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	var report fleet.Report
	go func() { defer close(done); report, err = f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	testkit.Eventually(t, 30*time.Second, "the run to have what it is for", func() bool {
		select {
		case <-done: // it has ended by itself
			return true
		default:
			return until(f.Snapshot())
		}
	})
	cancel()
	<-done
	return report, err
}

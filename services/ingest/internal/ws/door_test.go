package ws_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ledger"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 10 * time.Second

type anyToken struct{}

func (anyToken) Valid(string, string) bool { return true }

// rig is a door whose readings the test takes out itself.
type rig struct {
	t         *testing.T
	cfg       ws.Config
	items     chan device.Item // without room: a connection waits for the test
	abandoned chan []device.Item
	address   string
	stop      func() // returns when the door has closed
}

func newRig(t *testing.T, settle func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, items: make(chan device.Item), abandoned: make(chan []device.Item, 64)}
	r.cfg = ws.Config{
		Devices: device.NewRegistry(100), Ledger: ledger.New(), Tokens: anyToken{}, Log: slog.New(slog.DiscardHandler),
		Window: 64, MaxPending: 64, Items: r.items,
		Settle: func() {
			if settle != nil {
				settle(r)
			}
		},
		Abandoned: func(items []device.Item) { r.abandoned <- items },
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := ws.NewDoor(r.cfg).Run(ctx, ln); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// client is a device that speaks JSON.
type client struct {
	t *testing.T
	*websocket.Conn
}

func (r *rig) dial(id string) *client {
	r.t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{ws.JSONProtocol}, HandshakeTimeout: limit}
	c, _, err := dialer.Dial("ws://"+r.address+"/v1/devices/"+id, http.Header{"Authorization": {"Bearer x"}})
	if err != nil {
		r.t.Fatalf("dial %s: %v", id, err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return &client{r.t, c}
}

func (r *rig) connect(id string) *client {
	r.t.Helper()
	c := r.dial(id)
	c.send(`{"hello":{"session":"7"}}`)
	if c.recv().GetWelcome() == nil {
		r.t.Fatal("the first frame is no Welcome")
	}
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) readings(first, n int) {
	c.t.Helper()
	var b strings.Builder
	for s := first; s < first+n; s++ {
		b.WriteString(`,{"sequence":"` + strconv.Itoa(s) + `","values":[{"name":"a","number":1}]}`)
	}
	c.send(`{"readings":{"readings":[` + b.String()[1:] + `]}}`)
}

func (c *client) next() (*devicev1.NodeFrame, error) {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	_, raw, err := c.ReadMessage()
	if err != nil {
		return nil, err
	}
	f := new(devicev1.NodeFrame)
	return f, protojson.Unmarshal(raw, f)
}

func (c *client) recv() *devicev1.NodeFrame {
	c.t.Helper()
	f, err := c.next()
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return f
}

// closed reads to the end and returns how the connection was closed.
func (c *client) closed() *websocket.CloseError {
	c.t.Helper()
	for {
		_, err := c.next()
		if err == nil {
			continue
		}
		var ce *websocket.CloseError
		if !errors.As(err, &ce) {
			c.t.Fatalf("connection ended with %v, want a close frame", err)
		}
		return ce
	}
}

func (r *rig) item() device.Item {
	r.t.Helper()
	select {
	case it := <-r.items:
		return it
	case <-time.After(limit):
		r.t.Fatalf("no reading within %v", limit)
	}
	return device.Item{}
}

func TestOrderIsKeptWhenADeviceConnectsAgain(t *testing.T) {
	r := newRig(t, nil)
	first := r.connect("meter-1")
	first.readings(1, 10)
	if got := r.item().Reading.GetSequence(); got != 1 { // the rest waits for the test
		t.Fatalf("first reading = %d, want 1", got)
	}
	second := r.connect("meter-1")
	if ce := first.closed(); ce.Code != ws.CloseReplaced {
		t.Errorf("first connection closed with %v, want %d", ce, ws.CloseReplaced)
	}
	second.readings(1, 20) // as it was told: nothing is acknowledged
	// Time for it to be taken in, should the second connection not wait for the first.
	for give, tick := time.After(50*time.Millisecond), time.NewTicker(time.Millisecond); r.cfg.Ledger.Figures().Received == 10; {
		select {
		case <-tick.C:
			continue
		case <-give:
			tick.Stop()
		}
		break
	}
	for want := uint64(2); want <= 20; want++ {
		if got := r.item().Reading.GetSequence(); got != want {
			t.Fatalf("reading = %d, want %d", got, want)
		}
	}
	testkit.Eventually(t, limit, "the duplicates", func() bool { f := r.cfg.Ledger.Figures(); return f.Received == 20 && f.Duplicates == 10 })
}

func TestStopEndsAConnectionThatHandsOn(t *testing.T) {
	r := newRig(t, nil)
	c := r.connect("meter-1")
	c.readings(1, 10)
	r.item()
	r.stop()
	if got := len(<-r.abandoned); got != 9 {
		t.Errorf("abandoned = %d readings, want 9", got)
	}
	if ce := c.closed(); ce.Code != websocket.CloseServiceRestart {
		t.Errorf("closed with %v, want 1012", ce)
	}
}

// TestStopSendsTheLastAcknowledgement has readings end as the connections do,
// while their devices send more.
func TestStopSendsTheLastAcknowledgement(t *testing.T) {
	const devices = 64
	var taken []device.Item
	var clients []*client
	r := newRig(t, func(*rig) {
		for _, c := range clients {
			c.readings(2, 1) // not taken any more: the registry is paused
		}
		for i := range taken {
			taken[i].Device.Done(taken[i : i+1])
		}
	})
	for i := range devices {
		c := r.connect("meter-" + strconv.Itoa(i))
		c.readings(1, 1)
		clients, taken = append(clients, c), append(taken, r.item())
	}
	r.stop()
	for i, c := range clients {
		ack, err := c.next()
		if err != nil || ack.GetAck().GetSequence() != 1 {
			t.Errorf("device %d: before the end came %v, %v, want the acknowledgement of 1", i, ack, err)
			continue
		}
		if ce := c.closed(); ce.Code != websocket.CloseServiceRestart {
			t.Errorf("device %d closed with %v, want 1012", i, ce)
		}
	}
	if got := r.cfg.Ledger.Figures().Received; got != devices {
		t.Errorf("received = %d, want %d: none after the pause", got, devices)
	}
	if got := r.cfg.Devices.Connected(); got != 0 {
		t.Errorf("%d devices are connected, want 0", got)
	}
}

func TestStopDoesNotWaitForAHello(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial("meter-1")
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop() }()
	select {
	case <-stopped:
	case <-time.After(3 * time.Second): // a hello is waited for 5 s
		t.Error("the door waits for a hello after its stop")
		<-stopped
	}
	if ce := c.closed(); ce.Code != websocket.CloseServiceRestart {
		t.Errorf("closed with %v, want 1012", ce)
	}
}

func TestACommandNobodyWaitsForIsNotSent(t *testing.T) {
	r := newRig(t, nil)
	c := r.connect("meter-1")
	d := r.cfg.Devices.Get("meter-1")
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := d.Send(late, []byte("late")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send = %v, want DeadlineExceeded", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	go func() { _, _ = d.Send(ctx, []byte("now")) }()
	if cmd := c.recv().GetCommand(); string(cmd.GetPayload()) != "now" || cmd.GetDeadlineMs() == 0 || cmd.GetDeadlineMs() > 10_000 {
		t.Errorf("command = %v, want now, within %v", cmd, limit)
	}
}

func TestCloseReasons(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct{ name, frame, text string }{
		{"a name cut in a character", `{"readings":{"readings":[{"sequence":"1","values":[{"name":"` + strings.Repeat("运行", 30) + `"}]}]}}`, `readings[0].values[0].name: must match`},
		{"a name cut in a character, shifted", `{"readings":{"readings":[{"sequence":"1","values":[{"name":"a` + strings.Repeat("运行", 30) + `"}]}]}}`, `readings[0].values[0].name: must match`},
		{"a result over its limit", `{"commandResult":{"id":"1","payload":"` + strings.Repeat("AAAA", 11<<10) + `"}}`, "command_result.payload: must be at most 32768 bytes, is 33792"},
	} {
		c := r.connect("meter-1")
		c.send(tt.frame)
		if ce := c.closed(); ce.Code != websocket.ClosePolicyViolation || !strings.Contains(ce.Text, tt.text) {
			t.Errorf("%s: closed with %v, want 1008 %q", tt.name, ce, tt.text)
		}
	}
}

func TestAFullWindowWaitsForRoom(t *testing.T) {
	r := newRig(t, nil)
	c := r.connect("meter-1")
	c.readings(1, 64)
	c.readings(65, 10)
	var items []device.Item
	for range 64 {
		items = append(items, r.item())
	}
	select {
	case it := <-r.items:
		t.Errorf("reading %d was taken beyond the window", it.Reading.GetSequence())
	case <-time.After(20 * time.Millisecond):
	}
	items[0].Device.Done(items[:3])
	for want := uint64(65); want <= 67; want++ {
		if got := r.item().Reading.GetSequence(); got != want {
			t.Errorf("reading = %d, want %d", got, want)
		}
	}
	if got := c.recv().GetAck().GetSequence(); got != 3 {
		t.Errorf("ack = %d, want 3", got)
	}
}

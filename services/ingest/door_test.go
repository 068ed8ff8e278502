package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestDoorRefusesHandshakes(t *testing.T) {
	r := newRig(t)
	token := r.key.Token("meter-1")
	tests := []struct {
		name, id, token string
		protocols       []string
		want            int
		text, reason    string
	}{
		{"wrong token", "meter-1", token + "x", []string{"xinghuo.v1+proto"}, http.StatusUnauthorized, "token: must be the device's own", "wrong_token"},
		{"another's token", "meter-2", token, []string{"xinghuo.v1+proto"}, http.StatusUnauthorized, "token", "wrong_token"},
		{"no sub-protocol", "meter-1", token, nil, http.StatusBadRequest, "xinghuo.v1+json", "bad_subprotocol"},
		{"bad sub-protocol", "meter-1", token, []string{"mqtt"}, http.StatusBadRequest, "must offer xinghuo.v1+proto", "bad_subprotocol"},
		{"bad id", "meter%201", token, []string{"xinghuo.v1+proto"}, http.StatusBadRequest, "must be 1 to 64 of", "bad_device_id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ws, resp, err := r.dialRaw(tt.id, tt.token, tt.protocols...)
			if err == nil {
				_ = ws.Close()
				t.Fatal("the handshake was let through")
			}
			if resp == nil {
				t.Fatalf("no answer: %v", err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want || !strings.Contains(string(body), tt.text) {
				t.Errorf("answer = %d %q, want %d and %q", resp.StatusCode, body, tt.want, tt.text)
			}
			if got := r.stats().GetRefused()[tt.reason]; got == 0 {
				t.Errorf("refused[%s] = 0, want it counted", tt.reason)
			}
		})
	}
}

func TestDoorClosesOnBadFrames(t *testing.T) {
	r := newRig(t)
	healthy := r.connect("healthy", 7)
	long := strings.Repeat("x", 257)
	frame := func(rs ...*telemetryv1.Reading) []byte {
		raw, err := proto.Marshal(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Readings{Readings: &devicev1.ReadingBatch{Readings: rs}}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	value := &telemetryv1.Value{Name: "a", Number: 1}
	tests := []struct {
		name   string
		kind   int
		raw    []byte
		code   int
		text   string
		reason string
	}{
		{"oversized", websocket.BinaryMessage, make([]byte, 64<<10+1), websocket.CloseMessageTooBig, "", "oversized_frame"},
		{"malformed", websocket.BinaryMessage, []byte{0xff, 0xff}, websocket.CloseInvalidFramePayloadData, "malformed frame", "malformed_frame"},
		{"text on proto", websocket.TextMessage, []byte("{}"), websocket.CloseInvalidFramePayloadData, "message type must be 2", "malformed_frame"},
		{"empty", websocket.BinaryMessage, nil, websocket.ClosePolicyViolation, "body: must be", "invalid_frame"},
		{"second hello", websocket.BinaryMessage, []byte{0x0a, 0x02, 0x08, 0x01}, websocket.ClosePolicyViolation, "body: must be", "invalid_frame"},
		{"no readings", websocket.BinaryMessage, frame(), websocket.ClosePolicyViolation, "readings: must be 1 to 64, are 0", "invalid_frame"},
		{"sequence 0", websocket.BinaryMessage, frame(&telemetryv1.Reading{Values: []*telemetryv1.Value{value}}), websocket.ClosePolicyViolation, "readings[0].sequence: must be above 0, is 0", "invalid_frame"},
		{"no values", websocket.BinaryMessage, frame(&telemetryv1.Reading{Sequence: 1}), websocket.ClosePolicyViolation, "readings[0].values: must be 1 to 64, are 0", "invalid_frame"},
		{"bad name", websocket.BinaryMessage, frame(&telemetryv1.Reading{Sequence: 1, Values: []*telemetryv1.Value{{Name: "A b"}}}), websocket.ClosePolicyViolation, "readings[0].values[0].name", "invalid_frame"},
		{"double name", websocket.BinaryMessage, frame(&telemetryv1.Reading{Sequence: 1, Values: []*telemetryv1.Value{value, value}}), websocket.ClosePolicyViolation, "stands twice", "invalid_frame"},
		{"long text", websocket.BinaryMessage, frame(&telemetryv1.Reading{Sequence: 1, Values: []*telemetryv1.Value{{Name: "a", Text: long}}}), websocket.ClosePolicyViolation, "must be at most 256 bytes, is 257", "invalid_frame"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := r.stats().GetRefused()[tt.reason]
			d := r.connect("meter-1", 7)
			if err := d.WriteMessage(tt.kind, tt.raw); err != nil {
				t.Fatal(err)
			}
			_ = d.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, _, err := d.ReadMessage()
			var ce *websocket.CloseError
			if !errors.As(err, &ce) || ce.Code != tt.code || !strings.Contains(ce.Text, tt.text) {
				t.Errorf("closed with %v, want %d %q", err, tt.code, tt.text)
			}
			testkit.Eventually(t, 5*time.Second, "the refusal's count", func() bool { return r.stats().GetRefused()[tt.reason] > before })
		})
	}
	healthy.send(readings(1, 1, 20))
	healthy.awaitAck(1)
}

func TestNewestConnectionWins(t *testing.T) {
	r := newRig(t)
	old := r.connect("meter-1", 7)
	newer := r.connect("meter-1", 7)
	_ = old.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := old.ReadMessage(); !websocket.IsCloseError(err, 4409) {
		t.Errorf("the old connection ended with %v, want 4409", err)
	}
	newer.send(readings(1, 1, 20))
	newer.awaitAck(1)
	testkit.Eventually(t, 5*time.Second, "one connected device", func() bool { return r.stats().GetConnectedDevices() == 1 })
}

func TestJSONDevice(t *testing.T) {
	r := newRig(t)
	ws, _, err := r.dialRaw("meter-1", r.key.Token("meter-1"), "xinghuo.v1+json")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for _, text := range []string{
		`{"hello":{"session":"7","model":"DDS-1"}}`,
		`{"readings":{"readings":[{"sequence":"1","time":"2026-01-02T03:04:05Z","values":[{"name":"voltage_volts","number":229.5},{"name":"state","text":"运行"}]}]}}`,
	} {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, raw, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		var f devicev1.NodeFrame
		if err := protojson.Unmarshal(raw, &f); err != nil {
			t.Fatalf("frame %s: %v", raw, err)
		}
		if f.GetAck().GetSequence() == 1 {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := r.client.GetDevice(ctx, &ingestv1.GetDeviceRequest{DeviceId: "meter-1"})
	if err != nil || got.GetDevice().GetModel() != "DDS-1" || got.GetDevice().GetValues()[0].GetText() != "运行" {
		t.Errorf("GetDevice = %v, %v", got, err)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"readings":`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseInvalidFramePayloadData) {
		t.Errorf("malformed JSON closed with %v, want 1007", err)
	}
}

func TestSendCommand(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	r.connect("silent", 7)
	gone := r.connect("gone", 7)
	_ = gone.Close()
	testkit.Eventually(t, 5*time.Second, "the device to be gone", func() bool { return r.stats().GetConnectedDevices() == 2 })
	go func() {
		for {
			_, raw, err := d.ReadMessage()
			if err != nil {
				return
			}
			var f devicev1.NodeFrame
			if proto.Unmarshal(raw, &f) != nil || f.GetCommand() == nil {
				continue
			}
			answer, _ := proto.Marshal(&devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_CommandResult{CommandResult: &devicev1.CommandResult{
				Id: f.GetCommand().GetId(), Ok: true, Payload: bytes.ToUpper(f.GetCommand().GetPayload()),
			}}})
			if d.WriteMessage(websocket.BinaryMessage, answer) != nil {
				return
			}
		}
	}()
	tests := []struct {
		name string
		req  *ingestv1.SendCommandRequest
		want codes.Code
		text string
	}{
		{"answered", &ingestv1.SendCommandRequest{DeviceId: "meter-1", Payload: []byte("read")}, codes.OK, ""},
		{"unknown", &ingestv1.SendCommandRequest{DeviceId: "nobody"}, codes.NotFound, "device nobody was never seen"},
		{"bad id", &ingestv1.SendCommandRequest{DeviceId: "a b"}, codes.InvalidArgument, "device_id"},
		{"not connected", &ingestv1.SendCommandRequest{DeviceId: "gone"}, codes.Unavailable, "not connected"},
		{"no answer", &ingestv1.SendCommandRequest{DeviceId: "silent", DeadlineMs: 50}, codes.DeadlineExceeded, "did not answer"},
		{"deadline", &ingestv1.SendCommandRequest{DeviceId: "meter-1", DeadlineMs: 60_001}, codes.InvalidArgument, "must be 0 to 60000, is 60001"},
		{"payload", &ingestv1.SendCommandRequest{DeviceId: "meter-1", Payload: make([]byte, 32<<10+1)}, codes.InvalidArgument, "must be at most 32768 bytes, is 32769"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			resp, err := r.client.SendCommand(ctx, tt.req)
			if status.Code(err) != tt.want || !strings.Contains(status.Convert(err).Message(), tt.text) {
				t.Errorf("SendCommand = %v, want %v %q", err, tt.want, tt.text)
			}
			if err == nil && (!resp.GetOk() || string(resp.GetPayload()) != "READ") {
				t.Errorf("SendCommand = %v, want READ", resp)
			}
		})
	}
}

func TestSendCommandIsBoundedPerDevice(t *testing.T) {
	r := newRig(t)
	d := r.connect("silent", 7)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := r.client.SendCommand(ctx, &ingestv1.SendCommandRequest{DeviceId: "silent", DeadlineMs: 3000})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("SendCommand to a device that leaves = %v, want UNAVAILABLE", err)
			}
		})
	}
	for range 16 {
		if d.recv().GetCommand() == nil {
			t.Fatal("want a command")
		}
	}
	if _, err := r.client.SendCommand(ctx, &ingestv1.SendCommandRequest{DeviceId: "silent"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the 17th open command = %v, want RESOURCE_EXHAUSTED", err)
	}
	_ = d.Close()
	wg.Wait()
}

func TestListDevicesPages(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"c", "a", "e", "b", "d"} {
		r.connect(id, 7)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var ids []string
	req := &ingestv1.ListDevicesRequest{PageSize: 2}
	for {
		resp, err := r.client.ListDevices(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range resp.GetDevices() {
			ids = append(ids, d.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if got := strings.Join(ids, ""); got != "abcde" {
		t.Errorf("devices = %s, want abcde", got)
	}
	for _, bad := range []*ingestv1.ListDevicesRequest{{PageSize: -1}, {PageSize: 1001}, {PageToken: "!"}} {
		if _, err := r.client.ListDevices(ctx, bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ListDevices(%v) = %v, want INVALID_ARGUMENT", bad, err)
		}
	}
}

func TestWatchReadings(t *testing.T) {
	r := newRig(t)
	d := r.connect("meter-1", 7)
	other := r.connect("meter-2", 7)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w, err := r.client.WatchReadings(ctx, &ingestv1.WatchReadingsRequest{DeviceId: "meter-1"})
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan *ingestv1.WatchReadingsResponse, 1)
	go func() {
		resp, err := w.Recv()
		if err != nil {
			t.Errorf("watch: %v", err)
		}
		first <- resp
	}()
	for s := 1; ; s++ { // until the watch is in force
		other.send(readings(s, 1, 20))
		other.awaitAck(uint64(s))
		d.send(readings(s, 1, 99))
		d.awaitAck(uint64(s))
		select {
		case resp := <-first:
			if resp.GetDeviceId() != "meter-1" || resp.GetReason() != "too hot" || resp.GetEvaluation() != telemetryv1.Evaluation_EVALUATION_UNSPECIFIED {
				t.Errorf("watched %v, want meter-1's rejected reading", resp)
			}
			return
		default:
		}
	}
}

// TestSilentSockets opens far more connections than may be pending, half of
// them WebSockets, and none of them says anything.
func TestSilentSockets(t *testing.T) {
	r := newRig(t, "-max_pending", "256")
	healthy := r.connect("healthy", 7)
	sockets := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(limit.Cur) - 1000; sockets > most {
		sockets = most
		t.Logf("the limit of %d open files allows %d sockets", limit.Cur, sockets)
	}
	conns := make([]net.Conn, 0, sockets)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range sockets {
		c, err := net.Dial("tcp", r.door)
		if err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		conns = append(conns, c)
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET /v1/devices/silent HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xinghuo.v1+proto\r\nAuthorization: Bearer "+r.key.Token("silent")+"\r\n\r\n")
		}
		if i%1000 == 0 {
			healthy.send(readings(1+i/1000, 1, 20))
			healthy.awaitAck(uint64(1 + i/1000))
		}
	}
	late := r.connect("late", 7)
	late.send(readings(1, 1, 20))
	late.awaitAck(1)
	for i, c := range conns { // each is ended by the node: by eviction, the header timeout or the hello timeout
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Fatalf("socket %d is still open after 20 s", i)
		}
	}
	s := r.stats()
	if s.GetRefused()["too_many_pending"] == 0 || s.GetConnectedDevices() != 2 {
		t.Errorf("stats = %v, want evictions and 2 connected devices", s)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

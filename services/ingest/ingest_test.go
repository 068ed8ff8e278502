package ingest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
)

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

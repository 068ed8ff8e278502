package status_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type link struct{}

func (link) AckDue()                      {}
func (link) Replaced()                    {}
func (link) Command(device.Command) error { return nil }

// stream is a stream to a broadcast that acknowledges when the test says so.
type stream struct {
	grpc.ClientStream
	ctx  context.Context
	sent chan *broadcastv1.PublishStatusRequest
	acks chan *broadcastv1.PublishStatusResponse
	fail chan error
}

func (s *stream) Send(req *broadcastv1.PublishStatusRequest) error { s.sent <- req; return nil }

func (s *stream) Recv() (*broadcastv1.PublishStatusResponse, error) {
	select {
	case ack := <-s.acks:
		return ack, nil
	case err := <-s.fail:
		return nil, err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// rig is a reporter in a bubble.
type rig struct {
	t       *testing.T
	r       *status.Reporter
	devices *device.Registry
	stop    func()

	mu      sync.Mutex // guards what follows
	streams []*stream
	away    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, r: status.New(), devices: device.NewRegistry(2000)}
	r.r.Open = func(ctx context.Context) (broadcastv1.BroadcastService_PublishStatusClient, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s := &stream{ctx: ctx, sent: make(chan *broadcastv1.PublishStatusRequest, 100), acks: make(chan *broadcastv1.PublishStatusResponse, 100), fail: make(chan error, 1)}
		r.streams = append(r.streams, s)
		return s, nil
	}
	r.r.Devices, r.r.Log = r.devices, slog.New(slog.DiscardHandler)
	r.r.Away = func(reason string) { r.mu.Lock(); defer r.mu.Unlock(); r.away = reason }
	r.r.SetInterval(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.r.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	r.stop = func() { cancel(); <-ended }
	return r
}

// stream returns the nth stream, from 1, and how many there are.
func (r *rig) stream(n int) *stream {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.streams) != n {
		r.t.Fatalf("%d streams, want %d", len(r.streams), n)
	}
	return r.streams[n-1]
}

func (r *rig) connect(id string) *device.Device {
	r.t.Helper()
	d, _, err := r.devices.Connect(id, link{}, device.Hello{Session: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *rig) show(d *device.Device, sequence uint64) {
	d.Show(&device.Item{Device: d, Reading: &telemetryv1.Reading{Sequence: sequence, Time: timestamppb.Now(), Values: []*telemetryv1.Value{{Name: "a", Number: float64(sequence)}}}})
	r.devices.Changed(d)
}

// batches returns `sequence:statuses` of what was sent since the last call.
func (s *stream) batches() (out string) {
	synctest.Wait()
	for len(s.sent) > 0 {
		req := <-s.sent
		out += fmt.Sprintf(" %d:%d", req.GetSequence(), len(req.GetStatuses()))
	}
	return out
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestTheNewestStatusTakesThePlaceOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		s := r.stream(1)
		d := r.connect("meter-1")
		for i := range uint64(50) {
			r.show(d, i+1)
		}
		pass(100 * time.Millisecond)
		if len(s.sent) != 1 {
			t.Fatalf("%d batches, want 1", len(s.sent))
		}
		got := (<-s.sent).GetStatuses()[0]
		if got.GetSequence() != 50 || got.GetValues()[0].GetNumber() != 50 || !got.GetConnected() || got.GetDeviceId() != "meter-1" {
			t.Errorf("status = %v, want the newest", got)
		}
		pass(time.Second)
		if got := s.batches(); got != "" {
			t.Errorf("batches without a change =%s, want none", got)
		}
	})
}

// TestABroadcastThatIsBehind acknowledges nothing: few batches go out, and what
// waits is the newest when it goes.
func TestABroadcastThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		s := r.stream(1)
		d := r.connect("meter-1")
		for i := range uint64(10) {
			r.show(d, i+1)
			pass(100 * time.Millisecond)
		}
		if got := s.batches(); got != " 1:1 2:1 3:1 4:1" {
			t.Errorf("batches =%s, want four", got)
		}
		s.acks <- &broadcastv1.PublishStatusResponse{Sequence: 2, Dropped: 1}
		synctest.Wait()
		if got := (<-s.sent).GetStatuses()[0].GetSequence(); got != 10 {
			t.Errorf("after the acknowledgement reading %d went out, want 10, the newest", got)
		}
		if sent, dropped := r.r.Counts(); sent != 2 || dropped != 1 {
			t.Errorf("Counts = %d sent, %d dropped, want 2 and 1", sent, dropped)
		}
	})
}

func TestWhatIsNotAcknowledgedIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		s := r.stream(1)
		for i := range 300 {
			r.connect(fmt.Sprintf("meter-%03d", i))
		}
		pass(100 * time.Millisecond)
		if got := s.batches(); got != " 1:256 2:44" {
			t.Errorf("batches =%s, want at most 256 statuses in one", got)
		}
		s.acks <- &broadcastv1.PublishStatusResponse{Sequence: 1}
		synctest.Wait()
		s.fail <- errors.New("broken")
		pass(50 * time.Millisecond)
		r.mu.Lock()
		away := r.away
		r.mu.Unlock()
		if away == "" {
			t.Error("away is not told")
		}
		pass(time.Second)
		s = r.stream(2)
		if got := s.batches(); got != " 1:44" {
			t.Errorf("batches on the next stream =%s, want those that were not acknowledged", got)
		}
	})
}

func TestAnIntervalIsAppliedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		s := r.stream(1)
		r.r.SetInterval(time.Hour)
		pass(time.Second)
		d := r.connect("meter-1")
		pass(time.Minute)
		if got := s.batches(); got != "" {
			t.Errorf("batches within the hour =%s, want none", got)
		}
		r.r.SetInterval(10 * time.Millisecond)
		if got := s.batches(); got != " 1:1" {
			t.Errorf("batches after the change =%s, want what waited", got)
		}
		s.acks <- &broadcastv1.PublishStatusResponse{Sequence: 1}
		r.show(d, 1)
		pass(10 * time.Millisecond)
		if got := s.batches(); got != " 2:1" {
			t.Errorf("batches after 10 ms =%s, want one", got)
		}
	})
}

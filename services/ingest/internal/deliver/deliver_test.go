package deliver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/deliver"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("away")

// future is a publish that the test ends.
type future struct {
	bus.Message
	ok     chan *jetstream.PubAck
	failed chan error
}

func (f *future) Ok() <-chan *jetstream.PubAck { return f.ok }
func (f *future) Err() <-chan error            { return f.failed }
func (*future) Msg() *nats.Msg                 { return nil }

func (f *future) confirm() { f.ok <- nil }

func (f *future) sequences(t *testing.T) (out []uint64) {
	t.Helper()
	var tel telemetryv1.Telemetry
	if err := proto.Unmarshal(f.Body, &tel); err != nil {
		t.Fatal(err)
	}
	for _, r := range tel.GetReadings() {
		out = append(out, r.GetReading().GetSequence())
	}
	return out
}

// rig is a deliverer in a bubble, with a bus that keeps what is sent.
type rig struct {
	t    *testing.T
	d    *deliver.Deliverer
	logs bytes.Buffer
	stop func()

	mu        sync.Mutex // guards what follows
	away      bool
	sent      []*future
	done      []uint64 // sequences, as they ended
	abandoned []uint64
	failing   []string // what Failing was told, cut to its kind
}

func (r *rig) PublishAsync(_ context.Context, m bus.Message) (jetstream.PubAckFuture, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return nil, errAway
	}
	f := &future{m, make(chan *jetstream.PubAck, 1), make(chan error, 1)}
	r.sent = append(r.sent, f)
	return f, nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	subjects, err := bus.NewSubjects("site", "node")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, d: deliver.New()}
	keep := func(to *[]uint64) func([]device.Item) {
		return func(items []device.Item) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, it := range items {
				*to = append(*to, it.Reading.GetSequence())
			}
		}
	}
	r.d.Bus, r.d.Subjects, r.d.Epoch, r.d.Log = r, subjects, 5, slog.New(slog.NewTextHandler(&r.logs, nil))
	r.d.Done, r.d.Abandoned = keep(&r.done), keep(&r.abandoned)
	r.d.Failing = func(reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failing = append(r.failing, map[bool]string{true: "well", false: "failing"}[reason == ""])
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.d.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	r.stop = func() { cancel(); <-ended }
	return r
}

// take returns what was sent since the last call, once nothing moves any more.
func (r *rig) take() []*future {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = nil
	return sent
}

// one returns the one message that was sent.
func (r *rig) one() *future {
	r.t.Helper()
	sent := r.take()
	if len(sent) != 1 {
		r.t.Fatalf("%d messages were sent, want 1", len(sent))
	}
	return sent[0]
}

func (r *rig) setAway(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

func (r *rig) want(done, abandoned string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := fmt.Sprint(r.done); got != done {
		r.t.Errorf("done = %s, want %s", got, done)
	}
	if got := fmt.Sprint(r.abandoned); got != abandoned {
		r.t.Errorf("abandoned = %s, want %s", got, abandoned)
	}
}

func items(d *device.Device, session, first uint64, n int) []device.Item {
	out := make([]device.Item, n)
	for i := range out {
		out[i] = device.Item{
			Device: d, Session: session, Source: "ws", Size: 100,
			Reading: &telemetryv1.Reading{Sequence: first + uint64(i)}, Evaluation: telemetryv1.Evaluation_EVALUATION_ACCEPTED,
		}
	}
	return out
}

func meter(i int) *device.Device { return &device.Device{ID: fmt.Sprintf("meter-%d", i)} }

func TestOneMessageOfADeviceIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		m := meter(1)
		r.d.Add(items(m, 1, 1, 2))
		first := r.one()
		if first.Subject != "xh.v1.site.node.tel.ws.meter-1" || first.Event != "" || !strings.HasPrefix(first.ID, "node/5/") {
			t.Errorf("message = %s %q %s, want telemetry of meter-1 under an id of epoch 5", first.Subject, first.Event, first.ID)
		}
		r.d.Add(items(m, 1, 3, 2))
		r.d.Add(items(m, 1, 5, 1))
		if sent := r.take(); len(sent) != 0 {
			t.Fatalf("%d messages were sent beside the one in flight", len(sent))
		}
		r.want("[]", "[]")
		first.confirm()
		second := r.one()
		if got := fmt.Sprint(first.sequences(t), second.sequences(t)); got != "[1 2] [3 4 5]" || first.ID == second.ID {
			t.Errorf("messages carry %s under %s and %s, want [1 2] [3 4 5] under two ids", got, first.ID, second.ID)
		}
		second.confirm()
		r.want("[1 2 3 4 5]", "[]")
	})
}

func TestAMessageIsBounded(t *testing.T) {
	tests := []struct {
		name  string
		items func(*device.Device) []device.Item
		want  []int
	}{
		{"by readings", func(d *device.Device) []device.Item { return items(d, 1, 1, 150) }, []int{1, 64, 64, 21}},
		{"by bytes", func(d *device.Device) []device.Item {
			all := items(d, 1, 1, 22)
			for i := range all {
				all[i].Size = 60 << 10
			}
			return all
		}, []int{1, 9, 9, 3}},
		{"by session", func(d *device.Device) []device.Item {
			return append(items(d, 1, 1, 4), items(d, 2, 1, 5)...)
		}, []int{1, 3, 5}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			defer r.stop()
			m := meter(1)
			all := tt.items(m)
			r.d.Add(all[:1])
			flight := r.one()
			r.d.Add(all[1:])
			for i, want := range tt.want {
				if got := len(flight.sequences(t)); got != want {
					t.Errorf("%s: message %d carries %d readings, want %d", tt.name, i, got, want)
				}
				flight.confirm()
				if i+1 < len(tt.want) {
					flight = r.one()
				}
			}
			if sent := r.take(); len(sent) != 0 {
				t.Errorf("%s: %d more messages than wanted", tt.name, len(sent))
			}
		})
	}
}

func TestWhatEachOutcomeSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		all := items(meter(1), 7, 1, 3)
		all[1].Outcome, all[1].Module, all[1].Reason = device.Reject, "threshold", "too hot"
		all[2].Outcome, all[2].Reason = device.Drop, "policy_away"
		r.d.Add(all)
		sent := r.take()
		if len(sent) != 2 {
			t.Fatalf("%d messages were sent, want a rejection and the telemetry", len(sent))
		}
		var rejected telemetryv1.RejectedReading
		if err := proto.Unmarshal(sent[0].Body, &rejected); err != nil {
			t.Fatal(err)
		}
		if sent[0].Subject != "xh.v1.site.node.evt.ingest" || sent[0].Event != "reading-rejected" ||
			rejected.GetReading().GetSequence() != 2 || rejected.GetModule() != "threshold" || rejected.GetReason() != "too hot" || rejected.GetSession() != 7 {
			t.Errorf("rejection = %v on %s", &rejected, sent[0].Subject)
		}
		if got := fmt.Sprint(sent[1].sequences(t)); got != "[1]" || sent[0].ID == sent[1].ID {
			t.Errorf("telemetry carries %s, want [1] under an id of its own", got)
		}
		sent[1].confirm()
		r.want("[]", "[]") // not before the rejection is there
		sent[0].confirm()
		r.want("[1 2 3]", "[]")
		r.d.Add([]device.Item{{Device: meter(2), Reading: &telemetryv1.Reading{Sequence: 9}, Outcome: device.Drop}})
		r.want("[1 2 3 9]", "[]")
	})
}

func TestAFailedMessageIsSentAgainUnderItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		all := items(meter(1), 1, 1, 2)
		all[0].Outcome = device.Reject
		r.d.Add(all)
		sent := r.take()
		sent[0].confirm()
		sent[1].failed <- errAway
		if got := r.take(); len(got) != 0 {
			t.Fatal("sent again at once, want a pause")
		}
		<-time.After(100 * time.Millisecond) // the bubble's clock: it moves when nothing else can
		again := r.one()
		if again.ID != sent[1].ID || !bytes.Equal(again.Body, sent[1].Body) {
			t.Errorf("sent again as %s, want %s as it was", again.ID, sent[1].ID)
		}
		again.confirm()
		r.want("[1 2]", "[]")
	})
}

func TestADeviceThatFailsDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		r.d.Add(items(meter(1), 1, 1, 1))
		stuck := r.one()
		r.d.Add(items(meter(2), 1, 100, 1))
		r.one().confirm()
		r.want("[100]", "[]") // while the first has no answer at all
		stuck.failed <- errAway
		synctest.Wait()
		r.d.Add(items(meter(3), 1, 200, 1))
		r.one().confirm()
		r.want("[100 200]", "[]") // while the first pauses
	})
}

// TestAllAreBackTogether has NATS away for a minute under many devices: none
// waits for another's retry, and the log says it once.
func TestAllAreBackTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 500
		r := newRig(t)
		defer r.stop()
		r.setAway(true)
		for i := range devices {
			r.d.Add(items(meter(i), 1, 1, 1))
		}
		<-time.After(time.Minute)
		r.setAway(false)
		<-time.After(time.Second)
		sent := r.take()
		if len(sent) != devices {
			t.Errorf("a second after NATS is back %d devices have sent, want %d", len(sent), devices)
		}
		for _, f := range sent {
			f.confirm()
		}
		synctest.Wait()
		if len(r.done) != devices {
			t.Errorf("done = %d, want %d", len(r.done), devices)
		}
		if n := strings.Count(r.logs.String(), "\n"); n != 2 {
			t.Errorf("the outage made %d lines of log, want 2:\n%.500s", n, r.logs.String())
		}
		if got := fmt.Sprint(r.failing); got != "[failing well]" {
			t.Errorf("Failing was told %s, want [failing well]", got)
		}
	})
}

func TestStopAbandonsWhatIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := meter(1)
		r.d.Add(items(m, 1, 1, 1))
		r.one().confirm()
		synctest.Wait()
		r.d.Add(items(m, 1, 2, 2)) // in flight
		r.one()
		r.d.Add(items(m, 1, 4, 3)) // behind it
		r.stop()
		r.d.Add(items(m, 1, 7, 1)) // too late
		r.want("[1]", "[2 3 4 5 6 7]")
	})
}

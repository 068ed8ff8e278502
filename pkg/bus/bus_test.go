package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/telemetry"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

const limit = 10 * time.Second

var limits = bus.Limits{MaxBytes: 1 << 20, MaxAge: time.Hour}

func subjects(t *testing.T) bus.Subjects {
	t.Helper()
	s, err := bus.NewSubjects("site", "node")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// connect returns a bus whose server is up, with its streams.
func connect(t *testing.T, s *server.Server) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(s.ClientURL(), "ingest", subjects(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	awaitUp(t, b)
	if err := b.EnsureStreams(within(t), limits, limits); err != nil {
		t.Fatal(err)
	}
	return b
}

func awaitUp(t *testing.T, b *bus.Bus) {
	t.Helper()
	select {
	case <-b.Up():
	case <-time.After(limit):
		t.Fatalf("Up has not signalled within %v", limit)
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func message(b *bus.Bus, sequence uint64) bus.Message {
	return bus.Message{Subject: b.Subjects.Telemetry("ws", "meter-1"), ID: b.Subjects.MsgID(1, sequence), Body: []byte("reading")}
}

// confirm publishes a message and waits for JetStream to have it.
func confirm(t *testing.T, b *bus.Bus, m bus.Message) *jetstream.PubAck {
	t.Helper()
	future, err := b.PublishAsync(t.Context(), m)
	if err != nil {
		t.Fatalf("PublishAsync(%s) = %v, want nil", m.ID, err)
	}
	select {
	case ack := <-future.Ok():
		return ack
	case err := <-future.Err():
		t.Fatalf("publish of %s failed: %v", m.ID, err)
	case <-time.After(limit):
		t.Fatalf("publish of %s is not confirmed within %v", m.ID, limit)
	}
	return nil
}

func streamInfo(t *testing.T, b *bus.Bus, name string) *jetstream.StreamInfo {
	t.Helper()
	stream, err := b.JetStream().Stream(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo()
}

func TestAMessageSentTwiceIsTakenOnce(t *testing.T) {
	b := connect(t, natstest.Start(t))
	for _, step := range []struct {
		sequence  uint64
		duplicate bool
		stream    uint64
	}{{1, false, 1}, {2, false, 2}, {1, true, 1}, {2, true, 2}, {3, false, 3}} {
		if ack := confirm(t, b, message(b, step.sequence)); ack.Duplicate != step.duplicate || ack.Sequence != step.stream {
			t.Errorf("ack of %d = %+v, want sequence %d, duplicate %v", step.sequence, ack, step.stream, step.duplicate)
		}
	}
	if got := streamInfo(t, b, b.Subjects.TelemetryStream()).State.Msgs; got != 3 {
		t.Errorf("messages = %d, want 3", got)
	}
}

func TestWhatAMessageCarries(t *testing.T) {
	b := connect(t, natstest.Start(t))
	ctx, span := telemetry.NewTracerProvider().Tracer("test").Start(t.Context(), "call")
	defer span.End()
	future, err := b.PublishAsync(ctx, bus.Message{
		Subject: b.Subjects.Event("policy"), ID: b.Subjects.MsgID(1, 1), Event: "reject", Body: []byte("body"),
	})
	if err != nil {
		t.Fatal(err)
	}
	<-future.Ok()
	stream, err := b.JetStream().Stream(within(t), b.Subjects.EventStream())
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream.GetMsg(within(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Data) != "body" || got.Subject != "xh.v1.site.node.evt.policy" {
		t.Errorf("message = %q on %s, want body on the event subject", got.Data, got.Subject)
	}
	for header, want := range map[string]string{
		"Nats-Msg-Id": "node/1/1", bus.EventHeader: "reject",
		"traceparent": "00-" + span.SpanContext().TraceID().String() + "-" + span.SpanContext().SpanID().String() + "-00",
	} {
		if v := got.Header[header]; len(v) != 1 || v[0] != want {
			t.Errorf("header %s = %q, want %q", header, v, want)
		}
	}
}

func TestAwayAndBack(t *testing.T) {
	s := natstest.Start(t)
	b := connect(t, s)
	confirm(t, b, message(b, 1))
	address, dir := s.ClientURL(), s.StoreDir()
	s.Shutdown()
	s.WaitForShutdown()
	testkit.Eventually(t, limit, "the bus to notice", func() bool { return !b.Connected() })
	for _, sequence := range []uint64{2, 3} {
		if _, err := b.PublishAsync(t.Context(), message(b, sequence)); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("PublishAsync while NATS is away = %v, want fault.ErrUnavailable", err)
		}
	}
	if err := b.EnsureStreams(within(t), limits, limits); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("EnsureStreams while NATS is away = %v, want fault.ErrUnavailable", err)
	}
	again := natstest.Restart(t, portOf(t, address), dir)
	awaitUp(t, b)
	if again.ClientURL() != address {
		t.Fatalf("server is back on %s, want %s", again.ClientURL(), address)
	}
	// The one that was confirmed is known; those that failed were not buffered.
	for _, step := range []struct {
		sequence  uint64
		duplicate bool
	}{{1, true}, {2, false}, {3, false}} {
		if ack := confirm(t, b, message(b, step.sequence)); ack.Duplicate != step.duplicate {
			t.Errorf("ack of %d = %+v, want duplicate %v", step.sequence, ack, step.duplicate)
		}
	}
	if got := streamInfo(t, b, b.Subjects.TelemetryStream()).State.Msgs; got != 3 {
		t.Errorf("messages = %d, want 3", got)
	}
}

func TestConnectBeforeTheServer(t *testing.T) {
	s := natstest.Start(t)
	address, dir := s.ClientURL(), s.StoreDir()
	s.Shutdown()
	s.WaitForShutdown()
	b, err := bus.Connect(address, "ingest", subjects(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("Connect while NATS is away = %v, want nil", err)
	}
	t.Cleanup(b.Close)
	if _, err := b.PublishAsync(t.Context(), message(b, 1)); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("PublishAsync = %v, want fault.ErrUnavailable", err)
	}
	natstest.Restart(t, portOf(t, address), dir)
	awaitUp(t, b)
	if err := b.EnsureStreams(within(t), limits, limits); err != nil {
		t.Fatal(err)
	}
	confirm(t, b, message(b, 1))
}

func TestConnectRefusesABadURL(t *testing.T) {
	if b, err := bus.Connect("nats://%zz", "ingest", subjects(t), slog.New(slog.DiscardHandler)); err == nil {
		b.Close()
		t.Error("Connect(nats://%zz) = nil, want an error")
	}
}

func TestEnsureStreams(t *testing.T) {
	b := connect(t, natstest.Start(t))
	confirm(t, b, message(b, 1))
	steps := []struct {
		name     string
		tel, evt bus.Limits
		dedupe   time.Duration
	}{
		{"as they are", limits, limits, 30 * time.Second},
		{"larger", bus.Limits{MaxBytes: 2 << 20, MaxAge: 2 * time.Hour}, bus.Limits{MaxBytes: 3 << 20, MaxAge: 3 * time.Hour}, 30 * time.Second},
		{"shorter than ids are kept", bus.Limits{MaxBytes: 2 << 20, MaxAge: 20 * time.Second}, limits, 20 * time.Second},
		{"without bounds", bus.Limits{}, bus.Limits{}, 30 * time.Second},
	}
	for _, step := range steps {
		if err := b.EnsureStreams(within(t), step.tel, step.evt); err != nil {
			t.Errorf("%s: EnsureStreams = %v, want nil", step.name, err)
			continue
		}
		for name, want := range map[string]bus.Limits{b.Subjects.TelemetryStream(): step.tel, b.Subjects.EventStream(): step.evt} {
			info := streamInfo(t, b, name)
			if want.MaxBytes == 0 {
				want.MaxBytes = -1 // JetStream's way to say no bound
			}
			if info.Config.MaxBytes != want.MaxBytes || info.Config.MaxAge != want.MaxAge || info.Config.Discard != jetstream.DiscardOld {
				t.Errorf("%s: %s has %d bytes, %v, want %+v", step.name, name, info.Config.MaxBytes, info.Config.MaxAge, want)
			}
		}
		tel := streamInfo(t, b, b.Subjects.TelemetryStream())
		if tel.Config.Duplicates != step.dedupe || tel.State.Msgs != 1 {
			t.Errorf("%s: dedupe %v, %d messages, want %v and 1", step.name, tel.Config.Duplicates, tel.State.Msgs, step.dedupe)
		}
	}
}

func portOf(t *testing.T, raw string) int {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

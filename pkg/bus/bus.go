package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/telemetry"
)

const (
	// ackTimeout is how long a publish waits for JetStream before it counts as
	// failed and its owner sends it again under the same id.
	ackTimeout = 5 * time.Second
	// maxPending bounds the publishes that wait for JetStream.
	maxPending = 16384
	// dedupe is how long JetStream remembers a Nats-Msg-Id: several attempts on
	// one message. It remembers them in memory, about 150 bytes each, so its
	// default of two minutes costs 100 MB at 6,400 messages/s.
	dedupe = 30 * time.Second
)

// Limits bounds a stream: whatever is older, or beyond the size, goes. 0 means
// no bound.
type Limits struct {
	MaxBytes int64
	MaxAge   time.Duration
}

// dedupe is at most MaxAge: JetStream refuses to remember ids of messages that
// are gone.
func (l Limits) dedupe() time.Duration {
	if l.MaxAge > 0 {
		return min(dedupe, l.MaxAge)
	}
	return dedupe
}

// EventHeader names the kind of an event on an Event subject.
const EventHeader = "Xh-Event"

// Bus is a connection to the node's NATS. It is there from the start, whether
// NATS is or not: publishing while NATS is away fails at once with
// fault.ErrUnavailable, and works again when NATS is back.
type Bus struct {
	Subjects Subjects

	conn *nats.Conn
	js   jetstream.JetStream
	up   chan struct{}
}

// Connect starts the connection of a service. It fails only on a bad URL.
func Connect(url, service string, subjects Subjects, log *slog.Logger) (*Bus, error) {
	b := &Bus{Subjects: subjects, up: make(chan struct{}, 1)}
	signal := func() {
		select {
		case b.up <- struct{}{}:
		default: // it is signalled already
		}
	}
	conn, err := nats.Connect(url,
		nats.Name("xinghuo-"+service),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2),
		nats.Timeout(2*time.Second),
		// What the caller has not seen confirmed is the caller's to send
		// again, in its order; a second buffer here would reorder it.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(*nats.Conn) { log.Info("nats connected"); signal() }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("nats reconnected"); signal() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil is our own Close
				log.Warn("nats disconnected", "err", err)
			}
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to nats %s: %w", url, err)
	}
	js, err := jetstream.New(conn,
		jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	b.conn, b.js = conn, js
	return b, nil
}

// Up receives a signal after each time the connection came up. Streams are to
// be ensured and unconfirmed messages sent again then.
func (b *Bus) Up() <-chan struct{} { return b.up }

// Connected reports whether NATS is there now.
func (b *Bus) Connected() bool { return b.conn.IsConnected() }

// Conn returns the underlying connection, for subscriptions.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// JetStream returns the underlying JetStream context, for consumers.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Close ends the connection; what is not confirmed by then is not sent.
func (b *Bus) Close() { b.conn.Close() }

// EnsureStreams makes the node's streams, or brings them to these limits.
func (b *Bus) EnsureStreams(ctx context.Context, tel, evt Limits) error {
	for _, s := range []struct {
		name, subject string
		limits        Limits
	}{
		{b.Subjects.TelemetryStream(), b.Subjects.AllTelemetry(), tel},
		{b.Subjects.EventStream(), b.Subjects.AllEvents(), evt},
	} {
		if _, err := b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: s.name, Subjects: []string{s.subject},
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
			MaxBytes: s.limits.MaxBytes, MaxAge: s.limits.MaxAge, Duplicates: s.limits.dedupe(),
		}); err != nil {
			return fmt.Errorf("ensure stream %s: %w", s.name, kind(err))
		}
	}
	return nil
}

// Message is what goes on a subject: a protobuf body under an id.
type Message struct {
	Subject string
	ID      string // Nats-Msg-Id, from Subjects.MsgID
	Event   string // EventHeader; empty for telemetry
	Body    []byte // not to be changed before the future is done
}

// PublishAsync sends a message and returns at once; the future tells when
// JetStream has it. Messages of one goroutine arrive in their order.
func (b *Bus) PublishAsync(ctx context.Context, m Message) (jetstream.PubAckFuture, error) {
	if !b.conn.IsConnected() {
		return nil, fmt.Errorf("publish on %s: %w: nats is away", m.Subject, fault.ErrUnavailable)
	}
	msg := &nats.Msg{Subject: m.Subject, Data: m.Body, Header: nats.Header{jetstream.MsgIDHeader: []string{m.ID}}}
	if m.Event != "" {
		msg.Header.Set(EventHeader, m.Event)
	}
	telemetry.Propagator().Inject(ctx, carrier(msg.Header))
	future, err := b.js.PublishMsgAsync(msg)
	if err != nil {
		return nil, fmt.Errorf("publish on %s: %w", m.Subject, kind(err))
	}
	return future, nil
}

// carrier writes the trace context into a message under its names as they are:
// NATS headers, unlike HTTP's, tell upper case from lower.
type carrier nats.Header

func (c carrier) Get(key string) string { return nats.Header(c).Get(key) }
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }
func (c carrier) Keys() []string        { return slices.Collect(maps.Keys(c)) }

// kind tells a NATS that is away from one that refuses.
func kind(err error) error {
	for _, away := range []error{
		nats.ErrConnectionClosed, nats.ErrDisconnected, nats.ErrReconnectBufExceeded, nats.ErrNoServers,
		nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse, jetstream.ErrTooManyStalledMsgs,
	} {
		if errors.Is(err, away) {
			return fmt.Errorf("%w: %w", fault.ErrUnavailable, err)
		}
	}
	return err
}

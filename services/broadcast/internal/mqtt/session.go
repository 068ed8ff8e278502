package mqtt

import (
	"context"
	"errors"
	"fmt"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
)

const (
	online  = `{"online":true}`
	offline = `{"online":false}`
	// keepAlive finds a connection of which the other end is gone while there
	// is nothing to publish.
	keepAlive = 10 * time.Second
	// farewell bounds the last publish and the DISCONNECT.
	farewell = time.Second
	// maxWrite bounds a write. paho cannot be woken from handing a packet to a
	// connection that is gone before this is over.
	maxWrite = 2 * time.Second
)

// errAck is a broker that takes and does not confirm.
var errAck = errors.New("no confirmation in time")

// session is one connection's life.
type session struct {
	p      *Publisher
	client paho.Client
	dialer *dialer
	lost   chan error // holds why paho lost the connection
	timer  *time.Timer
}

// flight is a status on its way to the broker.
type flight struct {
	item  queue.Item
	token paho.Token
	sent  time.Time
}

// session connects and publishes until the connection fails, or until ctx ends
// and the source is flushed. It reports whether the broker confirmed anything.
func (p *Publisher) session(ctx context.Context, senders *errgroup.Group) (confirmed bool, err error) {
	s := &session{p: p, lost: make(chan error, 1), dialer: newDialer(context.WithoutCancel(ctx)), timer: time.NewTimer(0)}
	defer s.timer.Stop()
	s.client = paho.NewClient(s.options())
	defer s.end()
	if err := s.await(ctx, s.client.Connect(), p.cfg.AckTimeout); err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	p.connections.Add(1)
	// A broker that hangs may still answer CONNACK; it is there when it
	// confirms.
	if err := s.await(ctx, s.client.Publish(p.cfg.NodeTopic(), qos, true, online), p.cfg.AckTimeout); err != nil {
		return false, fmt.Errorf("publish the node's status: %w", err)
	}
	p.connected.Store(true)
	p.state(nil)
	return true, s.publish(ctx, senders)
}

func (s *session) options() *paho.ClientOptions {
	cfg := &s.p.cfg
	return paho.NewClientOptions().
		AddBroker(cfg.URL).
		SetClientID("xinghuo-broadcast-"+cfg.Site+"-"+cfg.Node).
		SetProtocolVersion(4). // else every failure is tried again with MQTT 3.1
		SetCleanSession(true).SetStore(noStore{}).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetConnectTimeout(cfg.AckTimeout).SetWriteTimeout(min(cfg.AckTimeout, maxWrite)).
		SetKeepAlive(keepAlive).SetPingTimeout(cfg.AckTimeout).
		SetWill(cfg.NodeTopic(), offline, qos, true).
		SetCustomOpenConnectionFn(s.dialer.open).
		SetConnectionLostHandler(func(_ paho.Client, err error) { s.lost <- err }) // called once: it does not reconnect
}

// await waits for a token, for the connection's loss, or until the time is up.
func (s *session) await(ctx context.Context, token paho.Token, limit time.Duration) error {
	s.timer.Reset(limit)
	select {
	case <-token.Done():
		return token.Error()
	case err := <-s.lost:
		s.lost <- err // for end
		return err
	case <-s.timer.C:
		return fmt.Errorf("%w (%v)", errAck, limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish brings statuses to the broker, with up to a window of them in flight.
func (s *session) publish(ctx context.Context, senders *errgroup.Group) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	flights := make(chan flight, s.p.cfg.Window)
	senders.Go(func() error { s.send(life, flights); return nil })
	flushed := make(chan error, 1)
	senders.Go(func() error { s.flush(ctx, life, flushed); return nil })

	err := s.confirm(flights, flushed)
	if errors.Is(err, errStopped) {
		s.leave()
	}
	s.dialer.kill() // before the retries: nothing of this connection may come after them
	cancel()
	senders.Go(func() error {
		for f := range flights { // ends when send does
			s.retry(f.item)
		}
		return nil
	})
	return err
}

// send takes statuses and hands them to paho. Publish waits while the
// connection's buffers are full, at most for the write timeout.
func (s *session) send(ctx context.Context, flights chan<- flight) {
	defer close(flights)
	for {
		item, err := s.p.source.Take(ctx)
		if err != nil {
			return
		}
		token := s.client.Publish(s.p.cfg.StatusTopic(item.Device), qos, true, item.Payload)
		select {
		case flights <- flight{item, token, time.Now()}:
		case <-ctx.Done():
			s.retry(item)
			return
		}
	}
}

// confirm waits for the confirmation of each status, in the order in which they
// were sent: brokers confirm in that order (MQTT-4.6.0-2).
func (s *session) confirm(flights <-chan flight, flushed <-chan error) error {
	for {
		select {
		case f := <-flights:
			s.timer.Reset(time.Until(f.sent.Add(s.p.cfg.AckTimeout)))
			select {
			case <-f.token.Done():
			case err := <-s.lost:
				s.lost <- err // for end
				s.retry(f.item)
				return fmt.Errorf("connection lost: %w", err)
			case err := <-flushed:
				s.retry(f.item)
				return err
			case <-s.timer.C:
				s.retry(f.item)
				return fmt.Errorf("publish the status of %s: %w (%v)", f.item.Device, errAck, s.p.cfg.AckTimeout)
			}
			if err := f.token.Error(); err != nil {
				s.retry(f.item)
				return fmt.Errorf("publish the status of %s: %w", f.item.Device, err)
			}
			s.p.source.Done(f.item)
		case err := <-s.lost:
			s.lost <- err // for end
			return fmt.Errorf("connection lost: %w", err)
		case err := <-flushed:
			return err
		}
	}
}

func (s *session) retry(item queue.Item) {
	s.p.retried.Add(1)
	s.p.source.Retry(item)
}

// flush waits for the service's end, then until nothing is queued or the time
// for it is over, and says which: errStopped is the good end.
func (s *session) flush(ctx, life context.Context, flushed chan<- error) {
	select {
	case <-ctx.Done():
	case <-life.Done():
		return
	}
	limited, cancel := context.WithTimeout(life, s.p.cfg.Flush)
	defer cancel()
	if err := s.p.source.WaitEmpty(limited); err != nil {
		flushed <- err
		return
	}
	flushed <- errStopped
}

// leave says goodbye. The will does not speak for a client that disconnects in
// order; for one that had to stop with statuses unconfirmed, it does.
func (s *session) leave() {
	token := s.client.Publish(s.p.cfg.NodeTopic(), qos, true, offline)
	if s.await(context.Background(), token, farewell) == nil {
		s.client.Disconnect(uint(farewell.Milliseconds()))
	}
}

// end makes sure that paho is done with the connection: it notices the loss by
// the errors of its reads and writes.
func (s *session) end() {
	s.dialer.kill()
	if !s.client.IsConnectionOpen() {
		return
	}
	s.timer.Reset(farewell)
	select {
	case <-s.lost: //nolint:errcheck // why it was lost changes nothing here
	case <-s.timer.C:
	}
}

// Package mqtt publishes statuses to an MQTT 3.1.1 broker: retained, QoS 1, to
// `xinghuo/<site>/<node>/devices/<device>/status`. The node itself is at
// `xinghuo/<site>/<node>/status`: `{"online":true}`, or `{"online":false}` by
// last will and when the node stops.
//
// Each connection is a paho client of its own with a clean session, and never
// reconnects by itself: paho's automatic reconnection completes the tokens of
// statuses that are not delivered, and its waits have no end. Here every status
// stays in its queue until the broker's PUBACK, and a PUBACK that does not come
// in time ends the connection. A status may so arrive twice, but never after a
// newer one of its device: there is one in flight of each, and a broker ends
// the old connection of a client id before it takes from the new one
// (MQTT-3.1.4-2).
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	qos        = 1
)

// Source hands out the statuses.
type Source interface {
	Take(ctx context.Context) (queue.Item, error)
	Done(item queue.Item)
	Retry(item queue.Item)
	WaitEmpty(ctx context.Context) error
}

// Config says where to publish and how long to wait.
type Config struct {
	URL        string        // tcp://host:port or mqtt://host:port
	Site, Node string        // tokens
	AckTimeout time.Duration // for a write, a CONNACK and a PUBACK each
	Flush      time.Duration // for what is queued when the service stops
	Window     int           // the source's limit of statuses in flight
}

// CheckURL returns why a URL is none of a broker.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("must be tcp://host:port: %w", err)
	}
	if _, port, err := net.SplitHostPort(u.Host); (u.Scheme != "tcp" && u.Scheme != "mqtt") || err != nil || port == "" || u.User != nil || u.Path != "" {
		return fmt.Errorf("must be tcp://host:port or mqtt://host:port, is %q", raw)
	}
	return nil
}

// Stats counts what happened.
type Stats struct {
	Connected   bool   // the broker has confirmed a publish on the connection
	Connections uint64 // connections that were made
	Retried     uint64 // publishes that were not confirmed and went back to their queue
}

// Publisher brings statuses from a source to the broker.
type Publisher struct {
	cfg    Config
	source Source
	state  func(away error)

	connected   atomic.Bool
	connections atomic.Uint64
	retried     atomic.Uint64
}

// New returns a publisher. It calls state with nil when the broker is there and
// with the reason when it is not; never two at once.
func New(cfg Config, source Source, state func(away error)) *Publisher {
	return &Publisher{cfg: cfg, source: source, state: state}
}

// Stats returns the counts.
func (p *Publisher) Stats() Stats {
	return Stats{Connected: p.connected.Load(), Connections: p.connections.Load(), Retried: p.retried.Load()}
}

// StatusTopic is where a device's status goes.
func (c *Config) StatusTopic(device string) string {
	return c.base() + "/devices/" + device + "/status"
}

// NodeTopic is where the node's own status goes.
func (c *Config) NodeTopic() string { return c.base() + "/status" }

func (c *Config) base() string { return "xinghuo/" + c.Site + "/" + c.Node }

// errStopped ends a connection in order.
var errStopped = errors.New("stopped")

// Run connects and publishes, again and again, until ctx ends. If the broker is
// there then, what is queued gets cfg.Flush to go out.
func (p *Publisher) Run(ctx context.Context) error {
	var senders errgroup.Group // of all connections: one may be held up in paho for a write's timeout
	pause := firstPause
	for {
		confirmed, err := p.session(ctx, &senders)
		p.connected.Store(false)
		if errors.Is(err, errStopped) || ctx.Err() != nil {
			return senders.Wait()
		}
		p.state(err)
		if confirmed {
			pause = firstPause
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) // nodes that lost one broker come back one by one
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return senders.Wait()
		}
		pause = min(2*pause, maxPause)
	}
}

package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// errGivenUp is what paho reads and writes on a connection that kill ended. It
// must not be net.ErrClosed: paho takes that for an end of its own making and
// never reports the connection as lost.
var errGivenUp = errors.New("connection given up")

// conn is a connection that can be ended without paho's help, which may be
// blocked in a write to it.
type conn struct {
	net.Conn
	r    *bufio.Reader // paho reads a packet in three small reads
	dead atomic.Bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	return n, c.kind(err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.kind(err)
}

func (c *conn) kind(err error) error {
	if err != nil && c.dead.Load() {
		return errGivenUp
	}
	return err
}

// kill ends the connection at once. What the kernel has not sent is thrown
// away, so that a broker that wakes up does not find old statuses in it.
func (c *conn) kill() {
	c.dead.Store(true)
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// dialer opens the one connection of a paho client.
type dialer struct {
	ctx    context.Context //nolint:containedctx // paho's callback takes none
	cancel context.CancelFunc
	opened atomic.Pointer[conn]
}

func newDialer(ctx context.Context) *dialer {
	d := new(dialer)
	d.ctx, d.cancel = context.WithCancel(ctx)
	return d
}

func (d *dialer) open(u *url.URL, opts paho.ClientOptions) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, opts.ConnectTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	c := &conn{Conn: raw, r: bufio.NewReader(raw)}
	d.opened.Store(c)
	if err := d.ctx.Err(); err != nil { // kill came before the Store and found nothing
		c.kill()
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	return c, nil
}

// kill ends the connection, also one that is being made.
func (d *dialer) kill() {
	d.cancel()
	if c := d.opened.Load(); c != nil {
		c.kill()
	}
}

// noStore stands in for paho's store. Every connection is a clean session and
// the queues keep what is not confirmed, so a second copy would only grow.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

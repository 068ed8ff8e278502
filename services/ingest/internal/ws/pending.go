package ws

import (
	"container/list"
	"context"
	"net"
	"sync"
)

// pending holds the connections that have not said who they are. When there
// are too many, the oldest goes: a flood of silent sockets costs a bounded
// number of them, and a device that talks at once still gets in.
type pending struct {
	max     int
	evicted func()

	mu    sync.Mutex // guards order
	order *list.List // of *pendingConn, oldest first
}

func newPending(limit int, evicted func()) *pending {
	return &pending{max: limit, evicted: evicted, order: list.New()}
}

// listener wraps each accepted connection.
type listener struct {
	net.Listener
	pending *pending
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.pending.add(c), nil
}

type pendingConn struct {
	net.Conn
	owner *pending
	entry *list.Element // guarded by owner.mu; nil once it is no longer pending
}

func (p *pending) add(c net.Conn) net.Conn {
	pc := &pendingConn{Conn: c, owner: p}
	p.mu.Lock()
	pc.entry = p.order.PushBack(pc)
	var oldest *pendingConn
	if p.order.Len() > p.max {
		oldest = p.order.Remove(p.order.Front()).(*pendingConn)
		oldest.entry = nil
	}
	p.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
		p.evicted()
	}
	return pc
}

// known takes the connection off the list: its device is known.
func (c *pendingConn) known() {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	if c.entry != nil {
		c.owner.order.Remove(c.entry)
		c.entry = nil
	}
}

// Close implements net.Conn.
func (c *pendingConn) Close() error {
	c.known()
	return c.Conn.Close()
}

// connKey carries the pendingConn from http's ConnContext to the handler.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

package ws

import (
	"net"
	"testing"
)

// closing is a connection that knows whether it was closed.
type closing struct {
	net.Conn
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

func TestTheOldestPendingConnectionGoes(t *testing.T) {
	evicted := 0
	p := newPending(2, func() { evicted++ })
	conns := make([]*closing, 5)
	wrapped := make([]*pendingConn, len(conns))
	add := func(i int) {
		conns[i] = new(closing)
		wrapped[i] = p.add(conns[i]).(*pendingConn)
	}
	add(0)
	add(1)
	wrapped[0].known() // it said who it is: it is not pending any more
	add(2)
	if evicted != 0 {
		t.Errorf("evicted = %d, want 0: two are pending", evicted)
	}
	add(3)
	add(4)
	for i, want := range []int{0, 1, 1, 0, 0} {
		if conns[i].closed != want {
			t.Errorf("connection %d was closed %d times, want %d", i, conns[i].closed, want)
		}
	}
	_ = wrapped[3].Close()
	wrapped[4].known()
	wrapped[1].known() // evicted before: nothing is left to take off
	if evicted != 2 || p.order.Len() != 0 {
		t.Errorf("evicted = %d, %d pending, want 2 and 0", evicted, p.order.Len())
	}
}

// Package mqtttest gives tests brokers, a gate to make them fail, and a
// subscriber. Tests only.
package mqtttest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Gate is a door before a broker that can be made to fail.
type Gate struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex // guards what follows
	mode   mode
	target string
	thaw   chan struct{}
	conns  map[net.Conn]bool
}

type mode int

const (
	pass   mode = iota
	refuse      // closes every connection
	hang        // takes the CONNECT, answers CONNACK and then does nothing
	freeze      // what is open stops in the middle of a packet, what is new hangs
)

// NewGate opens a gate before the broker at a URL; it ends with the test.
func NewGate(t testing.TB, broker string) *Gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{ln: ln, target: host(broker), thaw: make(chan struct{}), conns: make(map[net.Conn]bool)}
	g.wg.Go(g.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		g.set(refuse, "")
		g.wg.Wait()
	})
	return g
}

func host(url string) string { return strings.TrimPrefix(url, "tcp://") }

// URL is where clients find the gate.
func (g *Gate) URL() string { return "tcp://" + g.ln.Addr().String() }

// Pass lets everything through.
func (g *Gate) Pass() { g.set(pass, "") }

// To closes what is open, and lets everything through to another broker.
func (g *Gate) To(broker string) {
	g.set(refuse, broker)
	g.set(pass, "")
}

// Refuse closes what is open and what comes.
func (g *Gate) Refuse() { g.set(refuse, "") }

// Hang closes what is open; what comes gets a CONNACK and then nothing.
func (g *Gate) Hang() {
	g.set(refuse, "")
	g.set(hang, "")
}

// Freeze stops what is open in the middle of a packet; what comes hangs.
func (g *Gate) Freeze() { g.set(freeze, "") }

func (g *Gate) set(m mode, broker string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = m
	if broker != "" {
		g.target = host(broker)
	}
	if m != freeze && m != hang {
		close(g.thaw)
		g.thaw = make(chan struct{})
	}
	if m == refuse {
		for c := range g.conns {
			_ = c.Close()
		}
	}
}

func (g *Gate) accept() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() { g.serve(c) })
	}
}

func (g *Gate) serve(c net.Conn) {
	defer g.open(c)()
	g.mu.Lock()
	m, target, thaw := g.mode, g.target, g.thaw
	g.mu.Unlock()
	switch m {
	case refuse:
	case hang, freeze:
		if _, err := c.Read(make([]byte, 1024)); err == nil {
			_, _ = c.Write([]byte{0x20, 2, 0, 0}) // CONNACK, accepted
		}
		<-thaw
	case pass:
		up, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer g.open(up)()
		back := make(chan struct{})
		g.wg.Go(func() {
			defer close(back)
			g.copy(c, up)
		})
		g.copy(up, c)
		<-back
	}
}

// open keeps a connection so that it can be closed from outside.
func (g *Gate) open(c net.Conn) (closeIt func()) {
	g.mu.Lock()
	g.conns[c] = true
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
		_ = c.Close()
	}
}

func (g *Gate) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		g.mu.Lock()
		frozen, thaw := g.mode == freeze, g.thaw
		g.mu.Unlock()
		if frozen {
			_, _ = to.Write(buf[:n/2])
			<-thaw
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

package fleet

import (
	"net"
	"sync"
	"time"
)

// writeLimit bounds one write; a node that takes nothing for as long is left
// and reached anew.
const writeLimit = 10 * time.Second

// corkSize is where a corked connection writes at once.
const corkSize = 64 << 10

// corked is a connection that can hold writes back, so that the frames of one
// wake-up cost one system call.
type corked struct {
	net.Conn

	mu   sync.Mutex // guards all below; writes are made with it held
	held bool
	buf  []byte
}

// SetWriteDeadline does nothing: each real write has a deadline of its own.
func (c *corked) SetWriteDeadline(time.Time) error { return nil }

// Write implements net.Conn.
func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.write(p)
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) < corkSize {
		return len(p), nil
	}
	return len(p), c.flush()
}

// cork holds writes back until uncork.
func (c *corked) cork() {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
}

// uncork writes what is held back.
func (c *corked) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	return c.flush()
}

func (c *corked) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.write(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *corked) write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

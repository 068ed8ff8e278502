package device

import (
	"context"
	"fmt"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// maxCommands bounds the commands that a device has open.
const maxCommands = 16

// Command goes down to a device.
type Command struct {
	ID       uint64
	Payload  []byte
	Deadline time.Time // after it nobody waits for the answer
}

// Result is a device's answer to a command.
type Result struct {
	OK      bool
	Payload []byte
	err     error
}

// commands are those that wait for their answer.
type commands struct {
	last uint64
	open map[uint64]chan Result // each holds one
}

func (c *commands) failAll(err error) {
	for id, ch := range c.open {
		delete(c.open, id)
		ch <- Result{err: err}
	}
}

// Send sends a command and waits for the answer until ctx ends. It fails with
// fault.ErrUnavailable when the device is not connected, fault.ErrExhausted
// when it has too many commands open, and context.DeadlineExceeded.
func (d *Device) Send(ctx context.Context, payload []byte) (Result, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return Result{}, fmt.Errorf("send command: %w: no deadline", fault.ErrInvalid)
	}
	id, answer, err := d.begin(payload, deadline)
	if err != nil {
		return Result{}, err
	}
	select {
	case r := <-answer:
		return r, r.err
	case <-ctx.Done():
		d.forget(id)
		return Result{}, fmt.Errorf("device %s did not answer: %w", d.ID, ctx.Err())
	}
}

func (d *Device) begin(payload []byte, deadline time.Time) (uint64, <-chan Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.link == nil:
		return 0, nil, fmt.Errorf("%w: device %s is not connected", fault.ErrUnavailable, d.ID)
	case len(d.commands.open) >= maxCommands:
		return 0, nil, fmt.Errorf("%w: device %s has %d commands open, the limit", fault.ErrExhausted, d.ID, maxCommands)
	}
	d.commands.last++
	id := d.commands.last
	if err := d.link.Command(Command{ID: id, Payload: payload, Deadline: deadline}); err != nil {
		return 0, nil, err
	}
	answer := make(chan Result, 1)
	if d.commands.open == nil {
		d.commands.open = make(map[uint64]chan Result)
	}
	d.commands.open[id] = answer
	return id, answer, nil
}

func (d *Device) forget(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.commands.open, id)
}

// Answer hands a device's answer to who waits for it, and reports whether
// anyone does.
func (d *Device) Answer(id uint64, r Result) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	ch, ok := d.commands.open[id]
	if !ok {
		return false
	}
	delete(d.commands.open, id)
	ch <- r
	return true
}

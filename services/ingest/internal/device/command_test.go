package device_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// link is a device that keeps its commands.
type link struct{ commands []device.Command }

func (*link) AckDue()                          {}
func (*link) Replaced()                        {}
func (l *link) Command(c device.Command) error { l.commands = append(l.commands, c); return nil }

func connect(t *testing.T, l device.Link) (*device.Registry, *device.Device) {
	t.Helper()
	r := device.NewRegistry(1)
	d, _, err := r.Connect("meter-1", l, device.Hello{Source: "ws", Session: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r, d
}

// TestSendEndsAtItsDeadline runs on a clock that only moves when nothing else
// can: what is asserted is the code's time, without the machine's.
func TestSendEndsAtItsDeadline(t *testing.T) {
	for _, deadline := range []time.Duration{time.Millisecond, 7 * time.Millisecond, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			_, d := connect(t, new(link))
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			begin := time.Now()
			_, err := d.Send(ctx, []byte("read"))
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != deadline {
				t.Errorf("Send = %v after %v, want the deadline after %v", err, took, deadline)
			}
		})
	}
}

func TestSendIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(link)
		_, d := connect(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			synctest.Wait() // until Send waits
			if d.Answer(99, device.Result{OK: true}) {
				t.Error("an answer to no command was taken")
			}
			if !d.Answer(l.commands[0].ID, device.Result{OK: true, Payload: []byte("42")}) {
				t.Error("the answer was not taken")
			}
			if d.Answer(l.commands[0].ID, device.Result{}) {
				t.Error("a second answer was taken")
			}
		}()
		got, err := d.Send(ctx, []byte("read"))
		if err != nil || string(got.Payload) != "42" || string(l.commands[0].Payload) != "read" {
			t.Errorf("Send = %s, %v, want 42", got.Payload, err)
		}
	})
}

func TestSendFailsWithItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(link)
		r, d := connect(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			synctest.Wait()
			r.Disconnect(d, l)
		}()
		if _, err := d.Send(ctx, nil); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("Send to a device that leaves = %v, want ErrUnavailable", err)
		}
		if _, err := d.Send(ctx, nil); !errors.Is(err, fault.ErrUnavailable) {
			t.Errorf("Send to a device that left = %v, want ErrUnavailable", err)
		}
	})
}

func TestRegistryIsBounded(t *testing.T) {
	r, _ := connect(t, new(link))
	if _, _, err := r.Connect("meter-2", new(link), device.Hello{Session: 1}); !errors.Is(err, fault.ErrExhausted) {
		t.Errorf("Connect beyond max_devices = %v, want ErrExhausted", err)
	}
	if _, _, err := r.Connect("meter-1", new(link), device.Hello{Session: 1}); err != nil {
		t.Errorf("Connect of a known device = %v, want it let in", err)
	}
}

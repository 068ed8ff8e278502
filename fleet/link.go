package fleet

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"

	"github.com/xinghuo-edge/xinghuo/fleet/internal/household"
)

const (
	pingEvery  = 20 * time.Second
	readLimit  = 3 * pingEvery // how long the node may be silent
	closeLimit = time.Second   // how long the node has to answer a close
	maxBurst   = 64            // frames that go out before anything else gets its turn
)

// link is one connection of a meter: one goroutine reads, one writes.
type link struct {
	meter *meter
	raw   *corked
	ws    *websocket.Conn
	kind  int // of its messages

	acked   chan struct{} // holds one: the writer may go on
	answers chan answer
	done    atomic.Bool // set before the meter closes of its own accord
	bounded atomic.Bool // the read deadline is the last one

	in    []byte             // the reader's
	frame devicev1.NodeFrame // the reader's

	out     []byte           // the writer's
	items   []household.Item // the writer's
	delayed []answer         // the writer's
}

// watchPings counts every control frame as a sign of life.
func (l *link) watchPings() {
	alive := func() {
		if !l.bounded.Load() {
			_ = l.raw.SetReadDeadline(time.Now().Add(readLimit))
		}
	}
	answer := l.ws.PingHandler()
	l.ws.SetPingHandler(func(data string) error { alive(); return answer(data) })
	l.ws.SetPongHandler(func(string) error { alive(); return nil })
	_ = l.raw.SetReadDeadline(time.Now().Add(handshakeLimit)) // until the Welcome
}

// receive reads one frame; it is valid until the next one.
func (l *link) receive() (*devicev1.NodeFrame, error) {
	kind, r, err := l.ws.NextReader()
	if err != nil {
		return nil, err
	}
	l.in = l.in[:0]
	for {
		if len(l.in) == cap(l.in) {
			l.in = append(l.in, 0)[:len(l.in)]
		}
		n, err := r.Read(l.in[len(l.in):cap(l.in)])
		l.in = l.in[:len(l.in)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if kind != l.kind {
		return nil, errors.New("the frame is not of the sub-protocol's kind")
	}
	if err := l.meter.fleet.encoder.Unmarshal(l.in, &l.frame); err != nil {
		return nil, err
	}
	return &l.frame, nil
}

// read handles what comes from the node until the connection ends.
func (l *link) read() error {
	_ = l.raw.SetReadDeadline(time.Now().Add(readLimit))
	for {
		frame, err := l.receive()
		if err != nil {
			return err
		}
		switch body := frame.GetBody().(type) {
		case *devicev1.NodeFrame_Ack:
			if l.meter.ack(body.Ack) {
				select {
				case l.acked <- struct{}{}:
				default: // it is told already
				}
			}
		case *devicev1.NodeFrame_Command:
			l.command(body.Command)
		default: // a second Welcome, or a frame of a newer node
			l.meter.fault()
		}
	}
}

// write sends what falls due until the context ends, a write fails, or the
// meter has nothing more to do. What is wrong with the connection the reader
// says.
func (l *link) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ending := l.meter.fleet.ending
	ping := time.Now().Add(pingEvery)
	for {
		now := time.Now()
		more, err := l.pump(now)
		if err == nil {
			err = l.answer(now)
		}
		if err == nil && now.After(ping) {
			ping = now.Add(pingEvery)
			err = l.ws.WriteControl(websocket.PingMessage, nil, now.Add(writeLimit))
		}
		if err != nil {
			l.bound()
			return
		}
		if ending == nil && l.meter.drained() {
			l.done.Store(true)
			_ = l.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), now.Add(closeLimit))
			l.bound()
			return
		}
		wake := now
		if !more {
			wake = l.wake(now, ping)
		}
		timer.Reset(wake.Sub(now))
		select {
		case <-timer.C:
		case <-l.acked:
		case a := <-l.answers:
			l.delayed = append(l.delayed, a)
		case <-ending:
			ending = nil
			l.meter.drained() // ends the measuring
		case <-ctx.Done():
			return
		}
	}
}

// bound gives the reader a last moment to read why the connection ends.
func (l *link) bound() {
	l.bounded.Store(true)
	_ = l.raw.SetReadDeadline(time.Now().Add(closeLimit))
}

// pump sends the frames that are due; more means that there are still some.
func (l *link) pump(now time.Time) (more bool, err error) {
	l.raw.cork()
	frames := 0
	for ; err == nil && frames < maxBurst; frames++ {
		if l.items = l.meter.take(now, l.items[:0]); len(l.items) == 0 {
			break
		}
		l.out = l.meter.fleet.encoder.Append(l.out[:0], l.items)
		err = l.ws.WriteMessage(l.kind, l.out)
	}
	return frames == maxBurst, errors.Join(err, l.raw.uncork())
}

// wake returns when the writer has something to do even if nothing comes in.
func (l *link) wake(now, ping time.Time) time.Time {
	at := ping
	if due, ok := l.meter.wake(now); ok && due.Before(at) {
		at = due
	}
	for _, a := range l.delayed {
		if a.at.Before(at) {
			at = a.at
		}
	}
	return at
}

func (l *link) send(f *devicev1.DeviceFrame) error {
	raw, err := l.meter.fleet.encoder.Marshal(f)
	if err != nil {
		return err
	}
	return l.ws.WriteMessage(l.kind, raw)
}

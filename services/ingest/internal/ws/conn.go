package ws

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/types/known/timestamppb"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// Close codes of our own, from the private range (RFC 6455, section 7.4.2).
const (
	CloseHelloTimeout = 4408
	CloseReplaced     = 4409
)

// maxReason is what a close frame holds beside its code.
const maxReason = 123

// conn is one device's WebSocket: a goroutine that reads, which is the HTTP
// handler's, and one that writes.
type conn struct {
	door  *Door
	ws    *websocket.Conn
	peer  *pendingConn
	id    string
	codec codec

	opened   chan struct{}  // closed when the Hello is taken
	device   *device.Device // set before opened closes
	acked    uint64         // what the Welcome says; set before opened closes
	ackDue   chan struct{}  // holds one
	commands chan device.Command

	endOnce sync.Once
	ended   chan struct{} // closed by end
	code    int           // set before ended closes
	reason  string
}

func newConn(d *Door, ws *websocket.Conn, id string, c codec) *conn {
	return &conn{
		door: d, ws: ws, id: id, codec: c,
		opened: make(chan struct{}), ackDue: make(chan struct{}, 1), commands: make(chan device.Command, 16), ended: make(chan struct{}),
	}
}

// AckDue implements device.Link.
func (c *conn) AckDue() {
	select {
	case c.ackDue <- struct{}{}:
	default: // one acknowledgement covers all
	}
}

// Command implements device.Link.
func (c *conn) Command(cmd device.Command) error {
	select {
	case c.commands <- cmd:
		return nil
	default:
		return fmt.Errorf("%w: device %s does not take its commands", fault.ErrExhausted, c.id)
	}
}

// Replaced implements device.Link.
func (c *conn) Replaced() { c.end(CloseReplaced, "replaced by a newer connection") }

// end asks both goroutines to end; the first reason is what the device is told.
func (c *conn) end(code int, reason string) {
	c.endOnce.Do(func() {
		// A cut may split a character, and a close reason must be UTF-8.
		c.code, c.reason = code, strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
		close(c.ended)
	})
}

// serve runs the connection until it ends.
func (c *conn) serve() error {
	c.ws.SetReadLimit(MaxFrame)
	written := make(chan struct{})
	go func() { // ends when c.ended closes
		defer close(written)
		c.write()
	}()
	err := c.open()
	if err == nil {
		err = c.read()
	}
	c.end(c.closeCode(err))
	<-written
	return errors.Join(err, c.ws.Close())
}

// closeCode says what a device is told about the end, and counts what was its
// fault.
func (c *conn) closeCode(err error) (int, string) {
	refuse := c.door.cfg.Ledger.Refuse
	var ce *websocket.CloseError
	switch {
	case errors.Is(err, errHelloTimeout):
		refuse("hello_timeout")
		return CloseHelloTimeout, err.Error()
	case errors.Is(err, errMalformed):
		refuse("malformed_frame")
		return websocket.CloseInvalidFramePayloadData, err.Error()
	case errors.Is(err, websocket.ErrReadLimit):
		refuse("oversized_frame")
		return websocket.CloseMessageTooBig, fmt.Sprintf("frame: must be at most %d bytes", MaxFrame)
	case errors.Is(err, fault.ErrInvalid):
		refuse("invalid_frame")
		return websocket.ClosePolicyViolation, err.Error()
	case errors.Is(err, fault.ErrExhausted):
		refuse("too_many_devices")
		return websocket.CloseTryAgainLater, err.Error()
	case errors.As(err, &ce):
		return websocket.CloseNormalClosure, ""
	}
	return websocket.CloseGoingAway, ""
}

var (
	errHelloTimeout = fmt.Errorf("no hello within %v", helloTimeout)
	errMalformed    = errors.New("malformed frame")
	errEnded        = errors.New("connection ended")
)

// open takes the Hello.
func (c *conn) open() error {
	_ = c.alive(helloTimeout)
	var buf bytes.Buffer
	var frame devicev1.DeviceFrame
	if err := c.receive(&buf, &frame); err != nil {
		var timeout interface{ Timeout() bool }
		if errors.As(err, &timeout) && timeout.Timeout() {
			return errHelloTimeout
		}
		return err
	}
	hello := frame.GetHello()
	if err := checkHello(hello); err != nil {
		return err
	}
	d, acked, err := c.door.cfg.Devices.Connect(c.id, c, device.Hello{
		Source: Source, Session: hello.GetSession(), Model: hello.GetModel(), Firmware: hello.GetFirmware(),
	})
	if err != nil {
		return err
	}
	c.device, c.acked = d, acked
	if c.peer != nil {
		c.peer.known()
	}
	close(c.opened)
	select {
	case <-c.ended: // the writer may have left without seeing opened
		c.door.cfg.Devices.Disconnect(d, c)
		return errEnded
	default:
		return nil
	}
}

// alive lets the device be silent for so long.
func (c *conn) alive(wait time.Duration) error {
	err := c.ws.SetReadDeadline(time.Now().Add(wait))
	select {
	case <-c.ended: // the writer has set, or sets now, a shorter one
		return c.ws.SetReadDeadline(time.Now().Add(closeWait))
	default:
		return err
	}
}

// receive reads one frame. The message that it fills keeps nothing of buf.
func (c *conn) receive(buf *bytes.Buffer, frame *devicev1.DeviceFrame) error {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return err
	}
	if kind != c.codec.messageType {
		return fmt.Errorf("%w: message type must be %d for this sub-protocol, is %d", errMalformed, c.codec.messageType, kind)
	}
	buf.Reset()
	if _, err := buf.ReadFrom(r); err != nil {
		return err
	}
	if err := c.codec.unmarshal(buf.Bytes(), frame); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

// read takes frames until the connection ends.
func (c *conn) read() error {
	c.ws.SetPongHandler(func(string) error { return c.alive(pongWait) })
	_ = c.alive(pongWait)
	var buf bytes.Buffer
	var items []device.Item // grows to the device's habit, mostly one
	for {
		var frame devicev1.DeviceFrame
		if err := c.receive(&buf, &frame); err != nil {
			return err
		}
		now := time.Now()
		var err error
		switch body := frame.GetBody().(type) {
		case *devicev1.DeviceFrame_Readings:
			items, err = c.take(body.Readings.GetReadings(), now, items)
		case *devicev1.DeviceFrame_CommandResult:
			r := body.CommandResult
			if err = checkResult(r); err == nil && !c.device.Answer(r.GetId(), device.Result{OK: r.GetOk(), Payload: r.GetPayload()}) {
				c.door.cfg.Ledger.Refuse("late_command_result")
			}
		default:
			err = fault.Invalid("body", "must be readings or command_result")
		}
		if err != nil {
			return err
		}
	}
}

// take hands readings to the pipeline. While the device's window is full it
// waits, and so does the device: nothing is read from it meanwhile.
// It returns items for the next call to use again.
func (c *conn) take(readings []*telemetryv1.Reading, now time.Time, items []device.Item) ([]device.Item, error) {
	if err := checkReadings(readings); err != nil {
		return nil, err
	}
	var received *timestamppb.Timestamp
	for _, r := range readings {
		if r.GetTime() == nil {
			if received == nil {
				received = timestamppb.New(now)
			}
			r.Time = received
		}
	}
	if !c.device.Enter(c.ended) {
		return nil, errEnded
	}
	defer c.device.Leave()
	for {
		taken, used, duplicates, err := c.device.Take(c, readings, c.door.cfg.Window, now, items[:0])
		if errors.Is(err, device.ErrPaused) { // the device sends it again, to the next process
			<-c.ended
			return nil, errEnded
		}
		if err != nil {
			return nil, err
		}
		items = taken
		c.door.cfg.Ledger.Take(len(taken), duplicates)
		for i := range taken {
			select {
			case c.door.cfg.Items <- taken[i]:
			case <-c.door.closing:
				c.door.cfg.Abandoned(taken[i:])
				return nil, errEnded
			}
		}
		if duplicates > 0 {
			c.AckDue() // its first acknowledgement may have been lost
		}
		readings = readings[used:]
		if len(readings) == 0 {
			clear(items) // it must not keep the readings alive
			return items, nil
		}
		select {
		case <-c.device.Room():
			_ = c.alive(pongWait) // no pong was read meanwhile
		case <-c.ended:
			return nil, errEnded
		}
	}
}

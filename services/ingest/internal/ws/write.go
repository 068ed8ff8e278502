package ws

import (
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/types/known/timestamppb"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// closeWait is how long a device has to answer a close frame.
const closeWait = time.Second

// write welcomes the device, sends what is due until the connection ends, and
// then says why. The device has its link until then: the last acknowledgement
// goes over it.
func (c *conn) write() {
	select {
	case <-c.opened:
	case <-c.ended:
		select {
		case <-c.opened:
		default: // and if it opens yet, open sees that it has ended
			c.writeClose()
			return
		}
	}
	defer c.door.cfg.Devices.Disconnect(c.device, c)
	if err := c.writeDue(); err != nil {
		c.end(websocket.CloseGoingAway, "") // it is not there to hear more
		_ = c.ws.Close()                    // ends the reader, if it reads
		return
	}
	select {
	case <-c.ackDue:
		_ = c.sendAck()
	default:
	}
	c.writeClose()
}

// writeDue sends what is due until the connection ends or fails.
func (c *conn) writeDue() error {
	err := c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Welcome{Welcome: &devicev1.Welcome{
		AckedSequence: c.acked, Window: uint32(c.door.cfg.Window), Time: timestamppb.Now(),
	}}})
	ping := time.NewTicker(pingPeriod)
	defer ping.Stop()
	for err == nil {
		select {
		case <-c.ackDue:
			err = c.sendAck()
		case cmd := <-c.commands:
			err = c.sendCommand(cmd)
		case <-ping.C:
			err = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait))
		case <-c.ended:
			return nil
		}
	}
	return err
}

// sendCommand sends a command for which someone still waits.
func (c *conn) sendCommand(cmd device.Command) error {
	left := time.Until(cmd.Deadline)
	if left <= 0 {
		return nil
	}
	return c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Command{Command: &devicev1.Command{
		Id: cmd.ID, Payload: cmd.Payload, DeadlineMs: uint32((left + time.Millisecond - 1).Milliseconds()),
	}}})
}

func (c *conn) sendAck() error {
	sequence, rejections, err := c.device.Acked(c)
	if err != nil {
		return nil //nolint:nilerr // replaced: the newer connection acknowledges, and this one is being closed
	}
	return c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Ack{Ack: &devicev1.Ack{
		Sequence: sequence, Rejections: rejectionsOf(rejections),
	}}})
}

func rejectionsOf(rs []device.Rejection) []*devicev1.Rejection {
	out := make([]*devicev1.Rejection, len(rs))
	for i, r := range rs {
		out[i] = &devicev1.Rejection{Sequence: r.Sequence, Reason: r.Reason}
	}
	return out
}

func (c *conn) send(frame *devicev1.NodeFrame) error {
	raw, err := c.codec.marshal(frame)
	if err != nil {
		return err
	}
	_ = c.ws.SetWriteDeadline(time.Now().Add(writeWait))
	return c.ws.WriteMessage(c.codec.messageType, raw)
}

// writeClose sends the close frame, and gives the reader a moment to see the
// device's answer.
func (c *conn) writeClose() {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(c.code, c.reason), time.Now().Add(closeWait))
	_ = c.ws.SetReadDeadline(time.Now().Add(closeWait))
}

package ws

import (
	"time"

	"github.com/gorilla/websocket"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// closeWait is how long a device has to answer a close frame.
const closeWait = time.Second

// write sends what is due until the connection ends, and then says why.
func (c *conn) write() {
	ping := time.NewTicker(pingPeriod)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-c.ackDue:
			err = c.sendAck()
		case cmd := <-c.commands:
			err = c.send(&devicev1.NodeFrame{Body: &devicev1.NodeFrame_Command{Command: &devicev1.Command{
				Id: cmd.ID, Payload: cmd.Payload, DeadlineMs: uint32(cmd.Deadline.Milliseconds()),
			}}})
		case <-ping.C:
			err = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait))
		case <-c.ended:
			c.writeClose()
			return
		}
		if err != nil {
			_ = c.ws.Close() // ends the reader, which ends the rest
			<-c.ended
			return
		}
	}
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

// writeClose waits for the end, sends the last acknowledgement and the close
// frame, and gives the reader a moment to see the device's answer.
func (c *conn) writeClose() {
	<-c.ended
	select {
	case <-c.ackDue:
		_ = c.sendAck()
	default:
	}
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(c.code, c.reason), time.Now().Add(closeWait))
	_ = c.ws.SetReadDeadline(time.Now().Add(closeWait))
}

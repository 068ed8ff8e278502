package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	devicev1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/device/v1"
)

// The node's close codes that are no use to answer with a reconnect.
const (
	closeUnauthorised = 4401
	closeReplaced     = 4409
)

const (
	handshakeLimit = 5 * time.Second
	maxNodeFrame   = 128 << 10 // a Command of 32 KiB in base64, or an Ack with 64 rejections
)

// refusedError is a refusal that stays one.
type refusedError struct {
	code   int
	reason string
}

// Error names the code and the reason.
func (e *refusedError) Error() string { return fmt.Sprintf("refused with %d: %s", e.code, e.reason) }

// connect is the life of one connection. It returns nil when the meter has
// nothing more to do; welcomed says whether the node has taken it in.
func (m *meter) connect(ctx context.Context) (welcomed bool, err error) {
	select {
	case m.fleet.dials <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	l, err := m.open(ctx)
	<-m.fleet.dials
	if err != nil {
		return false, err
	}
	// Both loops end when the connection does.
	unwatch := context.AfterFunc(ctx, func() { _ = l.raw.Close() })
	defer func() {
		unwatch()
		_ = l.raw.Close()
		m.mu.Lock()
		m.connected = false
		m.mu.Unlock()
	}()
	writing, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { defer stop(); return l.read() })
	g.Go(func() error { l.write(writing); return nil })
	// The reader knows best why it ended: it has read the close frame.
	err = g.Wait()
	if l.done.Load() {
		return true, nil
	}
	return true, refused(err)
}

// open dials the node and exchanges Hello and Welcome.
func (m *meter) open(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	o := &m.fleet.opts
	l := &link{
		meter: m, kind: websocket.BinaryMessage,
		acked: make(chan struct{}, 1), answers: make(chan answer, maxCommands),
	}
	if o.Subprotocol == JSON {
		l.kind = websocket.TextMessage
	}
	header := http.Header{}
	if o.Key != nil {
		header.Set("Authorization", "Bearer "+o.Key.Token(m.id))
	}
	protocol := "xinghuo.v1+" + o.Subprotocol
	dialer := websocket.Dialer{
		Subprotocols: []string{protocol}, ReadBufferSize: 1024, WriteBufferSize: 1024 * min(o.Batch+1, 64),
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			l.raw = &corked{Conn: c}
			return l.raw, nil
		},
	}
	ws, resp, err := dialer.DialContext(ctx, o.URL+"/v1/devices/"+m.id, header)
	if err != nil {
		if resp != nil && refusing(resp.StatusCode) {
			return nil, &refusedError{resp.StatusCode, http.StatusText(resp.StatusCode)}
		}
		return nil, fmt.Errorf("dial %s: %w", m.id, err)
	}
	l.ws = ws
	if err := l.greet(ctx, protocol); err != nil {
		_ = l.raw.Close()
		return nil, refused(fmt.Errorf("greet node as %s: %w", m.id, err))
	}
	return l, nil
}

func (l *link) greet(ctx context.Context, protocol string) error {
	// A cancelled context ends a greeting as it ends a conversation.
	defer context.AfterFunc(ctx, func() { _ = l.raw.Close() })()
	if got := l.ws.Subprotocol(); got != protocol {
		return fmt.Errorf("sub-protocol: must be %q, is %q", protocol, got)
	}
	l.ws.SetReadLimit(maxNodeFrame)
	l.watchPings()
	hello := &devicev1.DeviceFrame{Body: &devicev1.DeviceFrame_Hello{Hello: &devicev1.Hello{
		Session: l.meter.session, Model: "xinghuo-fleet-meter", Firmware: "1",
	}}}
	if err := l.send(hello); err != nil {
		return err
	}
	frame, err := l.receive()
	if err != nil {
		return err
	}
	w := frame.GetWelcome()
	if w == nil {
		l.meter.fault()
		return errors.New("the first frame is no Welcome")
	}
	return l.meter.welcome(w)
}

// refusing tells HTTP statuses that will not change from those that may.
func refusing(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// refused turns a close code that means refusal into a *refusedError.
func refused(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) && (closed.Code == closeUnauthorised || closed.Code == closeReplaced) {
		return &refusedError{closed.Code, closed.Text}
	}
	return err
}

// Package ws is the door that devices reach: WebSockets (RFC 6455) at
// `/v1/devices/{id}`, in protobuf or JSON.
package ws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ledger"
)

// Source is the name of this door in subjects and readings.
const Source = "ws"

const (
	// MaxFrame caps what a device can make the node allocate with one frame.
	MaxFrame = 64 << 10
	// headerTimeout ends a connection that sends no request.
	headerTimeout = 5 * time.Second
	// helloTimeout ends a WebSocket that does not say who it is.
	helloTimeout = 5 * time.Second
	// pingPeriod and pongWait end a connection whose other end is gone.
	pingPeriod = 20 * time.Second
	pongWait   = 50 * time.Second
	// writeWait ends a connection that does not take what it is sent.
	writeWait = 5 * time.Second
	// maxHeader bounds a request; a device sends about 300 bytes.
	maxHeader = 8 << 10
)

// Tokens says whether a token is a device's.
type Tokens interface {
	Valid(device, token string) bool
}

// Config is what the door needs.
type Config struct {
	Devices    *device.Registry
	Ledger     *ledger.Ledger
	Tokens     Tokens
	Log        *slog.Logger
	Window     int // readings in flight of a device
	MaxPending int // connections that have not said who they are
	// Items takes the readings.
	Items chan<- device.Item
	// Settle waits, for a bounded time, until the readings that were taken in
	// are handled. The door has paused Devices when it calls it.
	Settle func()
	// Abandoned is told of readings that were taken in and found no way into
	// Items before the door closed.
	Abandoned func([]device.Item)
}

// Door takes connections in.
type Door struct {
	cfg      Config
	pending  *pending
	upgrader websocket.Upgrader
	closing  chan struct{} // closed when what was taken in has settled

	mu     sync.Mutex // guards what follows
	conns  map[*conn]struct{}
	closed bool
	open   sync.WaitGroup
}

// NewDoor returns a door.
func NewDoor(cfg Config) *Door {
	d := &Door{cfg: cfg, conns: make(map[*conn]struct{}), closing: make(chan struct{})}
	d.pending = newPending(cfg.MaxPending, func() { cfg.Ledger.Refuse("too_many_pending") })
	d.upgrader = websocket.Upgrader{
		HandshakeTimeout: headerTimeout,
		Subprotocols:     []string{ProtoProtocol, JSONProtocol},
		// Size 0 reuses the read buffer of the HTTP server; write buffers are
		// needed only while a frame is written, so the devices share them.
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 1 << 10,
	}
	return d
}

// Run serves on ln until ctx ends. Then it takes no more readings in, lets those
// that it has taken settle, acknowledges them, closes the connections with 1012
// (service restart) and returns when each has ended. So what a device was not
// acknowledged was not taken, and is safe to send again.
func (d *Door) Run(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/devices/{id}", d.serve)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      headerTimeout,
		IdleTimeout:       headerTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener{ln, d.pending}) }()
	select {
	case err := <-failed:
		d.stop()
		return fmt.Errorf("serve devices: %w", err)
	case <-ctx.Done():
	}
	d.stop()
	err := srv.Close() // the hijacked connections are closed above; the rest has said nothing yet
	<-failed           //nolint:errcheck // it says that the server was closed
	if err != nil {
		return fmt.Errorf("close device door: %w", err)
	}
	return nil
}

func (d *Door) stop() {
	d.cfg.Devices.Pause()
	d.cfg.Settle()
	close(d.closing)
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		c.end(websocket.CloseServiceRestart, "service restart")
	}
	d.mu.Unlock()
	d.open.Wait()
}

func (d *Door) enter(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.conns[c] = struct{}{}
	d.open.Add(1)
	return true
}

func (d *Door) leave(c *conn) {
	d.mu.Lock()
	delete(d.conns, c)
	d.mu.Unlock()
	d.open.Done()
}

// serve answers one request.
func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	refuse := func(reason string, code int, text string) {
		d.cfg.Ledger.Refuse(reason)
		w.Header().Set("Connection", "close")
		http.Error(w, text, code)
	}
	if !bus.IsToken(id) {
		refuse("bad_device_id", http.StatusBadRequest, "device id: must be 1 to 64 of [A-Za-z0-9_-]")
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !d.cfg.Tokens.Valid(id, token) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="xinghuo"`)
		refuse("wrong_token", http.StatusUnauthorized, "token: must be the device's own, as Authorization: Bearer")
		return
	}
	protocol := ""
	for _, p := range websocket.Subprotocols(r) {
		if _, known := codecs[p]; known {
			protocol = p
			break
		}
	}
	if protocol == "" {
		refuse("bad_subprotocol", http.StatusBadRequest, "Sec-WebSocket-Protocol: must offer "+ProtoProtocol+" or "+JSONProtocol)
		return
	}
	ws, err := d.upgrader.Upgrade(w, r, http.Header{})
	if err != nil { // it has answered
		d.cfg.Ledger.Refuse("bad_handshake")
		return
	}
	c := newConn(d, ws, id, codecs[ws.Subprotocol()])
	c.peer, _ = r.Context().Value(connKey{}).(*pendingConn)
	if !d.enter(c) { // it came as the door closed
		restart := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "service restart")
		_ = ws.WriteControl(websocket.CloseMessage, restart, time.Now().Add(closeWait))
		_ = ws.Close()
		return
	}
	defer d.leave(c)
	if err := c.serve(); err != nil && !errors.Is(err, net.ErrClosed) {
		d.cfg.Log.DebugContext(r.Context(), "device connection ended", "device", id, "err", err)
	}
}

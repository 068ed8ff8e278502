// Package door is the agent's HTTP door: metrics, health and profiles of the
// whole node in one place.
package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

const (
	readTimeout    = 5 * time.Second
	writeTimeout   = 10 * time.Second
	idleTimeout    = 5 * time.Second
	maxHeaderBytes = 16 << 10
	maxConns       = 64
	// closeGrace is how long open requests get when the door closes.
	closeGrace = 2 * time.Second
)

// Supervisor lists the services.
type Supervisor interface {
	List() []supervise.Status
}

// Prober reaches the services.
type Prober interface {
	Stats(ctx context.Context, service string) ([]*adminv1.Metric, error)
	Profile(ctx context.Context, service string, req *adminv1.CaptureProfileRequest) ([]byte, error)
}

// Options is what a door stands on.
type Options struct {
	Supervisor Supervisor
	Prober     Prober
	Log        *slog.Logger
	Site, Node string
	// Self is a service that is not supervised and has figures all the same:
	// the agent.
	Self string
}

// Door serves HTTP on one listener.
type Door struct {
	opts    Options
	ln      net.Listener
	srv     *http.Server
	scrapes chan struct{} // a token for each scrape that may run
}

// Open listens on addr.
func Open(addr string, o Options) (*Door, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open HTTP door: %w", err)
	}
	d := &Door{opts: o, ln: &limited{Listener: ln, slots: make(chan struct{}, maxConns)}, scrapes: make(chan struct{}, maxScrapes)}
	d.srv = &http.Server{
		Handler:     d.guard(d.routes()),
		ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return d, nil
}

// Addr is where the door listens.
func (d *Door) Addr() net.Addr { return d.ln.Addr() }

// Close closes a door that is not to be served.
func (d *Door) Close() error { return d.ln.Close() }

// Serve answers until ctx ends.
func (d *Door) Serve(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- d.srv.Serve(d.ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve HTTP door: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := d.srv.Shutdown(closing); err != nil {
		_ = d.srv.Close() // what is still open is cut
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP door: %w", err)
	}
	return nil
}

func (d *Door) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.page)
	mux.HandleFunc("GET /healthz", d.healthz)
	mux.HandleFunc("GET /metrics", d.metrics)
	mux.HandleFunc("GET /debug/pprof/{service}/{profile}", d.profile)
	return mux
}

// guard refuses what a browser was led to send: on loopback a page of another
// site reaches this door under a name of its own (DNS rebinding), and tells so
// by its Host header.
func (d *Door) guard(next http.Handler) http.Handler {
	tcp, ok := d.ln.Addr().(*net.TCPAddr)
	loopback := ok && tcp.IP.IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		case loopback && !localHost(r.Host):
			http.Error(w, "this door answers to localhost only", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

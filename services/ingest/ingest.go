// Package ingest is the node's front: devices connect to it, their readings go
// through policy to JetStream and their status to broadcast, and operators
// reach them through it.
package ingest

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/config"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ws"
)

// Run is the whole program.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := config.Default()
	if err := settings.Load("ingest", args, &cfg, logs); err != nil {
		return err
	}
	srv, err := node.New("ingest", cfg.Node, logs)
	if err != nil {
		return err
	}
	defer srv.Close()
	if _, err := srv.StateDir(); err != nil {
		return err
	}
	tokens, err := devicetoken.LoadOrCreate(cfg.TokenKey())
	if err != nil {
		return err
	}
	subjects, err := bus.NewSubjects(cfg.Site, cfg.Node.Node)
	if err != nil {
		return err
	}
	nats, err := bus.Connect(cfg.NATSURL, "ingest", subjects, srv.Log)
	if err != nil {
		return err
	}
	defer nats.Close()
	peers, err := dialPeers(cfg.RunDir)
	if err != nil {
		return err
	}
	defer peers.close()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("open device door: %w", err)
	}
	defer ln.Close() // the door closes it; this is for the way out before it opens

	p := newPipeline(&cfg, srv, nats, peers)
	door := ws.NewDoor(ws.Config{
		Devices: p.devices, Ledger: p.ledger, Tokens: tokens, Log: srv.Log,
		Window: cfg.Window, MaxPending: cfg.MaxPending, Items: p.items, Settle: p.settle, Abandoned: p.abandoned,
	})
	(&server.Server{Devices: p.devices, Ledger: p.ledger, Watch: p.watch, Statuses: p.statuses}).Register(srv)
	srv.Collect(p.stats)
	apply := p.apply(srv, &cfg)
	srv.SetFact("device_door", ln.Addr().String())
	return srv.Run(ctx,
		func(ctx context.Context) error {
			return p.run(ctx, func(ctx context.Context) error { return door.Run(ctx, ln) })
		},
		func(ctx context.Context) error { return ensureStreams(ctx, srv, nats, &cfg) },
		func(ctx context.Context) error {
			return live.Watch(ctx, srv.Log, peers.config, "ingest", apply)
		},
	)
}

// peers are the services that ingest calls.
type peers struct {
	policy, broadcast, config *grpc.ClientConn
}

func dialPeers(runDir string) (*peers, error) {
	var p peers
	for _, d := range []struct {
		name string
		conn **grpc.ClientConn
	}{{"policy", &p.policy}, {"broadcast", &p.broadcast}, {"config", &p.config}} {
		conn, err := mesh.Dial(runDir, d.name)
		if err != nil {
			p.close()
			return nil, err
		}
		*d.conn = conn
	}
	return &p, nil
}

func (p *peers) close() {
	for _, c := range []*grpc.ClientConn{p.policy, p.broadcast, p.config} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// ensureStreams makes the streams each time NATS comes up: its disk may be new.
func ensureStreams(ctx context.Context, srv *node.Server, nats *bus.Bus, cfg *config.Config) error {
	srv.Degrade("nats", "nats is away: readings are not acknowledged")
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	ensured := false
	for {
		select {
		case <-nats.Up():
			ensured = false
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
		switch {
		case !nats.Connected():
			ensured = false
			srv.Degrade("nats", "nats is away: readings are not acknowledged")
		case !ensured:
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := nats.EnsureStreams(attempt, bus.Limits(cfg.Telemetry), bus.Limits(cfg.Events))
			cancel()
			if err != nil {
				srv.Degrade("nats", err.Error())
				continue
			}
			ensured = true
			srv.Degrade("nats", "")
		}
	}
}

// apply takes ingest's live settings, and tells in GetInfo what is in force.
func (p *pipeline) apply(srv *node.Server, cfg *config.Config) live.Apply {
	type setting struct {
		bootstrap time.Duration
		check     func(time.Duration) error
		set       func(time.Duration)
	}
	known := map[string]setting{
		"batch_delay":     {cfg.BatchDelay, config.CheckBatchDelay, p.evaluator.SetDelay},
		"status_interval": {cfg.StatusInterval, config.CheckStatusInterval, p.reporter.SetInterval},
	}
	set := func(name string, s setting, d time.Duration) {
		s.set(d)
		srv.SetFact(name, d.String())
	}
	for name, s := range known {
		set(name, s, s.bootstrap)
	}
	return func(name, value string, removed bool) error {
		s, ok := known[name]
		if !ok {
			return fmt.Errorf("%w: %q", live.ErrUnknown, name)
		}
		if removed {
			set(name, s, s.bootstrap)
			return nil
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("%s: must be a duration such as 5ms, is %.80q", name, value)
		}
		if err := s.check(d); err != nil {
			return err
		}
		set(name, s, d)
		return nil
	}
}

func (p *pipeline) statuses() map[string]uint64 {
	sent, dropped := p.reporter.Counts()
	return map[string]uint64{"sent": sent, "superseded": p.devices.Superseded(), "dropped": dropped}
}

func (p *pipeline) stats(s *node.Stats) {
	f := p.ledger.Figures()
	s.Counter("xinghuo_ingest_readings_received_total", float64(f.Received))
	s.Counter("xinghuo_ingest_readings_delivered_total", float64(f.Delivered))
	s.Counter("xinghuo_ingest_readings_rejected_total", float64(f.Rejected))
	s.Counter("xinghuo_ingest_readings_duplicate_total", float64(f.Duplicates))
	s.Counter("xinghuo_ingest_readings_unevaluated_total", float64(f.Unevaluated))
	s.Gauge("xinghuo_ingest_readings_in_flight", float64(f.InFlight))
	s.Counters("xinghuo_ingest_readings_dropped_total", "reason", f.Dropped)
	s.Counters("xinghuo_ingest_refused_total", "reason", f.Refused)
	s.Counters("xinghuo_ingest_statuses_total", "outcome", p.statuses())
	s.Gauge("xinghuo_ingest_devices_connected", float64(p.devices.Connected()))
	for i, q := range p.ledger.Latency.Quantiles(time.Now(), 0.5, 0.99) {
		s.Gauge("xinghuo_ingest_ack_latency_seconds", q.Seconds(), "quantile", []string{"0.5", "0.99"}[i])
	}
}

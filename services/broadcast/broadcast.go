// Package broadcast publishes the status of the node's devices without ever
// blocking who reports it.
package broadcast

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/mqtt"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/server"
)

const name = "broadcast"

// Run is the whole service: it serves until ctx ends or Drain is called. The
// error is a *settings.Error for a bad configuration.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := defaults()
	if err := settings.Load(name, args, &cfg, logs); err != nil {
		return err
	}
	conn, err := mesh.Dial(cfg.RunDir, "config")
	if err != nil {
		return err
	}
	defer conn.Close()
	return serve(ctx, &cfg, conn, logs)
}

func serve(ctx context.Context, cfg *config, configs grpc.ClientConnInterface, logs io.Writer) error {
	srv, err := node.New(name, cfg.Node, logs)
	if err != nil {
		return err
	}
	queues := queue.New(queue.Limits{
		Capacity: cfg.QueueCapacity, EnqueueLimit: cfg.EnqueueLimit,
		MaxDevices: cfg.MaxDevices, MaxBytes: cfg.MaxQueuedBytes, Window: cfg.MQTT.Window,
	})
	publisher := mqtt.New(mqtt.Config{
		URL: cfg.MQTT.URL, Site: cfg.Site, Node: cfg.Node.Node,
		AckTimeout: cfg.MQTT.AckTimeout, Flush: min(cfg.GraceTimeout, maxFlush), Window: cfg.MQTT.Window,
	}, queues, brokerState(srv, cfg.MQTT.URL))
	srv.Degrade("mqtt", "not connected yet")
	srv.SetFact("mqtt.url", cfg.MQTT.URL)
	server.Register(srv, queues, func() bool { return publisher.Stats().Connected })
	srv.Collect(func(s *node.Stats) { collect(s, queues.Stats(), publisher.Stats()) })
	return srv.Run(ctx,
		queues.Sweep,
		func(ctx context.Context) error {
			err := publisher.Run(ctx)
			if n := queues.Close(); n > 0 {
				srv.Log.WarnContext(ctx, "statuses dropped", "reason", queue.Shutdown.String(), "statuses", n)
			}
			return err
		},
		func(ctx context.Context) error {
			return live.Watch(ctx, srv.Log, configs, name, cfg.apply(queues))
		},
	)
}

// brokerState logs when the broker comes and goes, not each attempt.
func brokerState(srv *node.Server, url string) func(error) {
	there, told := false, false
	return func(away error) {
		if away == nil {
			srv.Degrade("mqtt", "")
			srv.Log.Info("broker connected", "url", url)
			there, told = true, true
			return
		}
		srv.Degrade("mqtt", away.Error())
		if there || !told {
			srv.Log.Warn("broker away", "url", url, "err", away)
		} else {
			srv.Log.Debug("broker still away", "url", url, "err", away)
		}
		there, told = false, true
	}
}

func collect(s *node.Stats, q queue.Stats, p mqtt.Stats) {
	s.Counter("xinghuo_broadcast_accepted_total", float64(q.Accepted))
	s.Counter("xinghuo_broadcast_delivered_total", float64(q.Delivered))
	s.Counters("xinghuo_broadcast_dropped_total", "reason", q.Dropped.ByReason(true))
	s.Gauge("xinghuo_broadcast_queued", float64(q.Queued))
	s.Gauge("xinghuo_broadcast_queued_bytes", float64(q.Bytes))
	s.Gauge("xinghuo_broadcast_in_flight", float64(q.InFlight))
	s.Gauge("xinghuo_broadcast_devices", float64(q.Devices))
	connected := 0.0
	if p.Connected {
		connected = 1
	}
	s.Gauge("xinghuo_broadcast_broker_connected", connected)
	s.Counter("xinghuo_broadcast_broker_connections_total", float64(p.Connections))
	s.Counter("xinghuo_broadcast_retried_total", float64(p.Retried))
}

// apply changes the settings that change while the service runs.
func (c *config) apply(queues *queue.Queues) live.Apply {
	return func(setting, value string, removed bool) error {
		next := *c
		switch setting {
		case "enqueue_limit":
			if !removed {
				if err := next.setEnqueueLimit(value); err != nil {
					return err
				}
			}
			queues.SetEnqueueLimit(next.EnqueueLimit)
		case "queue_capacity":
			if !removed {
				if err := next.setQueueCapacity(value); err != nil {
					return err
				}
			}
			queues.SetCapacity(next.QueueCapacity)
		default:
			return fmt.Errorf("%w: %q", live.ErrUnknown, setting)
		}
		return nil
	}
}

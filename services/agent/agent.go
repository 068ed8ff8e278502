// Package agent supervises the node's services, and is the node's one door for
// metrics, health and profiles.
package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	agentv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/agent/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/config"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/door"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/probe"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

const (
	name = "agent"
	// trimEvery is how often the services' log files are bounded.
	trimEvery = 10 * time.Second
)

// Run is the whole program. It returns when ctx has ended and the services are
// stopped.
func Run(ctx context.Context, args []string, logs io.Writer) (err error) {
	cfg := config.Default()
	if err := settings.Load(name, args, &cfg, logs); err != nil {
		return err
	}
	if len(cfg.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this binary: %w", err)
		}
		cfg.Command = []string{self, "{service}"}
	}
	srv, err := node.New(name, cfg.Node, logs)
	if err != nil {
		return err
	}
	probes := probe.New(cfg.RunDir)
	defer func() { _ = probes.Close() }()
	launcher := &supervise.Exec{Command: cfg.Command, Logs: logs, LogDir: cfg.LogDir}
	sup := supervise.New(supervise.Options{
		Services: cfg.Services, Grace: cfg.GraceTimeout, Leave: !cfg.StopServices,
	}, launcher, probes, srv.Log)
	agentv1.RegisterAgentServiceServer(srv, server.New(sup, cfg.GraceTimeout))
	srv.Collect(func(s *node.Stats) {
		serving := 0
		for _, st := range sup.List() {
			if st.State == supervise.Serving {
				serving++
			}
		}
		s.Gauge("xinghuo_agent_services", float64(len(cfg.Services)))
		s.Gauge("xinghuo_agent_services_serving", float64(serving))
	})

	loops := []func(context.Context) error{sup.Run}
	if cfg.LogDir != "" {
		loops = append(loops, func(ctx context.Context) error {
			return launcher.TrimEvery(ctx, trimEvery, cfg.Services, func(err error) {
				srv.Log.WarnContext(ctx, "log not trimmed", "err", err)
			})
		})
	}
	if cfg.Listen != "" {
		d, err := door.Open(cfg.Listen, door.Options{
			Supervisor: sup, Prober: probes, Log: srv.Log, Site: cfg.Site, Node: cfg.Node.Node, Self: name,
		})
		if err != nil { // supervising matters more than the door
			srv.Degrade("http", err.Error())
			srv.Log.ErrorContext(ctx, "HTTP door not opened", "listen", cfg.Listen, "err", err)
		} else {
			srv.SetFact("http", "http://"+d.Addr().String())
			loops = append(loops, d.Serve)
		}
	}
	return srv.Run(ctx, loops...)
}

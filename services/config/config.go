// Package config is the config service: the settings that change while the
// node runs, from etcd, also when etcd is away.
package config

import (
	"context"
	"io"
	"strings"

	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/etcd"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/store"
)

// Run is the whole service. It serves without etcd.
func Run(ctx context.Context, args []string, logs io.Writer) error {
	cfg := bootstrap.Default()
	if err := settings.Load("config", args, &cfg, logs); err != nil {
		return err
	}
	dialer, err := etcd.NewDialer(cfg.Etcd)
	if err != nil {
		return &settings.Error{Service: "config", Faults: []error{err}}
	}
	srv, err := node.New("config", cfg.Node, logs)
	if err != nil {
		return err
	}
	dir, err := srv.StateDir()
	if err != nil {
		return err
	}
	file, err := cache.Open(dir, cfg.Prefix())
	if err != nil {
		return err
	}
	st := store.New(store.Options{
		Log: srv.Log, Prefix: cfg.Prefix(), Dial: dialer.Dial, Cache: file,
		RequestTimeout: cfg.Etcd.RequestTimeout, Heartbeat: cfg.Etcd.Heartbeat, Degrade: srv.Degrade,
	})
	configv1.RegisterConfigServiceServer(srv, server.New(st))
	srv.SetFact("etcd_prefix", cfg.Prefix())
	srv.SetFact("etcd_endpoints", strings.Join(cfg.Etcd.Endpoints, ","))
	srv.SetFact("cache_file", file.Path())
	srv.Collect(func(s *node.Stats) { collect(s, st.Stats()) })
	return srv.Run(ctx, st.Run)
}

func collect(s *node.Stats, st store.Stats) {
	stale := 0.0
	if st.Stale {
		stale = 1
	}
	s.Gauge("xinghuo_config_revision", float64(st.Revision))
	s.Gauge("xinghuo_config_stale", stale)
	s.Gauge("xinghuo_config_stale_seconds", st.StaleFor.Seconds())
	s.Gauge("xinghuo_config_watchers", float64(st.Watchers))
	s.Gauge("xinghuo_config_settings", float64(st.Entries))
	s.Gauge("xinghuo_config_settings_bytes", float64(st.Bytes))
	s.Gauge("xinghuo_config_ignored_keys", float64(st.Ignored))
	s.Counters("xinghuo_config_events_total", "event", st.Events)
	s.Counter("xinghuo_config_resyncs_total", float64(st.Resyncs))
	s.Counter("xinghuo_config_watchers_cut_off_total", float64(st.CutOff))
	s.Counter("xinghuo_config_cache_saves_total", float64(st.CacheSaves))
	s.Counter("xinghuo_config_cache_faults_total", float64(st.CacheFaults))
}

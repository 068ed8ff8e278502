// Package etcdd runs a single etcd member inside this process: for
// `xinghuo up`, and for tests.
package etcdd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Options says where the member listens and keeps its data.
type Options struct {
	Dir string
	// Client is the address for clients, for example 127.0.0.1:2379; port 0
	// means any.
	Client string
}

// Member is a running etcd member.
type Member struct {
	etcd *embed.Etcd
	once sync.Once
}

// Endpoint returns the URL for clients.
func (m *Member) Endpoint() string { return "http://" + m.etcd.Clients[0].Addr().String() }

// Stop ends the member and returns when its files are closed. Stopping again
// does nothing.
func (m *Member) Stop() { m.once.Do(m.etcd.Close) }

// Start starts a member and waits until it leads its cluster of one.
func Start(ctx context.Context, o Options) (*Member, error) {
	cfg := embed.NewConfig()
	cfg.Dir = o.Dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	client := url.URL{Scheme: "http", Host: o.Client}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// A node's configuration is small: keep an hour of history, cap the file.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	cfg.QuotaBackendBytes = 256 << 20
	cfg.SnapshotCount = 1000
	// Elections among one member need no caution.
	cfg.TickMs, cfg.ElectionMs = 50, 500
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	select {
	case <-e.Server.ReadyNotify():
		return &Member{etcd: e}, nil
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("start etcd: %w", ctx.Err())
	case <-timeout.C:
		e.Close()
		return nil, errors.New("start etcd: not ready within 20 s")
	}
}

package store

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit/etcdtest"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
)

// noCache keeps nothing.
type noCache struct{}

func (noCache) Load() (cache.Body, bool, error) { return cache.Body{}, false, nil }
func (noCache) Save(cache.Body) error           { return nil }

func bare(t *testing.T, endpoint string) (*Store, *clientv3.Client) {
	t.Helper()
	dial := func(ctx context.Context) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop(), Context: ctx})
	}
	s := New(Options{
		Log: slog.New(slog.DiscardHandler), Prefix: "/x/", Dial: dial, Cache: noCache{},
		RequestTimeout: 300 * time.Millisecond, Heartbeat: 500 * time.Millisecond, Degrade: func(string, string) {},
	})
	client, err := s.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.closeClient)
	return s, client
}

func TestWatchOfCompactedRevisions(t *testing.T) {
	s, client := bare(t, etcdtest.Start(t).Endpoint())
	var last int64
	for range 3 {
		resp, err := client.Put(t.Context(), "/x/ingest/a", "1")
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if err := s.watch(t.Context(), client, 1); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("watch(1) = %v, want ErrCompacted", err)
	}
}

// TestIdleEtcdIsHeard has an etcd that answers and that nobody writes to.
func TestIdleEtcdIsHeard(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*clientv3.Client) error
	}{
		{"new", func(*clientv3.Client) error { return nil }},
		{"last change is a setting", func(c *clientv3.Client) error {
			_, err := c.Put(t.Context(), "/x/ingest/a", "1")
			return err
		}},
		{"last change is a deletion", func(c *clientv3.Client) error {
			_, err := c.Delete(t.Context(), "/x/ingest/a")
			return err
		}},
		{"last change is compacted", func(c *clientv3.Client) error {
			resp, err := c.Put(t.Context(), "/x/ingest/a", "2")
			if err != nil {
				return err
			}
			_, err = c.Compact(t.Context(), resp.Header.Revision)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, client := bare(t, etcdtest.Start(t).Endpoint())
			s.Heartbeat = 100 * time.Millisecond
			if _, err := client.Put(t.Context(), "/x/ingest/a", "0"); tt.name != "new" && err != nil {
				t.Fatal(err)
			}
			if err := tt.before(client); err != nil {
				t.Fatal(err)
			}
			w, err := s.Watch("ingest", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*missed*s.Heartbeat)
			defer cancel()
			if synced, err := s.session(ctx); !synced || ctx.Err() == nil {
				t.Errorf("session() = %v, %v, want it to last", synced, err)
			}
			if n := s.Stats().Events["duplicate"]; n > 1 {
				t.Errorf("duplicate events = %d, want at most the last change", n)
			}
		})
	}
}

// TestSilentEtcd has an etcd that takes connections and never answers.
func TestSilentEtcd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, client := bare(t, "http://"+ln.Addr().String())
	if synced, err := s.session(t.Context()); synced || err == nil {
		t.Errorf("session() = %v, %v, want an error", synced, err)
	}
	if err := s.watch(t.Context(), client, 1); err == nil {
		t.Error("watch() = nil, want an error")
	}
	s.stale = false
	if _, err := s.Put(t.Context(), key("a"), "1", nil); err == nil {
		t.Error("Put() = nil, want an error")
	}
}

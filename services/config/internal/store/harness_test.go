package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/etcd"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	prefix = "/xinghuo/site/node/"
	soon   = 20 * time.Second
)

// degradations is what a store has reported.
type degradations struct {
	mu sync.Mutex
	m  map[string]string
}

func (d *degradations) report(component, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if reason == "" {
		delete(d.m, component)
		return
	}
	d.m[component] = reason
}

func (d *degradations) get(component string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.m[component]
}

// subject is a store under test.
type subject struct {
	*store.Store
	degraded *degradations
	stop     func() // ends Run and returns when it has
}

func start(t *testing.T, endpoint, dir string) *subject {
	t.Helper()
	cfg := bootstrap.Default().Etcd
	cfg.Endpoints = []string{endpoint}
	dialer, err := etcd.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file, err := cache.Open(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	d := &degradations{m: make(map[string]string)}
	s := store.New(store.Options{
		Log: slog.New(slog.DiscardHandler), Prefix: prefix, Dial: dialer.Dial, Cache: file,
		RequestTimeout: 2 * time.Second, Heartbeat: 300 * time.Millisecond, Degrade: d.report,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(stop)
	return &subject{s, d, stop}
}

func (s *subject) waitFresh(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, soon, "etcd to be heard", func() bool { return !s.Stats().Stale })
}

func (s *subject) waitStale(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, soon, "etcd to be missed", func() bool { return s.Stats().Stale })
}

func key(name string) setting.Key { return setting.Key{Service: "ingest", Name: name} }

func (s *subject) put(t *testing.T, name, value string) int64 {
	t.Helper()
	revision, err := s.Put(t.Context(), key(name), value, nil)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, soon, "a put to come back", func() bool {
		e, _, err := s.Get(key(name))
		return err == nil && e.Revision == revision
	})
	return revision
}

// watched is what a reader makes of a watcher's events.
type watched struct {
	t        *testing.T
	w        *store.Watcher
	values   map[string]string
	revision int64
	log      []string
}

func watch(t *testing.T, s *subject, service string) *watched {
	t.Helper()
	w, err := s.Watch(service, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &watched{t: t, w: w, values: make(map[string]string)}
}

// next takes one event and describes it.
func (w *watched) next() string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	e, err := w.w.Next(ctx)
	if err != nil {
		w.t.Fatalf("Next() = %v after %v", err, w.log)
	}
	if e.Revision < w.revision {
		w.t.Errorf("revision went from %d down to %d", w.revision, e.Revision)
	}
	w.revision = e.Revision
	var text string
	switch e.Kind {
	case store.Put:
		w.values[e.Entry.String()] = e.Entry.Value
		text = "put " + e.Entry.String() + "=" + e.Entry.Value
	case store.Deleted:
		delete(w.values, e.Entry.String())
		text = "deleted " + e.Entry.String()
	case store.Synced:
		text = fmt.Sprintf("synced %d stale=%v", e.Entries, e.Freshness.Stale)
	}
	w.log = append(w.log, text)
	return text
}

func (w *watched) want(events ...string) {
	w.t.Helper()
	for _, want := range events {
		if got := w.next(); got != want {
			w.t.Fatalf("event = %q, want %q", got, want)
		}
	}
}

func client(t *testing.T, m *etcdd.Member) *clientv3.Client {
	t.Helper()
	cfg := bootstrap.Default().Etcd
	cfg.Endpoints = []string{m.Endpoint()}
	dialer, err := etcd.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialer.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// alien writes to etcd past the store, as another operator does.
func alien(t *testing.T, c *clientv3.Client, k, v string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	resp, err := c.Put(ctx, k, v)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func remove(t *testing.T, c *clientv3.Client, k string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	resp, err := c.Delete(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

package config_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/embedded/etcdd"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/etcdtest"

	"github.com/xinghuo-edge/xinghuo/services/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 20 * time.Second

// run starts the service as main does and returns how to stop it.
func run(t *testing.T, runDir, stateDir, endpoint string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- config.Run(ctx, []string{
			"-run_dir", runDir, "-state_dir", stateDir, "-grace_timeout", "2s",
			"-etcd.endpoints", "[" + endpoint + "]", "-etcd.heartbeat", "100ms",
		}, io.Discard)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

type peer struct {
	configv1.ConfigServiceClient
	admin  adminv1.AdminServiceClient
	health healthv1.HealthClient
}

func dial(t *testing.T, runDir string) *peer {
	t.Helper()
	conn, err := mesh.Dial(runDir, "config")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{configv1.NewConfigServiceClient(conn), adminv1.NewAdminServiceClient(conn), healthv1.NewHealthClient(conn)}
}

func (p *peer) degraded(t *testing.T, component string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	info, err := p.admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range info.GetDegradations() {
		if d.GetComponent() == component {
			return d.GetReason()
		}
	}
	return ""
}

func (p *peer) waitEtcd(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, limit, "etcd to be heard", func() bool { return p.degraded(t, "etcd") == "" })
}

func TestRunWithoutEtcd(t *testing.T) {
	dir := testkit.SocketDir(t)
	stop := run(t, dir, t.TempDir(), "http://127.0.0.1:1")
	p := dial(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, name := range []string{"config", "xinghuo.config.v1.ConfigService"} {
		h, err := p.health.Check(ctx, &healthv1.HealthCheckRequest{Service: name})
		if err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %s = %v, %v, want SERVING", name, h, err)
		}
	}
	if reason := p.degraded(t, "etcd"); reason == "" {
		t.Error("etcd is not reported as away")
	}
	stats, err := p.admin.GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, m := range stats.GetMetrics() {
		got[m.GetName()] = m.GetValue()
	}
	if v, ok := got["xinghuo_config_stale"]; !ok || v != 1 || got["xinghuo_config_stale_seconds"] <= 0 {
		t.Errorf("stats = %v, want stale with its age", got)
	}
	stop()
	if left, err := filepath.Glob(dir + "/*.sock*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBadSettings(t *testing.T) {
	var out bytes.Buffer
	err := config.Run(t.Context(), []string{"-etcd.endpoints", "[x]", "-etcd.heartbeat", "1h", "-site", "a/b"}, &out)
	var bad *settings.Error
	if !errors.As(err, &bad) || len(bad.Faults) != 3 {
		t.Errorf("Run() = %v, want three faults", err)
	}
	err = config.Run(t.Context(), []string{"-etcd.user", "x", "-etcd.password_file", "/nonexistent"}, &out)
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "etcd.password_file") {
		t.Errorf("Run() = %v, want etcd.password_file named", err)
	}
}

// applied is a service that takes settings.
type applied struct {
	mu     sync.Mutex
	values map[string]string
}

func (a *applied) apply(name, value string, removed bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if removed {
		delete(a.values, name)
		return nil
	}
	a.values[name] = value
	return nil
}

func (a *applied) get(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.values[name]
}

// TestLiveSettings is the whole way: a change goes through etcd to a service
// that applies it, also when the config service or etcd was away meanwhile.
func TestLiveSettings(t *testing.T) {
	dir, state := testkit.SocketDir(t), t.TempDir()
	m := etcdtest.Start(t)
	stop := run(t, dir, state, m.Endpoint())
	p := dial(t, dir)
	p.waitEtcd(t)

	service := &applied{values: make(map[string]string)}
	conn, err := mesh.Dial(dir, "config")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- live.Watch(ctx, slog.New(slog.DiscardHandler), conn, "ingest", service.apply)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("live.Watch() = %v", err)
		}
		_ = conn.Close()
	})
	want := func(name, value string) {
		t.Helper()
		testkit.Eventually(t, limit, name+" to become "+value, func() bool { return service.get(name) == value })
	}
	put := func(name, value string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if _, err := p.Put(ctx, &configv1.PutRequest{Service: "ingest", Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	put("batch_delay", "5ms")
	put("goes", "1")
	want("batch_delay", "5ms")
	want("goes", "1")

	// The watcher is cut off: another config service, on the same state but
	// another socket, removes a setting and changes one.
	stop()
	other := testkit.SocketDir(t)
	stopOther := run(t, other, state, m.Endpoint())
	p = dial(t, other)
	p.waitEtcd(t)
	ctxDel, cancelDel := context.WithTimeout(t.Context(), limit)
	defer cancelDel()
	if _, err := p.Delete(ctxDel, &configv1.DeleteRequest{Service: "ingest", Name: "goes"}); err != nil {
		t.Fatal(err)
	}
	put("batch_delay", "7ms")
	stopOther()
	run(t, dir, state, m.Endpoint())
	want("goes", "")
	want("batch_delay", "7ms")
	p = dial(t, dir)
	p.waitEtcd(t)
	put("batch_delay", "9ms")
	want("batch_delay", "9ms")
}

// TestLiveSettingsSurviveALostCache has a config service that comes back
// without cache and without etcd: what is applied stays until etcd is heard.
func TestLiveSettingsSurviveALostCache(t *testing.T) {
	dir, data := testkit.SocketDir(t), t.TempDir()
	m, err := etcdd.Start(t.Context(), etcdd.Options{Dir: data, Client: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := m.Endpoint()
	t.Cleanup(func() { m.Stop() })
	stop := run(t, dir, t.TempDir(), endpoint)
	p := dial(t, dir)
	p.waitEtcd(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, name := range []string{"stays", "goes"} {
		if _, err := p.Put(ctx, &configv1.PutRequest{Service: "ingest", Name: name, Value: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	service := &applied{values: make(map[string]string)}
	conn, err := mesh.Dial(dir, "config")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	liveCtx, end := context.WithCancel(context.Background())
	go func() {
		done <- live.Watch(liveCtx, slog.New(slog.DiscardHandler), conn, "ingest", service.apply)
	}()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Errorf("live.Watch() = %v", err)
		}
		_ = conn.Close()
	})
	testkit.Eventually(t, limit, "both to be applied", func() bool { return service.get("stays") == "1" && service.get("goes") == "1" })
	if _, err := p.Delete(ctx, &configv1.DeleteRequest{Service: "ingest", Name: "stays", ExpectedRevision: new(int64(1))}); err == nil {
		t.Error("Delete at a wrong revision = nil, want a conflict")
	}
	stop()
	m.Stop()

	stop = run(t, dir, t.TempDir(), endpoint) // a new disk
	p = dial(t, dir)
	if reason := p.degraded(t, "etcd"); reason == "" {
		t.Error("etcd is not reported as away")
	}
	testkit.Eventually(t, limit, "the service to watch again", func() bool { return p.watchers(t) == 1 })
	if service.get("stays") != "1" || service.get("goes") != "1" {
		t.Errorf("applied = %v, want both kept while etcd is away", service.values)
	}
	m, err = etcdd.Start(t.Context(), etcdd.Options{Dir: data, Client: strings.TrimPrefix(endpoint, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	p.waitEtcd(t)
	if _, err := p.Delete(ctx, &configv1.DeleteRequest{Service: "ingest", Name: "goes"}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, limit, "the removal to be applied", func() bool { return service.get("goes") == "" })
	if service.get("stays") != "1" {
		t.Errorf("stays = %q, want 1", service.get("stays"))
	}
	stop()
}

func (p *peer) watchers(t *testing.T) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stats, err := p.admin.GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range stats.GetMetrics() {
		if m.GetName() == "xinghuo_config_watchers" {
			return m.GetValue()
		}
	}
	return 0
}

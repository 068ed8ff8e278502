package door_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/door"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is services with figures; one that is not in stats is away, and
// `slow` never answers.
type fakeNode struct {
	list  []supervise.Status
	stats map[string][]*adminv1.Metric
}

func (f *fakeNode) List() []supervise.Status { return f.list }

func (f *fakeNode) Stats(ctx context.Context, service string) ([]*adminv1.Metric, error) {
	if service == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if m, ok := f.stats[service]; ok {
		return m, nil
	}
	return nil, fault.ErrUnavailable
}

func (f *fakeNode) Profile(_ context.Context, service string, req *adminv1.CaptureProfileRequest) ([]byte, error) {
	if service == "policy" {
		return nil, fmt.Errorf("%w: policy is away", fault.ErrUnavailable)
	}
	return []byte(fmt.Sprintf("%s %v %v", service, req.GetKind(), req.GetDuration().AsDuration())), nil
}

func open(t *testing.T, f *fakeNode) string {
	t.Helper()
	d, err := door.Open("127.0.0.1:0", door.Options{
		Supervisor: f, Prober: f, Log: slog.New(slog.DiscardHandler), Site: "<site>", Node: "node", Self: "agent",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return "http://" + d.Addr().String()
}

func do(t *testing.T, method, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func counter(name string, value float64, labels map[string]string) *adminv1.Metric {
	return &adminv1.Metric{Name: name, Value: value, Labels: labels, Kind: adminv1.MetricKind_METRIC_KIND_COUNTER}
}

func gauge(name string, value float64) *adminv1.Metric {
	return &adminv1.Metric{Name: name, Value: value, Kind: adminv1.MetricKind_METRIC_KIND_GAUGE}
}

func TestMetrics(t *testing.T) {
	nasty := "a\\b\"c\nd\xff"
	f := &fakeNode{
		list: []supervise.Status{
			{Name: "ingest", State: supervise.Serving, Restarts: 3},
			{Name: "policy", State: supervise.BackingOff},
			{Name: "slow", State: supervise.Serving},
		},
		stats: map[string][]*adminv1.Metric{
			"agent": {gauge("go_goroutines", 7)},
			"ingest": {
				gauge("go_goroutines", 9), gauge("xinghuo_inf", math.Inf(1)),
				counter("xinghuo_dropped_total", 5, map[string]string{"reason": nasty, "service": "inner"}),
				counter("xinghuo_dropped_total", 6, map[string]string{"reason": "full"}),
				counter("xinghuo_dropped_total", 7, map[string]string{"reason": "full"}), // twice
				counter("bad name", 1, nil), counter("xinghuo_bad_label_total", 1, map[string]string{"a-b": ""}),
				counter("go_goroutines", 1, map[string]string{"kind": "differs"}),
			},
		},
	}
	base := open(t, f)
	start := time.Now()
	resp, body := do(t, http.MethodGet, base+"/metrics", "")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("a service that does not answer held the scrape up for %v", took)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("GET /metrics = %d %q", resp.StatusCode, ct)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("Prometheus cannot read it: %v\n%s", err, body)
	}
	want := map[string]float64{
		`xinghuo_service_up{service="agent"}`:                   1,
		`xinghuo_service_up{service="ingest"}`:                  1,
		`xinghuo_service_up{service="policy"}`:                  0,
		`xinghuo_service_up{service="slow"}`:                    0,
		`go_goroutines{service="agent"}`:                        7,
		`go_goroutines{service="ingest"}`:                       9,
		`xinghuo_inf{service="ingest"}`:                         math.Inf(1),
		`xinghuo_dropped_total{reason="full",service="ingest"}`: 6,
		`xinghuo_dropped_total{exported_service="inner",reason="a\b"c` + "\nd\uFFFD" + `",service="ingest"}`: 5,
		`xinghuo_service_restarts_total{service="ingest"}`:                                                   3,
		`xinghuo_service_state{service="policy",state="backing_off"}`:                                        1,
		`xinghuo_agent_samples_left_out{service="agent"}`:                                                    4,
	}
	got := flatten(families)
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, value)
		}
	}
	if families["xinghuo_dropped_total"].GetType() != dto.MetricType_COUNTER {
		t.Errorf("type of xinghuo_dropped_total = %v, want counter", families["xinghuo_dropped_total"].GetType())
	}
}

func flatten(families map[string]*dto.MetricFamily) map[string]float64 {
	all := make(map[string]float64)
	for name, fam := range families {
		for _, m := range fam.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			all[name+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func TestHealth(t *testing.T) {
	f := &fakeNode{list: []supervise.Status{
		{Name: "ingest", State: supervise.Serving, PID: os.Getpid(), Since: time.Now()},
		{Name: "policy", State: supervise.Misconfigured, LastExit: "<script>alert(1)</script>"},
	}}
	base := open(t, f)
	resp, body := do(t, http.MethodGet, base+"/healthz", "")
	var got struct {
		Status   string
		Services []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || got.Status != "degraded" || len(got.Services) != 2 || got.Services[1].State != "misconfigured" {
		t.Errorf("GET /healthz = %d %s, want 503 with policy misconfigured", resp.StatusCode, body)
	}
	resp, body = do(t, http.MethodGet, base+"/", "")
	if resp.StatusCode != 200 || strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;") || !strings.Contains(body, "&lt;site&gt;") {
		t.Errorf("GET / = %d, want a page with everything escaped:\n%s", resp.StatusCode, body)
	}
	f.list = f.list[:1]
	if resp, body = do(t, http.MethodGet, base+"/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("GET /healthz = %d %s, want 200 when all serve", resp.StatusCode, body)
	}
}

func TestRefusals(t *testing.T) {
	base := open(t, &fakeNode{list: []supervise.Status{{Name: "ingest"}, {Name: "policy"}}})
	tests := []struct {
		method, path, host string
		want               int
		body               string
	}{
		{"GET", "/healthz", "localhost:8600", 503, ""},
		{"GET", "/healthz", "[::1]:8600", 503, ""},
		{"HEAD", "/", "localhost", 200, ""},
		{"GET", "/healthz", "evil.example", 421, "localhost"},
		{"GET", "/healthz", "127.0.0.1.evil.example:8600", 421, ""},
		{"GET", "/healthz", "192.168.1.1:8600", 421, ""},
		{"POST", "/healthz", "localhost", 405, ""},
		{"DELETE", "/", "localhost", 405, ""},
		{"GET", "/nothing", "localhost", 404, ""},
		{"GET", "/debug/pprof/ingest/heap", "localhost", 200, "ingest PROFILE_KIND_HEAP 0s"},
		{"GET", "/debug/pprof/agent/profile?seconds=3", "localhost", 200, "agent PROFILE_KIND_CPU 3s"},
		{"GET", "/debug/pprof/ingest/profile?seconds=61", "localhost", 400, "must be 1 to 60"},
		{"GET", "/debug/pprof/ingest/profile?seconds=x", "localhost", 400, "must be 1 to 60"},
		{"GET", "/debug/pprof/ingest/cmdline", "localhost", 404, ""},
		{"GET", "/debug/pprof/nobody/heap", "localhost", 404, ""},
		{"GET", "/debug/pprof/policy/heap", "localhost", 502, "policy is away"},
	}
	for _, tt := range tests {
		resp, body := do(t, tt.method, base+tt.path, tt.host)
		if resp.StatusCode != tt.want || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s, Host %s = %d %q, want %d with %q", tt.method, tt.path, tt.host, resp.StatusCode, body, tt.want, tt.body)
		}
	}
}

func TestSilentConnectionsDoNotShutTheDoor(t *testing.T) {
	base := open(t, &fakeNode{})
	addr := strings.TrimPrefix(base, "http://")
	var conns []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	// The door has 64 places; who says nothing within 5 s loses his.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("GET /healthz behind 200 silent connections = %v", err)
	}
	_ = resp.Body.Close()
	for _, c := range conns {
		_ = c.Close()
	}
}

func TestOpenFailsOnATakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var oe *net.OpError
	if _, err := door.Open(ln.Addr().String(), door.Options{Log: slog.New(slog.DiscardHandler)}); !errors.As(err, &oe) {
		t.Errorf("Open on a taken port = %v, want a net.OpError", err)
	}
}

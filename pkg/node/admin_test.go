package node_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestGetInfo(t *testing.T) {
	b := start(t, nodeSettings(t, func(n *settings.Node) { n.Site, n.Node = "harbour", "box-7" }), nil)
	b.srv.SetFact("backend", "compiler")
	b.srv.Degrade("xdp", "no CAP_BPF")
	b.srv.Degrade("etcd", "away")
	b.srv.Degrade("gone", "soon well")
	b.srv.Degrade("gone", "")
	client := adminv1.NewAdminServiceClient(b.conn)
	info, err := client.GetInfo(within(t), &adminv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetService() != "policy" || info.GetSite() != "harbour" || info.GetNode() != "box-7" ||
		info.GetState() != adminv1.State_STATE_SERVING || info.GetFacts()["backend"] != "compiler" ||
		info.GetGoVersion() == "" || info.GetVersion() == "" {
		t.Errorf("GetInfo = %v, want this service, serving", info)
	}
	var parts []string
	for _, d := range info.GetDegradations() {
		parts = append(parts, d.GetComponent()+": "+d.GetReason())
	}
	if want := []string{"etcd: away", "xdp: no CAP_BPF"}; !slices.Equal(parts, want) {
		t.Errorf("degradations = %q, want %q", parts, want)
	}
	since := info.GetDegradations()[1].GetSince().AsTime()
	b.srv.Degrade("xdp", "still no CAP_BPF")
	info, err = client.GetInfo(within(t), &adminv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if d := info.GetDegradations()[1]; d.GetReason() != "still no CAP_BPF" || !d.GetSince().AsTime().Equal(since) {
		t.Errorf("degradation with a new reason = %v, want it since %v", d, since)
	}
}

func TestGetStats(t *testing.T) {
	b := start(t, nodeSettings(t), nil)
	b.srv.Collect(func(s *node.Stats) {
		s.Counters("xinghuo_test_total", "reason", map[string]uint64{"b": 2, "a": 1})
		s.Gauge("xinghuo_test_depth", 3)
	})
	resp, err := adminv1.NewAdminServiceClient(b.conn).GetStats(within(t), &adminv1.GetStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ours, names []string
	for _, m := range resp.GetMetrics() {
		names = append(names, m.GetName())
		if strings.HasPrefix(m.GetName(), "xinghuo_test_") {
			ours = append(ours, m.GetName()+m.GetLabels()["reason"])
		}
	}
	if want := []string{"xinghuo_test_depth", "xinghuo_test_totala", "xinghuo_test_totalb"}; !slices.Equal(ours, want) {
		t.Errorf("collected = %q, want %q", ours, want)
	}
	for _, want := range []string{"process_resident_memory_bytes", "process_cpu_seconds_total", "go_goroutines", "xinghuo_calls_refused_total"} {
		if !slices.Contains(names, want) {
			t.Errorf("metrics %q lack %s", names, want)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("metrics are not in order: %q", names)
	}
}

func TestAdminArguments(t *testing.T) {
	b := start(t, nodeSettings(t), nil)
	client := adminv1.NewAdminServiceClient(b.conn)
	level := func(l string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := client.SetLogLevel(ctx, &adminv1.SetLogLevelRequest{Level: l})
			return err
		}
	}
	profile := func(kind adminv1.ProfileKind, d *durationpb.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			resp, err := client.CaptureProfile(ctx, &adminv1.CaptureProfileRequest{Kind: kind, Duration: d})
			if err != nil {
				return err
			}
			_, err = gzip.NewReader(bytes.NewReader(resp.GetProfile()))
			return err
		}
	}
	const cpu = adminv1.ProfileKind_PROFILE_KIND_CPU
	tests := []struct {
		name string
		call func(context.Context) error
		want codes.Code
		text string
	}{
		{"level debug", level("debug"), codes.OK, ""},
		{"level warn", level("warn"), codes.OK, ""},
		{"level unknown", level("loud"), codes.InvalidArgument, `level: must be debug, info, warn or error, is "loud"`},
		{"level between", level("info+2"), codes.InvalidArgument, "level"},
		{"level empty", level(""), codes.InvalidArgument, "level"},
		{"level endless", level(strings.Repeat("x", 1000)), codes.InvalidArgument, `"` + strings.Repeat("x", 40) + `"`},
		{"heap", profile(adminv1.ProfileKind_PROFILE_KIND_HEAP, nil), codes.OK, ""},
		{"allocs", profile(adminv1.ProfileKind_PROFILE_KIND_ALLOCS, nil), codes.OK, ""},
		{"goroutine", profile(adminv1.ProfileKind_PROFILE_KIND_GOROUTINE, nil), codes.OK, ""},
		{"mutex", profile(adminv1.ProfileKind_PROFILE_KIND_MUTEX, nil), codes.OK, ""},
		{"block", profile(adminv1.ProfileKind_PROFILE_KIND_BLOCK, nil), codes.OK, ""},
		{"no kind", profile(adminv1.ProfileKind_PROFILE_KIND_UNSPECIFIED, nil), codes.InvalidArgument, "kind: must be"},
		{"unknown kind", profile(99, nil), codes.InvalidArgument, "kind: must be"},
		{"cpu", profile(cpu, durationpb.New(100*time.Millisecond)), codes.OK, ""},
		{"cpu too short", profile(cpu, durationpb.New(time.Millisecond)), codes.InvalidArgument, "duration: must be 100ms to 1m0s, is 1ms"},
		{"cpu too long", profile(cpu, durationpb.New(time.Hour)), codes.InvalidArgument, "duration"},
		{"cpu backwards", profile(cpu, durationpb.New(-time.Second)), codes.InvalidArgument, "duration"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.call(within(t))
			if status.Code(err) != tt.want || (err != nil && !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("%s = %v, want %v with %q", tt.name, err, tt.want, tt.text)
			}
		})
	}
}

func TestSetLogLevelTakesEffect(t *testing.T) {
	b := start(t, nodeSettings(t), nil)
	client := adminv1.NewAdminServiceClient(b.conn)
	for _, step := range []struct{ level, previous string }{{"debug", "info"}, {"error", "debug"}, {"info", "error"}} {
		resp, err := client.SetLogLevel(within(t), &adminv1.SetLogLevelRequest{Level: step.level})
		if err != nil || resp.GetPreviousLevel() != step.previous {
			t.Errorf("SetLogLevel(%s) = %v, %v, want %s before", step.level, resp, err, step.previous)
		}
		b.srv.Log.DebugContext(t.Context(), "detail at "+step.level) //nolint:sloglint // the level is what is tested
	}
	if b.logs.find(t, "detail at debug") == nil || b.logs.find(t, "detail at error") != nil || b.logs.find(t, "detail at info") != nil {
		t.Error("debug lines were written at other levels than debug")
	}
}

func TestOneCPUProfileAtATime(t *testing.T) {
	b := start(t, nodeSettings(t), nil)
	client := adminv1.NewAdminServiceClient(b.conn)
	ctx, cancel := context.WithCancel(within(t))
	first := make(chan error, 1)
	go func() {
		err := status.Error(codes.ResourceExhausted, "not begun")
		for status.Code(err) == codes.ResourceExhausted { // a short one below may be faster
			_, err = client.CaptureProfile(ctx, &adminv1.CaptureProfileRequest{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(time.Minute)})
		}
		first <- err
	}()
	short := &adminv1.CaptureProfileRequest{Kind: adminv1.ProfileKind_PROFILE_KIND_CPU, Duration: durationpb.New(100 * time.Millisecond)}
	testkit.Eventually(t, limit, "the second profile to be refused", func() bool {
		_, err := client.CaptureProfile(within(t), short)
		return status.Code(err) == codes.ResourceExhausted
	})
	cancel()
	if err := <-first; status.Code(err) != codes.Canceled {
		t.Errorf("the profile that was called off = %v, want CANCELLED", err)
	}
	testkit.Eventually(t, limit, "the next profile", func() bool {
		_, err := client.CaptureProfile(within(t), short)
		return err == nil
	})
}

func TestDrainByCall(t *testing.T) {
	b := start(t, nodeSettings(t, withGrace(7*time.Second)), nil)
	resp, err := adminv1.NewAdminServiceClient(b.conn).Drain(within(t), &adminv1.DrainRequest{})
	if err != nil || resp.GetGrace().AsDuration() != 7*time.Second {
		t.Errorf("Drain = %v, %v, want a grace of 7s", resp, err)
	}
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestNewRefusesABadAccessFile(t *testing.T) {
	cfg := nodeSettings(t, func(n *settings.Node) { n.AccessFile = "/nonexistent/access.yaml" })
	_, err := node.New("policy", cfg, new(logs))
	var bad *settings.Error
	if !errors.As(err, &bad) {
		t.Errorf("New = %v, want a *settings.Error, which exits with %d", err, node.ExitBadConfig)
	}
}

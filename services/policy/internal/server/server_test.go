package server_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"

	"github.com/xinghuo-edge/xinghuo/services/policy/internal/engine"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/policy/internal/wasmtest"
	"github.com/xinghuo-edge/xinghuo/services/policy/modules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the service over the modules of dir, the built-in ones when it
// holds none, with the status of errors as pkg/node gives it.
func serve(t *testing.T, dir string) policyv1.PolicyServiceClient {
	t.Helper()
	if _, err := modules.Seed(dir); err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	toStatus := func(err error) error {
		st, _ := fault.Status(err)
		return st.Err()
	}
	conn := testkit.Serve(t, func(r grpc.ServiceRegistrar) { server.Register(r, e) },
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			resp, err := next(ctx, req)
			return resp, toStatus(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return toStatus(next(srv, ss))
		}))
	return policyv1.NewPolicyServiceClient(conn)
}

func reading(values ...*telemetryv1.Value) *policyv1.DeviceReading {
	return &policyv1.DeviceReading{
		DeviceId: "meter-001", Source: "ws",
		Reading: &telemetryv1.Reading{Sequence: 1, Time: timestamppb.Now(), Values: values},
	}
}

func value(name string, n float64) *telemetryv1.Value {
	return &telemetryv1.Value{Name: name, Number: n}
}

func verdict(a policyv1.Action, reason string) *policyv1.Verdict {
	v := &policyv1.Verdict{Action: a, Reason: reason}
	if a != policyv1.Action_ACTION_ACCEPT {
		v.Module = "threshold"
	}
	return v
}

const (
	accept = policyv1.Action_ACTION_ACCEPT
	reject = policyv1.Action_ACTION_REJECT
	hot    = "temperature above 85 °C"
)

func TestEvaluate(t *testing.T) {
	c := serve(t, t.TempDir())
	ancient := reading(value("temperature", 20))
	ancient.Reading.Time = &timestamppb.Timestamp{Seconds: math.MinInt64, Nanos: math.MinInt32}
	late := reading(value("temperature", 20))
	late.Reading.Time = &timestamppb.Timestamp{Seconds: math.MaxInt64, Nanos: math.MaxInt32}
	nobody := reading(value("temperature", 20))
	nobody.DeviceId = ""
	for _, tt := range []struct {
		name  string
		in    *policyv1.DeviceReading
		want  *policyv1.Verdict
		field string // of the refusal
	}{
		{"cool", reading(value("temperature", 20)), verdict(accept, ""), ""},
		{"hot", reading(value("voltage_volts", 230), value("temperature", 86)), verdict(reject, hot), ""},
		{"NaN", reading(value("temperature", math.NaN())), verdict(reject, "temperature is not a number"), ""},
		{"text", reading(&telemetryv1.Value{Name: "temperature", Number: 20, Text: "mild"}), verdict(reject, "temperature is not a number"), ""},
		{"before all time", ancient, verdict(accept, ""), ""},
		{"after all time", late, verdict(accept, ""), ""},
		{"nothing", nil, nil, "reading: must be set"},
		{"no reading", &policyv1.DeviceReading{DeviceId: "m"}, nil, "reading.reading.values: must be 1 to 64"},
		{"no device", nobody, nil, "reading.device_id: must be 1 to 64 bytes, is 0"},
		{"long name", reading(value(strings.Repeat("n", 65), 1)), nil, "reading.reading.values[0].name: must be 1 to 64 bytes, is 65"},
	} {
		resp, err := c.Evaluate(t.Context(), &policyv1.EvaluateRequest{Reading: tt.in})
		if tt.want == nil {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.field) {
				t.Errorf("%s: Evaluate() = %v, want INVALID_ARGUMENT with %q", tt.name, err, tt.field)
			}
			continue
		}
		if err != nil || !proto.Equal(resp.GetVerdict(), tt.want) || resp.GetGeneration() != 1 {
			t.Errorf("%s: Evaluate() = %v, %v, want %v by 1", tt.name, resp, err, tt.want)
		}
	}
}

func TestEvaluateStream(t *testing.T) {
	stream, err := serve(t, t.TempDir()).EvaluateStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range []int{1, 256, 3, 64} { // larger and smaller: the stream's room is used again
		req := &policyv1.EvaluateStreamRequest{BatchId: uint64(id)}
		for i := range n {
			req.Readings = append(req.Readings, reading(value("n", float64(i)), value("temperature", float64(80+i%10))))
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || resp.GetBatchId() != uint64(id) || resp.GetGeneration() != 1 || len(resp.GetVerdicts()) != n {
			t.Fatalf("batch %d of %d: answered %d verdicts for batch %d by %d, %v", id, n, len(resp.GetVerdicts()), resp.GetBatchId(), resp.GetGeneration(), err)
		}
		for i, got := range resp.GetVerdicts() {
			want := verdict(accept, "")
			if i%10 > 5 {
				want = verdict(reject, hot)
			}
			if !proto.Equal(got, want) {
				t.Errorf("batch %d: verdict %d = %v, want %v", id, i, got, want)
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err == nil || err.Error() != "EOF" {
		t.Errorf("Recv() after CloseSend = %v, want EOF", err)
	}
}

func TestEvaluateStreamRefuses(t *testing.T) {
	c := serve(t, t.TempDir())
	many := make([]*policyv1.DeviceReading, 257)
	for i := range many {
		many[i] = reading(value("a", 1))
	}
	for _, tt := range []struct {
		name     string
		readings []*policyv1.DeviceReading
		want     string
	}{
		{"empty", nil, "readings: must be 1 to 256, are 0"},
		{"too many", many, "readings: must be 1 to 256, are 257"},
		{"one bad", []*policyv1.DeviceReading{reading(value("a", 1)), {DeviceId: "m"}}, "readings[1].reading.values: must be 1 to 64 values, are 0"},
	} {
		stream, err := c.EvaluateStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&policyv1.EvaluateStreamRequest{Readings: tt.readings}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Recv() = %v, want INVALID_ARGUMENT with %q", tt.name, err, tt.want)
		}
	}
}

func TestListModules(t *testing.T) {
	dir := t.TempDir()
	c := serve(t, dir)
	if _, err := c.Evaluate(t.Context(), &policyv1.EvaluateRequest{Reading: reading(value("temperature", 99))}); err != nil {
		t.Fatal(err)
	}
	resp, err := c.ListModules(t.Context(), &policyv1.ListModulesRequest{})
	if err != nil || len(resp.GetModules()) != 1 || resp.GetRefusal() != "" || resp.GetBackend() == "" {
		t.Fatalf("ListModules() = %v, %v, want one module", resp, err)
	}
	m := resp.GetModules()[0]
	if m.GetName() != "threshold" || m.GetEvaluations() != 1 || m.GetRejections() != 1 || m.GetSizeBytes() == 0 || time.Since(m.GetLoadTime().AsTime()) > time.Minute {
		t.Errorf("ListModules() = %v, want threshold with 1 evaluation and 1 rejection", m)
	}
}

func TestFailedEvaluation(t *testing.T) {
	dir := t.TempDir()
	trap := wasmtest.Module{Evaluate: []byte{wasmtest.Unreachable}}.Bytes()
	if err := os.WriteFile(filepath.Join(dir, "trap.wasm"), trap, 0o600); err != nil {
		t.Fatal(err)
	}
	resp, err := serve(t, dir).Evaluate(t.Context(), &policyv1.EvaluateRequest{Reading: reading(value("a", 1))})
	want := &policyv1.Verdict{Action: accept, Module: "trap", Reason: "wasm error: unreachable", Unevaluated: true}
	if err != nil || !proto.Equal(resp.GetVerdict(), want) {
		t.Errorf("Evaluate() = %v, %v, want %v", resp, err, want)
	}
}

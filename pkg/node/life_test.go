package node_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
)

func TestHealthByServiceName(t *testing.T) {
	b := start(t, nodeSettings(t), func(s *node.Server) { policyv1.RegisterPolicyServiceServer(s, &policyFake{}) })
	client := healthv1.NewHealthClient(b.conn)
	tests := []struct {
		service string
		want    codes.Code
	}{
		{"", codes.OK},
		{"policy", codes.OK},
		{"xinghuo.policy.v1.PolicyService", codes.OK},
		{"xinghuo.admin.v1.AdminService", codes.OK},
		{"grpc.health.v1.Health", codes.OK},
		{"xinghuo.ingest.v1.IngestService", codes.NotFound},
	}
	for _, tt := range tests {
		resp, err := client.Check(within(t), &healthv1.HealthCheckRequest{Service: tt.service})
		if status.Code(err) != tt.want || (err == nil && resp.GetStatus() != healthv1.HealthCheckResponse_SERVING) {
			t.Errorf("Check(%q) = %v, %v, want SERVING or %v", tt.service, resp.GetStatus(), err, tt.want)
		}
	}
}

// Each watcher is told before its stream ends, whichever name it watches.
func TestHealthTellsBeforeTheEnd(t *testing.T) {
	b := start(t, nodeSettings(t), nil)
	client := healthv1.NewHealthClient(b.conn)
	var streams []interface {
		Recv() (*healthv1.HealthCheckResponse, error)
	}
	for _, name := range []string{"", "policy", "xinghuo.admin.v1.AdminService"} {
		stream, err := client.Watch(within(t), &healthv1.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := stream.Recv(); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Fatalf("first status of %q = %v, %v, want SERVING", name, resp.GetStatus(), err)
		}
		streams = append(streams, stream)
	}
	b.stop()
	for _, stream := range streams {
		if resp, err := stream.Recv(); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("status as it stops = %v, %v, want NOT_SERVING", resp.GetStatus(), err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("end of the stream = %v, want UNAVAILABLE", err)
		}
	}
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestReflectionInBothVersions(t *testing.T) {
	b := start(t, nodeSettings(t), func(s *node.Server) { policyv1.RegisterPolicyServiceServer(s, &policyFake{}) })
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"xinghuo.admin.v1.AdminService", "xinghuo.policy.v1.PolicyService",
	}

	v1, err := reflectionv1.NewServerReflectionClient(b.conn).ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := v1.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("v1 lists %v, want %v", got, want)
	}

	alpha, err := reflectionv1alpha.NewServerReflectionClient(b.conn).ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{ //nolint:staticcheck // deprecated, and what older grpcurl speaks
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	aresp, err := alpha.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(aresp.GetListServicesResponse().GetService()); n != len(want) { //nolint:staticcheck // as above
		t.Errorf("v1alpha lists %d services, want %d", n, len(want))
	}
	if err := alpha.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := alpha.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseSend = %v, want EOF", err)
	}
}

func TestALoopThatFailsEndsTheService(t *testing.T) {
	broken := errors.New("disk is gone")
	fail := make(chan struct{})
	other := make(chan struct{})
	b := start(t, nodeSettings(t), nil,
		func(ctx context.Context) error {
			select {
			case <-fail:
				return broken
			case <-ctx.Done():
				return nil
			}
		},
		func(ctx context.Context) error {
			<-ctx.Done()
			close(other)
			return nil
		},
		func(context.Context) error { return nil }, // may end early
	)
	if _, err := healthv1.NewHealthClient(b.conn).Check(within(t), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	close(fail)
	if err := b.wait(t); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want %v", err, broken)
	}
	<-other
}

func TestAContextThatHasEndedEndsInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // the server is at times stopped before it serves
		srv, err := node.New("policy", nodeSettings(t), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Run(ctx); err != nil {
			t.Fatalf("Run = %v, want nil", err)
		}
	}
}

func TestOutwardErrors(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want codes.Code
		text string
	}{
		{"unknown", errors.New("password is hunter2"), codes.Internal, "internal error; see the service's log"},
		{"kind", fault.Invalid("deadline_ms", "must be 1 to 60000, is %d", 0), codes.InvalidArgument, "deadline_ms: must be 1 to 60000, is 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, nodeSettings(t), func(s *node.Server) {
				ingestv1.RegisterIngestServiceServer(s, &ingestFake{command: func(context.Context) error { return tt.err }})
			})
			_, err := ingestv1.NewIngestServiceClient(b.conn).SendCommand(within(t), &ingestv1.SendCommandRequest{})
			st := status.Convert(err)
			if st.Code() != tt.want || st.Message() != tt.text {
				t.Errorf("SendCommand = %v %q, want %v %q", st.Code(), st.Message(), tt.want, tt.text)
			}
			line := b.logs.find(t, "call failed")
			if tt.want == codes.Internal && (line == nil || line["err"] != tt.err.Error() || line["trace_id"] == nil) {
				t.Errorf("log line = %v, want the cause and a trace id", line)
			}
			if tt.want != codes.Internal && line != nil {
				t.Errorf("log line = %v, want none", line)
			}
		})
	}
}

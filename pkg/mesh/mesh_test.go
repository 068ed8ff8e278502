package mesh_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 10 * time.Second

// ingest counts its calls, and fails the first of them.
type ingest struct {
	ingestv1.UnimplementedIngestServiceServer
	calls atomic.Int64
	fails int64
	code  codes.Code
	name  string
}

func (i *ingest) next() error {
	if i.calls.Add(1) <= i.fails {
		return status.Error(i.code, "as the test wants it")
	}
	return nil
}

func (i *ingest) GetStats(context.Context, *ingestv1.GetStatsRequest) (*ingestv1.GetStatsResponse, error) {
	return &ingestv1.GetStatsResponse{}, i.next()
}

func (i *ingest) GetDevice(context.Context, *ingestv1.GetDeviceRequest) (*ingestv1.GetDeviceResponse, error) {
	return &ingestv1.GetDeviceResponse{Device: &ingestv1.Device{Id: i.name}}, i.next()
}

func (i *ingest) SendCommand(context.Context, *ingestv1.SendCommandRequest) (*ingestv1.SendCommandResponse, error) {
	return &ingestv1.SendCommandResponse{}, i.next()
}

func (i *ingest) WatchReadings(_ *ingestv1.WatchReadingsRequest, stream grpc.ServerStreamingServer[ingestv1.WatchReadingsResponse]) error {
	if err := i.next(); err != nil {
		return err
	}
	if err := stream.Send(&ingestv1.WatchReadingsResponse{DeviceId: i.name}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serve puts a server behind the socket's name; stop takes it away, as a
// process that dies does.
func serve(t *testing.T, dir string, impl ingestv1.IngestServiceServer) (stop func()) {
	t.Helper()
	path := dir + "/ingest.sock"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	ingestv1.RegisterIngestServiceServer(srv, impl)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.Swap(true) {
			return
		}
		srv.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = os.Remove(path)
	}
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, dir string) ingestv1.IngestServiceClient {
	t.Helper()
	conn, err := mesh.Dial(dir, "ingest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return ingestv1.NewIngestServiceClient(conn)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestACallHasADeadline(t *testing.T) {
	dir := testkit.SocketDir(t)
	fake := &ingest{}
	serve(t, dir, fake)
	client := dial(t, dir)
	unary := func(ctx context.Context) error {
		_, err := client.GetStats(ctx, &ingestv1.GetStatsRequest{})
		return err
	}
	stream := func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := client.WatchReadings(ctx, &ingestv1.WatchReadingsRequest{})
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	}
	tests := []struct {
		name string
		call func(context.Context) error
		ctx  context.Context
		want error
	}{
		{"unary without", unary, t.Context(), mesh.ErrNoDeadline},
		{"unary marked long-lived", unary, mesh.LongLived(t.Context()), mesh.ErrNoDeadline},
		{"unary with", unary, within(t, limit), nil},
		{"stream without", stream, t.Context(), mesh.ErrNoDeadline},
		{"stream marked long-lived", stream, mesh.LongLived(t.Context()), nil},
		{"stream with", stream, within(t, limit), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := fake.calls.Load()
			err := tt.call(tt.ctx)
			if !errors.Is(err, tt.want) {
				t.Errorf("call = %v, want %v", err, tt.want)
			}
			if made := fake.calls.Load() != before; made != (tt.want == nil) {
				t.Errorf("call reached the service: %v, want %v", made, tt.want == nil)
			}
		})
	}
}

func TestACallWaitsForItsService(t *testing.T) {
	dir := testkit.SocketDir(t)
	client := dial(t, dir)
	if _, err := client.GetStats(within(t, 50*time.Millisecond), &ingestv1.GetStatsRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("call of a service that is away = %v, want DEADLINE_EXCEEDED", err)
	}
	result := make(chan error, 2)
	go func() {
		_, err := client.SendCommand(within(t, limit), &ingestv1.SendCommandRequest{})
		result <- err
	}()
	go func() {
		stream, err := client.WatchReadings(within(t, limit), &ingestv1.WatchReadingsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		result <- err
	}()
	serve(t, dir, &ingest{})
	for range 2 {
		if err := <-result; err != nil {
			t.Errorf("call made before the service was there = %v, want nil", err)
		}
	}
}

func TestRetry(t *testing.T) {
	stats := func(ctx context.Context, c ingestv1.IngestServiceClient) error {
		_, err := c.GetStats(ctx, &ingestv1.GetStatsRequest{})
		return err
	}
	command := func(ctx context.Context, c ingestv1.IngestServiceClient) error {
		_, err := c.SendCommand(ctx, &ingestv1.SendCommandRequest{})
		return err
	}
	watch := func(ctx context.Context, c ingestv1.IngestServiceClient) error {
		stream, err := c.WatchReadings(ctx, &ingestv1.WatchReadingsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	tests := []struct {
		name     string
		call     func(context.Context, ingestv1.IngestServiceClient) error
		fails    int64
		code     codes.Code
		want     codes.Code
		attempts int64
	}{
		{"idempotent, back at the third", stats, 2, codes.Unavailable, codes.OK, 3},
		{"idempotent, away for long", stats, 100, codes.Unavailable, codes.Unavailable, 4},
		{"idempotent, but broken", stats, 1, codes.Internal, codes.Internal, 1},
		{"idempotent, but full", stats, 1, codes.ResourceExhausted, codes.ResourceExhausted, 1},
		{"a command is sent once", command, 1, codes.Unavailable, codes.Unavailable, 1},
		{"a stream is its owner's", watch, 1, codes.Unavailable, codes.Unavailable, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := testkit.SocketDir(t)
			fake := &ingest{fails: tt.fails, code: tt.code}
			serve(t, dir, fake)
			err := tt.call(within(t, limit), dial(t, dir))
			if status.Code(err) != tt.want || fake.calls.Load() != tt.attempts {
				t.Errorf("call = %v after %d attempts, want %v after %d", err, fake.calls.Load(), tt.want, tt.attempts)
			}
		})
	}
}

// A service that was away for long enough that attempts have become rare is
// found within a second of its return.
func TestReconnect(t *testing.T) {
	dir := testkit.SocketDir(t)
	client := dial(t, dir)
	stop := serve(t, dir, &ingest{name: "old"})
	stream, err := client.WatchReadings(mesh.LongLived(t.Context()), &ingestv1.WatchReadingsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("stream of a service that died = %v, want UNAVAILABLE", err)
	}
	if _, err := client.GetStats(within(t, 3*time.Second), &ingestv1.GetStatsRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("call while it is away = %v, want DEADLINE_EXCEEDED", err)
	}
	serve(t, dir, &ingest{name: "new"})
	resp, err := client.GetDevice(within(t, time.Second), &ingestv1.GetDeviceRequest{})
	if err != nil || resp.GetDevice().GetId() != "new" {
		t.Errorf("call within 1s of its return = %v, %v, want the new service", resp, err)
	}
}

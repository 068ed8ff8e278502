package node_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// stopAndWatch begins the drain and returns when streams have been cut.
func stopAndWatch(t *testing.T, b *bed, stop func()) {
	t.Helper()
	stream, err := healthv1.NewHealthClient(b.conn).Watch(within(t), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stop()
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("health watch ended with %v, want UNAVAILABLE", err)
	}
}

func TestDrainIsBoundedByGrace(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	tests := []struct {
		name    string
		command func(context.Context) error
		left    bool
	}{
		{"waits for its context", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false},
		{"ignores its context", func(context.Context) error { <-release; return nil }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := &ingestFake{entered: make(chan struct{}, 1), command: tt.command}
			b := start(t, nodeSettings(t, withGrace(100*time.Millisecond)), func(s *node.Server) { ingestv1.RegisterIngestServiceServer(s, fake) })
			result := make(chan error, 1)
			go func() {
				_, err := ingestv1.NewIngestServiceClient(b.conn).SendCommand(within(t), &ingestv1.SendCommandRequest{})
				result <- err
			}()
			<-fake.entered
			b.stop()
			if err := b.wait(t); err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
			if err := <-result; status.Code(err) != codes.Unavailable {
				t.Errorf("the call that hung = %v, want UNAVAILABLE", err)
			}
			if left := b.logs.find(t, "calls left behind") != nil; left != tt.left {
				t.Errorf("log tells of calls left behind: %v, want %v", left, tt.left)
			}
		})
	}
}

// A call that ends within the grace is answered as if nothing happened, and
// the loops run until then.
func TestDrainLetsOpenCallsFinish(t *testing.T) {
	release := make(chan struct{})
	fake := &ingestFake{entered: make(chan struct{}, 1), command: func(context.Context) error { <-release; return nil }}
	looping := make(chan struct{})
	b := start(t, nodeSettings(t), func(s *node.Server) { ingestv1.RegisterIngestServiceServer(s, fake) },
		func(ctx context.Context) error { <-ctx.Done(); close(looping); return nil })
	result := make(chan error, 1)
	go func() {
		_, err := ingestv1.NewIngestServiceClient(b.conn).SendCommand(within(t), &ingestv1.SendCommandRequest{})
		result <- err
	}()
	<-fake.entered
	stopAndWatch(t, b, b.stop)
	select {
	case <-looping:
		t.Error("the loops ended before the open call")
	default:
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("SendCommand = %v, want nil", err)
	}
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	<-looping
}

// The grace is 30 s here; bed.wait allows a third of it.
func TestDrainEndsIdleStreamsAtOnce(t *testing.T) {
	fake := &policyFake{taken: make(chan uint64, 1), release: make(chan struct{}, 1)}
	b := start(t, nodeSettings(t), func(s *node.Server) {
		policyv1.RegisterPolicyServiceServer(s, fake)
		ingestv1.RegisterIngestServiceServer(s, &ingestFake{})
	})
	if b.cfg.GraceTimeout != settings.MaxGrace {
		t.Fatalf("grace = %v, want %v", b.cfg.GraceTimeout, settings.MaxGrace)
	}
	bidi, err := policyv1.NewPolicyServiceClient(b.conn).EvaluateStream(within(t))
	if err != nil {
		t.Fatal(err)
	}
	fake.release <- struct{}{}
	if err := bidi.Send(&policyv1.EvaluateStreamRequest{BatchId: 1}); err != nil {
		t.Fatal(err)
	}
	if resp, err := bidi.Recv(); err != nil || resp.GetBatchId() != 1 {
		t.Fatalf("Recv = %v, %v, want batch 1", resp, err)
	}
	watch, err := ingestv1.NewIngestServiceClient(b.conn).WatchReadings(within(t), &ingestv1.WatchReadingsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	if _, err := bidi.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("idle bidi stream ended with %v, want UNAVAILABLE", err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("server stream ended with %v, want UNAVAILABLE", err)
	}
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// The batch that the handler works on when the drain begins is answered; the
// one behind it is not taken in, and its sender learns that by the stream's end.
func TestDrainAnswersWhatWasTakenIn(t *testing.T) {
	fake := &policyFake{taken: make(chan uint64, 2), release: make(chan struct{})}
	b := start(t, nodeSettings(t), func(s *node.Server) { policyv1.RegisterPolicyServiceServer(s, fake) })
	stream, err := policyv1.NewPolicyServiceClient(b.conn).EvaluateStream(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(2) {
		if err := stream.Send(&policyv1.EvaluateStreamRequest{BatchId: id + 1}); err != nil {
			t.Fatal(err)
		}
	}
	<-fake.taken
	stopAndWatch(t, b, b.stop)
	close(fake.release)
	if resp, err := stream.Recv(); err != nil || resp.GetBatchId() != 1 {
		t.Errorf("answer during the drain = %v, %v, want batch 1", resp, err)
	}
	if resp, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after it = %v, %v, want UNAVAILABLE", resp, err)
	}
	if err := b.wait(t); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if n := len(fake.taken); n != 0 {
		t.Errorf("%d further batches were taken in, want none", n)
	}
}

// A stream that its client ends while nothing drains ends with OK.
func TestAStreamThatItsClientEnds(t *testing.T) {
	fake := &policyFake{taken: make(chan uint64, 1), release: make(chan struct{}, 1)}
	b := start(t, nodeSettings(t), func(s *node.Server) { policyv1.RegisterPolicyServiceServer(s, fake) })
	stream, err := policyv1.NewPolicyServiceClient(b.conn).EvaluateStream(within(t))
	if err != nil {
		t.Fatal(err)
	}
	fake.release <- struct{}{}
	if err := stream.Send(&policyv1.EvaluateStreamRequest{BatchId: 7}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetBatchId() != 7 {
		t.Errorf("Recv = %v, %v, want batch 7", resp, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseSend = %v, want EOF", err)
	}
}

package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestMain(m *testing.M) {
	if target := os.Getenv(callTarget); target != "" {
		os.Exit(callAndTell(target, os.Getenv(callMethod)))
	}
	goleak.VerifyTestMain(m)
}

// limit is far beyond what anything here takes, and far below MaxGrace.
const limit = 10 * time.Second

// bed is a service that runs, and a client of it.
type bed struct {
	cfg  settings.Node
	srv  *node.Server
	conn *grpc.ClientConn
	logs *logs
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
	err  error         // what it returned; read it after done
}

type option func(*settings.Node)

func withGrace(d time.Duration) option { return func(n *settings.Node) { n.GraceTimeout = d } }

func nodeSettings(t *testing.T, opts ...option) settings.Node {
	t.Helper()
	cfg := settings.DefaultNode()
	cfg.RunDir = filepath.Join(testkit.SocketDir(t), "run")
	cfg.StateDir = t.TempDir()
	for _, o := range opts {
		o(&cfg)
	}
	return cfg
}

// start runs a service by the name of "policy".
func start(t *testing.T, cfg settings.Node, register func(*node.Server), loops ...func(context.Context) error) *bed {
	t.Helper()
	b := &bed{cfg: cfg, logs: new(logs), done: make(chan struct{})}
	srv, err := node.New("policy", cfg, b.logs)
	if err != nil {
		t.Fatal(err)
	}
	if register != nil {
		register(srv)
	}
	b.srv = srv
	ctx, stop := context.WithCancel(context.Background()) // outlives the test's own context, for the cleanup
	b.stop = stop
	go func() {
		defer close(b.done)
		b.err = srv.Run(ctx, loops...)
	}()
	b.conn = dial(t, b.socket())
	t.Cleanup(func() {
		stop()
		_ = b.wait(t) // what it returns is each test's own matter
	})
	return b
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (b *bed) socket() string { return filepath.Join(b.cfg.RunDir, "policy.sock") }

// wait returns what Run returned.
func (b *bed) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-b.done:
		return b.err
	case <-time.After(limit):
		t.Fatalf("Run has not returned within %v", limit)
		return nil
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// logs keeps the lines of a service.
type logs struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// find returns the first line with that message.
func (l *logs) find(t *testing.T, msg string) map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Errorf("log line %q: %v", line, err)
		}
		if fields["msg"] == msg {
			return fields
		}
	}
	return nil
}

// policyFake answers each batch with its own id, when release lets it.
type policyFake struct {
	policyv1.UnimplementedPolicyServiceServer
	taken   chan uint64   // told of each batch that was taken in
	release chan struct{} // one for each answer
}

func (p *policyFake) EvaluateStream(stream grpc.BidiStreamingServer[policyv1.EvaluateStreamRequest, policyv1.EvaluateStreamResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.taken <- req.GetBatchId()
		<-p.release
		if err := stream.Context().Err(); err != nil {
			return err
		}
		if err := stream.Send(&policyv1.EvaluateStreamResponse{BatchId: req.GetBatchId()}); err != nil {
			return err
		}
	}
}

// ingestFake has calls that last.
type ingestFake struct {
	ingestv1.UnimplementedIngestServiceServer
	entered chan struct{} // told of each call
	command func(context.Context) error
}

func (i *ingestFake) SendCommand(ctx context.Context, _ *ingestv1.SendCommandRequest) (*ingestv1.SendCommandResponse, error) {
	if i.entered != nil {
		i.entered <- struct{}{}
	}
	if err := i.command(ctx); err != nil {
		return nil, err
	}
	return &ingestv1.SendCommandResponse{Ok: true}, nil
}

func (i *ingestFake) WatchReadings(_ *ingestv1.WatchReadingsRequest, stream grpc.ServerStreamingServer[ingestv1.WatchReadingsResponse]) error {
	if err := stream.Send(&ingestv1.WatchReadingsResponse{DeviceId: "meter-1"}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

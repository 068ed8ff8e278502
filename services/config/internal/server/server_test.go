package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/etcdtest"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/bootstrap"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/cache"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/etcd"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/server"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 20 * time.Second

// serve runs the server over a store on a real etcd.
func serve(t *testing.T) (configv1.ConfigServiceClient, *store.Store, *etcd.Dialer) {
	t.Helper()
	cfg := bootstrap.Default().Etcd
	cfg.Endpoints = []string{etcdtest.Start(t).Endpoint()}
	dialer, err := etcd.NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file, err := cache.Open(t.TempDir(), "/xinghuo/site/node/")
	if err != nil {
		t.Fatal(err)
	}
	st := store.New(store.Options{
		Log: slog.New(slog.DiscardHandler), Prefix: "/xinghuo/site/node/", Dial: dialer.Dial, Cache: file,
		RequestTimeout: 5 * time.Second, Heartbeat: 500 * time.Millisecond, Degrade: func(string, string) {},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	testkit.Eventually(t, limit, "etcd to be heard", func() bool { return !st.Stats().Stale })
	// pkg/node's interceptors, without its sockets
	conn := testkit.Serve(t, func(r grpc.ServiceRegistrar) { configv1.RegisterConfigServiceServer(r, server.New(st)) },
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			resp, err := next(ctx, req)
			return resp, outward(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return outward(next(srv, ss))
		}))
	return configv1.NewConfigServiceClient(conn), st, dialer
}

func outward(err error) error {
	st, _ := fault.Status(err)
	return st.Err()
}

func TestCodes(t *testing.T) {
	client, _, _ := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	zero, minus := int64(0), int64(-1)
	put, err := client.Put(ctx, &configv1.PutRequest{Service: "ingest", Name: "there", Value: "1"})
	if err != nil {
		t.Fatal(err)
	}
	next := put.GetRevision() + 1
	long := strings.Repeat("x", setting.MaxValue+1)

	do := func(req any) error {
		var err error
		switch r := req.(type) {
		case *configv1.GetRequest:
			_, err = client.Get(ctx, r)
		case *configv1.PutRequest:
			_, err = client.Put(ctx, r)
		case *configv1.DeleteRequest:
			_, err = client.Delete(ctx, r)
		case *configv1.WatchRequest:
			var stream grpc.ServerStreamingClient[configv1.WatchResponse]
			if stream, err = client.Watch(ctx, r); err == nil {
				_, err = stream.Recv()
			}
		}
		return err
	}
	tests := []struct {
		name  string
		req   any
		want  codes.Code
		field string
	}{
		{"get", &configv1.GetRequest{Service: "ingest", Name: "none"}, codes.NotFound, ""},
		{"get nothing", &configv1.GetRequest{}, codes.InvalidArgument, "service name"},
		{"get unknown service", &configv1.GetRequest{Service: "sales", Name: "a"}, codes.InvalidArgument, "service"},
		{"get traversal", &configv1.GetRequest{Service: "ingest", Name: "../crypto/a"}, codes.InvalidArgument, "name"},
		{"get dots", &configv1.GetRequest{Service: "ingest", Name: ".."}, codes.InvalidArgument, "name"},
		{"put long name", &configv1.PutRequest{Service: "ingest", Name: strings.Repeat("a", 129), Value: "1"}, codes.InvalidArgument, "name"},
		{"put long value", &configv1.PutRequest{Service: "ingest", Name: "a", Value: long}, codes.InvalidArgument, "value"},
		{"put bad YAML", &configv1.PutRequest{Service: "ingest", Name: "a", Value: "a: ["}, codes.InvalidArgument, "value"},
		{"put empty", &configv1.PutRequest{Service: "ingest", Name: "a"}, codes.InvalidArgument, "value"},
		{"put all wrong", &configv1.PutRequest{Service: "x", Name: "A", Value: "[", ExpectedRevision: &minus}, codes.InvalidArgument, "service name value expected_revision"},
		{"put exists", &configv1.PutRequest{Service: "ingest", Name: "there", Value: "1", ExpectedRevision: &zero}, codes.Aborted, ""},
		{"put newer", &configv1.PutRequest{Service: "ingest", Name: "there", Value: "1", ExpectedRevision: &next}, codes.Aborted, ""},
		{"delete none", &configv1.DeleteRequest{Service: "ingest", Name: "none"}, codes.NotFound, ""},
		{"delete expected 0", &configv1.DeleteRequest{Service: "ingest", Name: "there", ExpectedRevision: &zero}, codes.InvalidArgument, "expected_revision"},
		{"delete newer", &configv1.DeleteRequest{Service: "ingest", Name: "there", ExpectedRevision: &next}, codes.Aborted, ""},
		{"watch unknown service", &configv1.WatchRequest{Service: "x"}, codes.InvalidArgument, "service"},
		{"watch before the start", &configv1.WatchRequest{AfterRevision: -1}, codes.InvalidArgument, "after_revision"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := do(tt.req)
			if got := status.Code(err); got != tt.want {
				t.Errorf("%T(%.60v) = %v, want %v", tt.req, tt.req, err, tt.want)
			}
			if got := fields(err); got != tt.field {
				t.Errorf("%T(%.60v) names %q, want %q", tt.req, tt.req, got, tt.field)
			}
		})
	}
}

func fields(err error) string {
	var names []string
	for _, d := range status.Convert(err).Details() {
		if br, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range br.GetFieldViolations() {
				names = append(names, v.GetField())
			}
		}
	}
	return strings.Join(names, " ")
}

func TestWatch(t *testing.T) {
	client, _, _ := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stream, err := client.Watch(ctx, &configv1.WatchRequest{Service: "policy"})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil || resp.GetSynced() == nil || resp.GetSynced().GetFreshness().GetStale() || resp.GetSynced().GetFreshness().GetSyncedTime() == nil {
		t.Fatalf("Recv() = %v, %v, want a fresh Synced", resp, err)
	}
	put, err := client.Put(ctx, &configv1.PutRequest{Service: "policy", Name: "limit", Value: "{a: 星火}"})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = stream.Recv()
	if e := resp.GetPut(); err != nil || e.GetName() != "limit" || e.GetValue() != "{a: 星火}" || e.GetRevision() != put.GetRevision() || e.GetTime() == nil {
		t.Errorf("Recv() = %v, %v, want the put at %d", resp, err, put.GetRevision())
	}
	got, err := client.Get(ctx, &configv1.GetRequest{Service: "policy", Name: "limit"})
	if err != nil || got.GetEntry().GetValue() != "{a: 星火}" || got.GetFreshness().GetStale() {
		t.Errorf("Get() = %v, %v, want the put", got, err)
	}
	del, err := client.Delete(ctx, &configv1.DeleteRequest{Service: "policy", Name: "limit", ExpectedRevision: &put.Revision})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = stream.Recv()
	if e := resp.GetDeleted(); err != nil || e.GetName() != "limit" || e.GetValue() != "" || resp.GetRevision() != del.GetRevision() {
		t.Errorf("Recv() = %v, %v, want the deletion at %d", resp, err, del.GetRevision())
	}
}

// TestStuckReader has a reader that opens a watch and never reads: its handler
// hangs in a send, and ends all the same.
func TestStuckReader(t *testing.T) {
	client, st, dialer := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stream, err := client.Watch(ctx, &configv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, limit, "the watch to begin", func() bool { return st.Stats().Watchers == 1 })
	c, err := dialer.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	// 128 is etcd's limit of one Txn. gRPC's windows hold some 150 of them, the
	// watcher 1,024.
	for range 2 * store.Backlog / 128 {
		var ops []clientv3.Op
		for i := range 128 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/xinghuo/site/node/ingest/n%d", i), strings.Repeat("x", 1024)))
		}
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, limit, "the reader to be cut off", func() bool { return st.Stats().Watchers == 0 })
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("Recv() = %v, want ResourceExhausted", err)
	}
}

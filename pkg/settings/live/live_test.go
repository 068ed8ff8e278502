package live_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/settings/live"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server plays one script for each watch that is opened, and then ends the
// stream; the last stays open.
type server struct {
	configv1.UnimplementedConfigServiceServer
	scripts chan []*configv1.WatchResponse
}

func (s *server) Watch(_ *configv1.WatchRequest, stream grpc.ServerStreamingServer[configv1.WatchResponse]) error {
	select {
	case script := <-s.scripts:
		for _, resp := range script {
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		if len(s.scripts) > 0 {
			return errors.New("the service restarts")
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func put(name, value string, revision int64) *configv1.WatchResponse {
	return &configv1.WatchResponse{Revision: revision, Event: &configv1.WatchResponse_Put{
		Put: &configv1.Entry{Service: "ingest", Name: name, Value: value, Revision: revision},
	}}
}

func deleted(name string, revision int64) *configv1.WatchResponse {
	return &configv1.WatchResponse{Revision: revision, Event: &configv1.WatchResponse_Deleted{
		Deleted: &configv1.Entry{Service: "ingest", Name: name, Revision: revision},
	}}
}

func synced(revision int64, stale bool) *configv1.WatchResponse {
	return &configv1.WatchResponse{Revision: revision, Event: &configv1.WatchResponse_Synced{
		Synced: &configv1.Synced{Freshness: &configv1.Freshness{Stale: stale}},
	}}
}

// end marks the end of what a test waits for.
func end(revision int64) *configv1.WatchResponse { return put("end", "", revision) }

func TestWatch(t *testing.T) {
	type script = []*configv1.WatchResponse
	tests := []struct {
		name    string
		scripts []script
		want    string
	}{
		{"snapshot and live", []script{
			{put("a", "1", 1), synced(1, false), put("a", "2", 2), deleted("a", 3), end(4)},
		}, "a=1 a=2 -a"},
		{"duplicates", []script{
			{put("a", "1", 1), put("a", "1", 1), synced(1, false), put("a", "2", 2), put("a", "1", 1), end(3)},
		}, "a=1 a=2"},
		{"same snapshot again", []script{
			{put("a", "1", 1), synced(1, false)},
			{put("a", "1", 1), synced(1, false), end(2)},
		}, "a=1"},
		{"removed while away", []script{
			{put("a", "1", 1), put("b", "1", 2), synced(2, false)},
			{put("b", "1", 2), synced(3, false), end(4)},
		}, "a=1 b=1 -a"},
		{"removed and written again while away", []script{
			{put("a", "1", 1), synced(1, false)},
			{put("a", "2", 3), synced(3, false), end(4)},
		}, "a=1 a=2"},
		{"absent while etcd is away", []script{
			{put("a", "1", 1), synced(1, false)},
			{synced(0, true), end(9)},
		}, "a=1"},
		{"absent, then etcd is back with it", []script{
			{put("a", "1", 1), put("b", "1", 2), synced(2, false)},
			{synced(0, true), put("b", "1", 2), synced(4, false), end(9)},
		}, "a=1 b=1 -a"},
		{"older than known while etcd is away", []script{
			{put("a", "2", 2), put("b", "1", 1), deleted("b", 3), synced(3, false)},
			{put("b", "1", 1), put("a", "1", 1), synced(1, true), end(9)},
		}, "a=2 b=1 -b"},
		{"deleted but never known", []script{
			{synced(1, false), deleted("a", 2), end(3)},
		}, ""},
		{"refused value stays away", []script{
			{put("a", "1", 1), put("a", "bad", 2), synced(2, false)},
			{put("a", "bad", 2), synced(2, false), put("a", "3", 3), end(4)},
		}, "a=1 !bad a=3"},
		{"replaced history", []script{
			{put("a", "1", 8), put("b", "1", 9), synced(9, false)},
			{put("a", "x", 2), synced(2, false)},
			{put("a", "x", 2), synced(2, false), end(3)},
		}, "a=1 b=1 a=x -b"},
		{"an event of a later version", []script{
			{{Revision: 1}, put("a", "1", 1), synced(1, false), end(2)},
		}, "a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &server{scripts: make(chan []*configv1.WatchResponse, len(tt.scripts))}
			for _, script := range tt.scripts {
				s.scripts <- script
			}
			conn := testkit.Serve(t, func(r grpc.ServiceRegistrar) { configv1.RegisterConfigServiceServer(r, s) })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var got []string
			err := live.Watch(ctx, slog.New(slog.DiscardHandler), conn, "ingest", func(name, value string, removed bool) error {
				switch {
				case name == "end":
					cancel()
				case removed:
					got = append(got, "-"+name)
				case value == "bad":
					got = append(got, "!"+value)
					return errors.New("not a duration")
				default:
					got = append(got, fmt.Sprintf("%s=%s", name, value))
				}
				return nil
			})
			if err != nil {
				t.Errorf("Watch() = %v, want nil", err)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("applied %q, want %q", strings.Join(got, " "), tt.want)
			}
			if !errors.Is(context.Cause(ctx), context.Canceled) {
				t.Errorf("ended by %v, want the script's end", context.Cause(ctx))
			}
		})
	}
}

// TestWatchEndsWhileAway has no config service at all.
func TestWatchEndsWhileAway(t *testing.T) {
	conn := testkit.Serve(t, func(grpc.ServiceRegistrar) {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- live.Watch(ctx, slog.New(slog.DiscardHandler), conn, "ingest", func(string, string, bool) error { return nil })
	}()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch() = %v, want nil", err)
	}
}

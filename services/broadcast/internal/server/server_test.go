package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves real queues in memory, which nothing empties.
func dial(t *testing.T) (broadcastv1.BroadcastServiceClient, *queue.Queues) {
	t.Helper()
	queues := queue.New(queue.Limits{Capacity: 4, MaxDevices: 250, MaxBytes: 1 << 20, Window: 1})
	unary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		st, _ := fault.Status(err)
		return resp, st.Err()
	}
	stream := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		st, _ := fault.Status(next(srv, ss))
		return st.Err()
	}
	return broadcastv1.NewBroadcastServiceClient(testkit.Serve(t,
		func(r grpc.ServiceRegistrar) { server.Register(r, queues, func() bool { return true }) },
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))), queues
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func batch(sequence uint64, statuses ...*broadcastv1.DeviceStatus) *broadcastv1.PublishStatusRequest {
	return &broadcastv1.PublishStatusRequest{Sequence: sequence, Statuses: statuses}
}

func many(n int) []*broadcastv1.DeviceStatus {
	all := make([]*broadcastv1.DeviceStatus, n)
	for i := range all {
		all[i] = &broadcastv1.DeviceStatus{DeviceId: fmt.Sprintf("m%03d", i)}
	}
	return all
}

func TestPublishStatus(t *testing.T) {
	c, queues := dial(t)
	stream, err := c.PublishStatus(within(t))
	if err != nil {
		t.Fatal(err)
	}
	one := &broadcastv1.DeviceStatus{
		DeviceId: "m1", Time: timestamppb.New(time.Unix(1, 0)), Connected: true, Sequence: 9,
		Values: []*telemetryv1.Value{{Name: "a", Number: 1.5}, {Name: "b", Text: "x"}},
	}
	for sequence, want := range []uint64{0, 0, 2, 5} { // dropped, after 2, 4, 6 and 9 statuses of a queue of 4
		statuses := []*broadcastv1.DeviceStatus{one, one}
		if sequence == 3 {
			statuses = append(statuses, one)
		}
		if err := stream.Send(batch(uint64(sequence+1), statuses...)); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || resp.GetSequence() != uint64(sequence+1) || resp.GetDropped() != want {
			t.Errorf("ack = %v, %v, want %v dropped", resp, err, want)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	item, err := queues.Take(t.Context())
	if want := `{"device":"m1","time":"1970-01-01T00:00:01Z","connected":true,"sequence":9,"values":{"a":1.5,"b":"x"}}`; err != nil || string(item.Payload) != want {
		t.Errorf("payload = %s, %v, want %s", item.Payload, err, want)
	}
	stats, err := c.GetStats(within(t), &broadcastv1.GetStatsRequest{})
	if err != nil || stats.GetAccepted() != 9 || stats.GetQueued() != 4 || stats.GetDropped()["queue_full"] != 5 || !stats.GetBrokerConnected() || stats.GetDevices() != 1 {
		t.Errorf("GetStats = %v, %v", stats, err)
	}
}

func TestPublishStatusRefuses(t *testing.T) {
	value := func(v ...*telemetryv1.Value) *broadcastv1.DeviceStatus {
		return &broadcastv1.DeviceStatus{DeviceId: "m", Values: v}
	}
	var crowd []*telemetryv1.Value
	for i := range 257 {
		crowd = append(crowd, &telemetryv1.Value{Name: fmt.Sprintf("v%03d", i)})
	}
	tests := []struct {
		name  string
		give  *broadcastv1.PublishStatusRequest
		field string
		text  string
	}{
		{"first sequence", batch(2, many(1)...), "sequence", "want 1, is 2"},
		{"empty", batch(1), "statuses", "1 to 256, are 0"},
		{"too many", batch(1, many(257)...), "statuses", "1 to 256, are 257"},
		{"no device", batch(1, &broadcastv1.DeviceStatus{}), "statuses[0].device_id", `is ""`},
		{"bad device", batch(1, many(1)[0], &broadcastv1.DeviceStatus{DeviceId: "a/#"}), "statuses[1].device_id", `is "a/#"`},
		{"long device", batch(1, &broadcastv1.DeviceStatus{DeviceId: strings.Repeat("x", 65)}), "statuses[0].device_id", "1 to 64"},
		{"time", batch(1, &broadcastv1.DeviceStatus{DeviceId: "m", Time: &timestamppb.Timestamp{Seconds: 1 << 60}}), "statuses[0].time", "9999"},
		{"values", batch(1, value(crowd...)), "statuses[0].values", "at most 256, are 257"},
		{"no name", batch(1, value(&telemetryv1.Value{})), "statuses[0].values[0].name", `is ""`},
		{"bad name", batch(1, value(&telemetryv1.Value{Name: `a"b`})), "statuses[0].values[0].name", "[a-z0-9_]"},
		{"name twice", batch(1, value(&telemetryv1.Value{Name: "a"}, &telemetryv1.Value{Name: "a"})), "statuses[0].values[1].name", `after "a"`},
		{"long text", batch(1, value(&telemetryv1.Value{Name: "a", Text: strings.Repeat("x", 257)})), "statuses[0].values[0].text", "at most 256 bytes, is 257"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, queues := dial(t)
			stream, err := c.PublishStatus(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(tt.give); err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			wantField(t, err, tt.field, tt.text)
			if got := queues.Stats().Accepted; got != 0 {
				t.Errorf("accepted = %v, want the batch refused whole", got)
			}
		})
	}
}

func wantField(t *testing.T, err error, field, text string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != codes.InvalidArgument {
		t.Errorf("error = %v, want InvalidArgument", err)
	}
	for _, d := range st.Details() {
		if br, ok := d.(*errdetails.BadRequest); ok {
			if v := br.GetFieldViolations()[0]; v.GetField() == field && strings.Contains(v.GetDescription(), text) {
				return
			}
		}
	}
	t.Errorf("details = %v, want %s: …%s…", st.Details(), field, text)
}

func TestListQueues(t *testing.T) {
	c, _ := dial(t)
	ctx := within(t)
	stream, err := c.PublishStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(batch(1, many(256)...)); err != nil { // six beyond max_devices
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetDropped() != 6 {
		t.Fatalf("ack = %v, %v, want 6 dropped", resp, err)
	}
	var ids []string
	token := ""
	for pages := 0; pages == 0 || token != ""; pages++ {
		resp, err := c.ListQueues(ctx, &broadcastv1.ListQueuesRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range resp.GetQueues() {
			ids = append(ids, q.GetDeviceId())
			if q.GetDepth() != 1 || q.GetCapacity() != 4 || q.GetAccepted() != 1 {
				t.Errorf("queue = %v, want one status of one in 4", q)
			}
		}
		token = resp.GetNextPageToken()
	}
	if len(ids) != 250 || ids[0] != "m000" || ids[249] != "m249" {
		t.Errorf("ids = %v, want m000 to m249", ids)
	}
	for _, tt := range []struct {
		give *broadcastv1.ListQueuesRequest
		want string
	}{
		{&broadcastv1.ListQueuesRequest{PageSize: -1}, "page_size"},
		{&broadcastv1.ListQueuesRequest{PageSize: 1001}, "page_size"},
		{&broadcastv1.ListQueuesRequest{PageToken: "?"}, "page_token"},
		{&broadcastv1.ListQueuesRequest{PageToken: "bTE"}, "page_token"},
	} {
		_, err := c.ListQueues(ctx, tt.give)
		wantField(t, err, tt.want, "must be")
	}
}

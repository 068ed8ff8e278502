package naive_test

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/fleet"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit/natstest"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/bench/naive"
)

// threshold is a policy that rejects what is over 85 °C.
type threshold struct {
	policyv1.UnimplementedPolicyServiceServer
}

func (threshold) Evaluate(_ context.Context, req *policyv1.EvaluateRequest) (*policyv1.EvaluateResponse, error) {
	v := &policyv1.Verdict{Action: policyv1.Action_ACTION_ACCEPT}
	for _, value := range req.GetReading().GetReading().GetValues() {
		if value.GetName() == "temperature" && value.GetNumber() > 85 {
			v.Action, v.Reason = policyv1.Action_ACTION_REJECT, "too hot"
		}
	}
	return &policyv1.EvaluateResponse{Verdict: v}, nil
}

// TestThePeerIsHonest holds the peer to what it is measured for: every reading
// judged, and those that are acknowledged in JetStream.
func TestThePeerIsHonest(t *testing.T) {
	n := natstest.Start(t)
	socket := filepath.Join(testkit.SocketDir(t), "policy.sock")
	policyLn, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	policy := grpc.NewServer()
	policyv1.RegisterPolicyServiceServer(policy, threshold{})
	served := make(chan error, 1)
	go func() { served <- policy.Serve(policyLn) }()

	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := door.Addr().String()
	_ = door.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var logs bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- naive.Run(ctx, []string{"-listen", address, "-policy", socket, "-nats", n.ClientURL(), "-mqtt", natstest.MQTT(t, n)}, &logs)
	}()

	o := fleet.DefaultOptions()
	o.URL, o.Meters, o.Rate, o.HotEvery, o.Duration = "ws://"+address, 4, 50, 5, 2*time.Second
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(n.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), naive.Stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	policy.Stop()
	if err := <-served; err != nil {
		t.Errorf("serve policy: %v", err)
	}
	if r.Acked == 0 || r.Lost != 0 || r.Rejected != r.Hot || r.Rejected == 0 || info.State.Msgs != r.Acked {
		t.Errorf("report %v with %d hot, and %d messages in JetStream; logs %s", r, r.Hot, info.State.Msgs, logs.Bytes())
	}
}

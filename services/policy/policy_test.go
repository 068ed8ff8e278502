package policy_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/testkit"

	"github.com/xinghuo-edge/xinghuo/services/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hotReading() *policyv1.DeviceReading {
	return &policyv1.DeviceReading{DeviceId: "meter-001", Source: "ws", Reading: &telemetryv1.Reading{
		Sequence: 1, Values: []*telemetryv1.Value{{Name: "temperature", Number: 90}},
	}}
}

func TestRun(t *testing.T) {
	runDir, stateDir := testkit.SocketDir(t), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- policy.Run(running, []string{"-run_dir", runDir, "-state_dir", stateDir}, io.Discard) }()

	conn, err := mesh.Dial(runDir, "policy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c, admin := policyv1.NewPolicyServiceClient(conn), adminv1.NewAdminServiceClient(conn)

	resp, err := c.Evaluate(ctx, &policyv1.EvaluateRequest{Reading: hotReading()})
	if err != nil || resp.GetVerdict().GetAction() != policyv1.Action_ACTION_REJECT {
		t.Errorf("Evaluate() on a fresh node = %v, %v, want ACTION_REJECT", resp, err)
	}

	degraded := func() string {
		info, err := admin.GetInfo(ctx, &adminv1.GetInfoRequest{})
		if err != nil {
			t.Fatalf("GetInfo() = %v", err)
		}
		for _, d := range info.GetDegradations() {
			return d.GetReason()
		}
		return ""
	}
	bad := filepath.Join(stateDir, "policy", "modules", "bad.wasm")
	if err := os.WriteFile(bad, []byte("bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, "the bad module to be refused", func() bool { return strings.Contains(degraded(), `module "bad"`) })
	if resp, err := c.Evaluate(ctx, &policyv1.EvaluateRequest{Reading: hotReading()}); err != nil || resp.GetVerdict().GetModule() != "threshold" || resp.GetGeneration() != 1 {
		t.Errorf("Evaluate() beside a bad module = %v, %v, want generation 1's rejection", resp, err)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, "the folder to be good again", func() bool { return degraded() == "" })

	stats, err := admin.GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil || !strings.Contains(stats.String(), "xinghuo_policy_rejections_total") {
		t.Errorf("GetStats() = %v, %v, want xinghuo_policy_rejections_total", stats, err)
	}

	stream, err := c.EvaluateStream(mesh.LongLived(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&policyv1.EvaluateStreamRequest{BatchId: 7, Readings: []*policyv1.DeviceReading{hotReading()}}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetBatchId() != 7 || len(resp.GetVerdicts()) != 1 {
		t.Errorf("EvaluateStream answered %v, %v, want batch 7", resp, err)
	}
	stop() // with the stream open: the drain must end it
	if err := <-done; err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}

func TestRunRefuses(t *testing.T) {
	var bad *settings.Error
	err := policy.Run(t.Context(), []string{"-run_dir", testkit.SocketDir(t), "-state_dir", t.TempDir(), "-modules_dir", "x", "-fail_mode", "ajar", "-fuel", "1"}, io.Discard)
	if !errors.As(err, &bad) || len(bad.Faults) != 3 {
		t.Errorf("Run(three bad settings) = %v, want three faults", err)
	}
}

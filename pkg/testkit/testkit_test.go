package testkit_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xinghuo-edge/xinghuo/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSocketDirIsShortAndGoesWithTheTest(t *testing.T) {
	var dir string
	t.Run("a test with a name that is longer than the path of a unix socket may be, which is 108 bytes", func(t *testing.T) {
		dir = testkit.SocketDir(t)
		ln, err := net.Listen("unix", filepath.Join(dir, "broadcast.sock.4194304"))
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(%s) after the test = %v, want it gone", dir, err)
	}
}

// verdict is a testing.TB that notes Fatalf instead of failing.
type verdict struct {
	testing.TB
	ctx    context.Context //nolint:containedctx // stands for TB's own
	failed bool
}

func (v *verdict) Helper()                  {}
func (v *verdict) Context() context.Context { return v.ctx }
func (v *verdict) Fatalf(string, ...any) {
	v.failed = true
	runtime.Goexit()
}

func TestEventually(t *testing.T) {
	tests := []struct {
		name   string
		after  int // looks that find nothing
		failed bool
	}{{"at once", 0, false}, {"later", 3, false}, {"never", 1 << 30, true}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &verdict{TB: t, ctx: t.Context()}
			looks := 0
			done := make(chan struct{})
			go func() { // Goexit ends it, as it ends a test
				defer close(done)
				testkit.Eventually(v, 100*time.Millisecond, "the condition", func() bool { looks++; return looks > tt.after })
			}()
			<-done
			if v.failed != tt.failed {
				t.Errorf("failed = %v after %d looks, want %v", v.failed, looks, tt.failed)
			}
		})
	}
}

func TestServe(t *testing.T) {
	conn := testkit.Serve(t, func(s grpc.ServiceRegistrar) { healthv1.RegisterHealthServer(s, health.NewServer()) })
	if resp, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("Check = %v, %v, want SERVING", resp, err)
	}
}

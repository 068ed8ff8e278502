// Package probe asks services about themselves over their sockets.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
)

// Probe holds a connection to each service. Every call of it fails at once,
// with fault.ErrUnavailable, when nobody listens on the service's socket.
type Probe struct {
	runDir string

	mu    sync.Mutex // guards conns
	conns map[string]*grpc.ClientConn
}

// New returns a probe of the services whose sockets are in runDir.
func New(runDir string) *Probe {
	return &Probe{runDir: runDir, conns: make(map[string]*grpc.ClientConn)}
}

// Close closes the connections.
func (p *Probe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, c := range p.conns {
		errs = append(errs, c.Close())
	}
	p.conns = nil
	return errors.Join(errs...)
}

func (p *Probe) conn(ctx context.Context, service string) (*grpc.ClientConn, error) {
	var d net.Dialer
	sock, err := d.DialContext(ctx, "unix", filepath.Join(p.runDir, service+".sock"))
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w: %w", service, fault.ErrUnavailable, err)
	}
	_ = sock.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return nil, fmt.Errorf("reach %s: %w: the probe is closed", service, fault.ErrUnavailable)
	}
	c := p.conns[service]
	if c == nil {
		if c, err = mesh.Dial(p.runDir, service); err != nil {
			return nil, err
		}
		p.conns[service] = c
	}
	// Somebody listens; do not wait out the pause after earlier failures.
	c.ResetConnectBackoff()
	return c, nil
}

// PID implements supervise.Prober.
func (p *Probe) PID(ctx context.Context, service string) (int, error) {
	c, err := p.conn(ctx, service)
	if err != nil {
		return 0, err
	}
	info, err := adminv1.NewAdminServiceClient(c).GetInfo(ctx, &adminv1.GetInfoRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask %s who it is: %w", service, err)
	}
	if info.GetService() != service {
		return 0, fmt.Errorf("ask %s who it is: it is %q", service, info.GetService())
	}
	return int(info.GetPid()), nil
}

// Serving implements supervise.Prober (grpc.health.v1).
func (p *Probe) Serving(ctx context.Context, service string) error {
	c, err := p.conn(ctx, service)
	if err != nil {
		return err
	}
	resp, err := healthv1.NewHealthClient(c).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		return fmt.Errorf("check health of %s: %w", service, err)
	}
	if s := resp.GetStatus(); s != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("check health of %s: %w: it is %v", service, fault.ErrUnavailable, s)
	}
	return nil
}

// Stats returns a service's figures.
func (p *Probe) Stats(ctx context.Context, service string) ([]*adminv1.Metric, error) {
	c, err := p.conn(ctx, service)
	if err != nil {
		return nil, err
	}
	resp, err := adminv1.NewAdminServiceClient(c).GetStats(ctx, &adminv1.GetStatsRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s for its figures: %w", service, err)
	}
	return resp.GetMetrics(), nil
}

// Profile captures a profile of a service.
func (p *Probe) Profile(ctx context.Context, service string, req *adminv1.CaptureProfileRequest) ([]byte, error) {
	c, err := p.conn(ctx, service)
	if err != nil {
		return nil, err
	}
	resp, err := adminv1.NewAdminServiceClient(c).CaptureProfile(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("capture profile of %s: %w", service, err)
	}
	return resp.GetProfile(), nil
}

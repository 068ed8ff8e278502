// Package node is a service's life: its socket, its gRPC server with health,
// reflection and admin RPCs, and its orderly end.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/peercred"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/pkg/telemetry"
)

const (
	// maxMessage bounds a message in either direction: a batch of 256 readings
	// of 64 values stays below it.
	maxMessage = 4 << 20
	// maxHeader bounds a call's metadata; grpc's own bound of 16 MiB lets a few
	// calls take the box's memory.
	maxHeader = 16 << 10
	// maxStreams bounds the open calls of one connection.
	maxStreams = 256
	// stopPatience is how long a call that was cut may take to notice. One that
	// does not notice ends with the process.
	stopPatience = time.Second
	// minPing is the shortest keepalive interval that a client may use;
	// pkg/mesh pings every 10 s.
	minPing = 5 * time.Second
)

// Server is one service of the node.
type Server struct {
	// Log is the service's logger.
	Log *slog.Logger

	name   string
	cfg    settings.Node
	grpc   *grpc.Server
	health *health.Server
	admin  *admin
	sock   *socket
	drains *drainer
}

// New takes the service's socket, so that a second process of the same service
// ends here, and prepares its server. Logs go to w as JSON lines.
func New(name string, cfg settings.Node, w io.Writer) (*Server, error) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, fmt.Errorf("log_level: %w", err)
	}
	log := telemetry.NewLogger(w, level, slog.String("service", name), slog.String("node", cfg.Node))
	access, err := peercred.LoadAccess(cfg.AccessFile)
	if err != nil {
		return nil, &settings.Error{Service: name, Faults: []error{err}}
	}
	sock, err := listen(cfg.RunDir, name)
	if err != nil {
		return nil, err
	}
	guard := peercred.NewGuard(access, log)
	s := &Server{Log: log, name: name, cfg: cfg, sock: sock, health: health.NewServer(), drains: newDrainer()}
	s.grpc = grpc.NewServer(
		grpc.Creds(peercred.Credentials()),
		grpc.ChainUnaryInterceptor(unaryStatus(log), guard.Unary),
		grpc.ChainStreamInterceptor(streamStatus(log), guard.Stream, s.drains.Stream),
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(telemetry.NewTracerProvider()),
			otelgrpc.WithPropagators(telemetry.Propagator()))),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeader),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(5*time.Second),
	)
	s.admin = newAdmin(name, cfg, level, guard)
	adminv1.RegisterAdminServiceServer(s.grpc, s.admin)
	healthv1.RegisterHealthServer(s.grpc, healthService{s.health})
	reflection.Register(s.grpc) // v1 and v1alpha
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// StateDir returns the service's own folder, made if it was not there.
func (s *Server) StateDir() (string, error) {
	dir := s.cfg.StateDir + "/" + s.name
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return "", fmt.Errorf("make state folder: %w", err)
	}
	return dir, nil
}

// Collect adds a source of GetStats. It is called for each request and may be
// called by several at once.
func (s *Server) Collect(source func(*Stats)) { s.admin.collect(source) }

// Degrade reports that a part does not work and why; an empty reason reports
// that it works again.
func (s *Server) Degrade(component, reason string) { s.admin.degrade(component, reason) }

// SetFact sets a fact that GetInfo tells.
func (s *Server) SetFact(name, value string) { s.admin.setFact(name, value) }

// Close gives the socket up. Run does so at its end; Close is for the ways out
// before it, and harmless after.
func (s *Server) Close() {
	_ = s.sock.Close()
	s.sock.release()
}

// Run serves, and runs loops beside, until ctx ends, Drain is called or one of
// them fails. Then the service goes to NOT_SERVING, open calls get
// grace_timeout, the loops' context ends, and Run returns the first failure.
//
// A loop's context outlives the drain of the calls: what they still send finds
// the loops running.
func (s *Server) Run(ctx context.Context, loops ...func(context.Context) error) error {
	defer s.Close()
	stop, cancelStop := context.WithCancel(ctx)
	defer cancelStop()
	s.admin.setDrain(cancelStop)

	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	s.health.SetServingStatus(s.name, healthv1.HealthCheckResponse_SERVING)

	loopCtx, cancelLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelLoops()
	g, loopCtx := errgroup.WithContext(loopCtx)
	for _, loop := range loops {
		g.Go(func() error { return loop(loopCtx) })
	}
	g.Go(func() error {
		// It is stopped before it has begun when ctx ends at once.
		if err := s.grpc.Serve(s.sock); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		select {
		case <-stop.Done():
		case <-loopCtx.Done(): // a loop failed
		}
		s.drain(ctx)
		cancelLoops()
		return nil
	})
	s.Log.InfoContext(ctx, "serving", "socket", s.sock.path)
	err := g.Wait()
	s.Log.InfoContext(ctx, "stopped", "err", err)
	return err
}

// drain ends the calls in order: no new ones first, then what is open gets its
// grace, then it is cut.
func (s *Server) drain(ctx context.Context) {
	s.admin.setState(adminv1.State_STATE_DRAINING)
	s.health.Shutdown()
	s.drains.begin()
	done := make(chan struct{})
	go func() { // ends with the last call's handler
		s.grpc.GracefulStop()
		close(done)
	}()
	grace := time.NewTimer(s.cfg.GraceTimeout)
	defer grace.Stop()
	select {
	case <-done:
		return
	case <-grace.C:
	}
	s.grpc.Stop()
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		s.Log.ErrorContext(ctx, "calls left behind", "grace", s.cfg.GraceTimeout)
	}
}

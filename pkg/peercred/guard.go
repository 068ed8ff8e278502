package peercred

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Guard lets calls through by their peer's uid and writes an audit line for
// each that it refuses.
type Guard struct {
	access  *Access
	log     *slog.Logger
	refused atomic.Uint64
}

// NewGuard returns a guard over access that audits to log.
func NewGuard(access *Access, log *slog.Logger) *Guard {
	return &Guard{access: access, log: log}
}

// Refused returns how many calls were refused.
func (g *Guard) Refused() uint64 { return g.refused.Load() }

func (g *Guard) check(ctx context.Context, method string) error {
	p, ok := FromContext(ctx)
	if ok {
		if _, allowed := g.access.Allows(p.UID, method); allowed {
			return nil
		}
	}
	g.refused.Add(1)
	g.log.WarnContext(ctx, "call refused", "audit", true, "method", method, "uid", p.UID, "gid", p.GID, "pid", p.PID, "known", ok)
	return fmt.Errorf("%w: uid %d has no role for %s; see access.yaml", fault.ErrDenied, p.UID, method)
}

// Unary is the interceptor for unary calls.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Stream is the interceptor for streams.
func (g *Guard) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := g.check(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

package peercred

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Guard lets calls through by their peer's uid and writes down those that it
// refuses: a line for the first of a caller and method, then at most one a
// second with how many there were since.
type Guard struct {
	access  *Access
	audit   *audit
	refused atomic.Uint64
}

// NewGuard returns a guard over access that audits to log.
func NewGuard(access *Access, log *slog.Logger) *Guard {
	return &Guard{access: access, audit: newAudit(log)}
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
	g.audit.refused(ctx, p, ok, method)
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

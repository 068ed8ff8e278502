package node

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// unaryStatus turns error kinds into codes, and logs the causes that stay
// inside.
func unaryStatus(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, outward(ctx, log, info.FullMethod, err)
		}
		return resp, nil
	}
}

func streamStatus(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return outward(ss.Context(), log, info.FullMethod, next(srv, ss))
	}
}

func outward(ctx context.Context, log *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	st, known := fault.Status(err)
	if !known {
		log.ErrorContext(ctx, "call failed", "method", method, "err", err)
	}
	return st.Err()
}

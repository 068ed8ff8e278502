package mesh

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
)

// ErrNoDeadline refuses a call without a deadline: a peer that hangs would
// hang its caller with it.
var ErrNoDeadline = errors.New("call without a deadline")

type longLived struct{}

// LongLived marks the context of a stream that is meant to stay open; it needs
// no deadline. Keepalive ends it when the peer is gone.
func LongLived(ctx context.Context) context.Context {
	return context.WithValue(ctx, longLived{}, true)
}

func unaryDeadline(ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		return fmt.Errorf("%w: %s", ErrNoDeadline, method)
	}
	return next(ctx, method, req, resp, cc, opts...)
}

func streamDeadline(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if _, ok := ctx.Deadline(); !ok && ctx.Value(longLived{}) == nil {
		return nil, fmt.Errorf("%w: %s; a stream that is meant to stay open says so with mesh.LongLived", ErrNoDeadline, method)
	}
	return next(ctx, desc, cc, method, opts...)
}

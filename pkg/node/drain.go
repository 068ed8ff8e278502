package node

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// drainer ends streams that would stay open for ever. grpc's GracefulStop waits
// for them, and a client is not told of it on a stream that it has open.
//
// A stream whose handler waits for the next message ends at once; one whose
// handler works ends when it asks for the next. So no message that was taken in
// is dropped half done.
type drainer struct {
	begun chan struct{}
	once  sync.Once
}

func newDrainer() *drainer { return &drainer{begun: make(chan struct{})} }

func (d *drainer) begin() { d.once.Do(func() { close(d.begun) }) }

func errDraining(method string) error {
	return fmt.Errorf("%s: %w: the service is stopping; connect again", method, fault.ErrUnavailable)
}

// Stream is the interceptor. The handler runs beside it, because only the
// interceptor's return ends a receive that is waiting.
func (d *drainer) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	ds := &drainedStream{ServerStream: ss, ctx: ctx}
	done := make(chan error, 1)
	go func() { done <- next(srv, ds) }() // ends with the stream's context, which ends when this returns
	select {
	case err := <-done:
		return err
	case <-d.begun:
	}
	cancel() // wakes handlers of server streams, which wait for events and this context
	if ds.stop() {
		return errDraining(info.FullMethod)
	}
	err := <-done
	if err == nil || ctx.Err() != nil {
		return errDraining(info.FullMethod)
	}
	return err
}

type drainedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a ServerStream hands out its context

	mu        sync.Mutex // guards what follows
	receiving bool
	stopped   bool
}

func (s *drainedStream) Context() context.Context { return s.ctx }

func (s *drainedStream) RecvMsg(m any) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return context.Canceled
	}
	s.receiving = true
	s.mu.Unlock()
	err := s.ServerStream.RecvMsg(m)
	s.mu.Lock()
	s.receiving = false
	stopped := s.stopped
	s.mu.Unlock()
	if err == nil && stopped {
		return context.Canceled // it came as the interceptor left; its sender sends it again
	}
	return err
}

// stop lets no further message in, and reports whether the handler is waiting
// for one.
func (s *drainedStream) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.receiving
}

package node

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// drainer ends streams that would stay open for ever. grpc's GracefulStop waits
// for them, and a client is not told of it on a stream that it has open.
//
// A handler that takes messages is given no further one: it finishes those that
// it has taken in, answers them and returns. Its context lasts until then. A
// handler that only sends sees its context end.
type drainer struct {
	begun context.Context //nolint:containedctx // a context, because context.AfterFunc wants one
	begin context.CancelFunc
}

func newDrainer() *drainer {
	d := new(drainer)
	d.begun, d.begin = context.WithCancel(context.Background())
	return d
}

func errDraining(method string) error {
	return fmt.Errorf("%s: %w: the service is stopping; connect again", method, fault.ErrUnavailable)
}

// Stream is the interceptor.
func (d *drainer) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel() // ends the pump, too
	ds := &drainedStream{ServerStream: ss, ctx: ctx, begun: d.begun.Done()}
	if info.IsClientStream {
		ds.want, ds.got = make(chan any), make(chan error, 1)
		go ds.pump() // its receive ends with the stream, when this returns
	} else {
		stop := context.AfterFunc(d.begun, func() {
			ds.cut.Store(true)
			cancel()
		})
		defer stop()
	}
	err := next(srv, ds)
	if ds.cut.Load() {
		return errDraining(info.FullMethod)
	}
	return err
}

// drainedStream receives through a pump, because a receive that has begun ends
// only with the stream.
type drainedStream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // a ServerStream hands out its context
	begun <-chan struct{}
	want  chan any   // what to receive into; nil for streams of one request
	got   chan error // how that went; holds one, so that the pump never waits
	cut   atomic.Bool
}

func (s *drainedStream) Context() context.Context { return s.ctx }

func (s *drainedStream) pump() {
	for {
		select {
		case m := <-s.want:
			err := s.ServerStream.RecvMsg(m)
			s.got <- err
			if err != nil {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// RecvMsg returns context.Canceled once the drain has begun. A message that is
// still on its way then is not taken in: its sender sees no answer and sends it
// again.
func (s *drainedStream) RecvMsg(m any) error {
	if s.want == nil {
		return s.ServerStream.RecvMsg(m)
	}
	select {
	case <-s.begun:
		return s.cutOff()
	default:
	}
	select {
	case s.want <- m:
	case <-s.begun:
		return s.cutOff()
	case <-s.ctx.Done(): // the pump has ended with an error that was returned before
		return s.ctx.Err()
	}
	select {
	case err := <-s.got:
		return err
	case <-s.begun:
	}
	select {
	case err := <-s.got: // both were ready: what has come in is taken in
		return err
	default:
		return s.cutOff()
	}
}

func (s *drainedStream) cutOff() error {
	s.cut.Store(true)
	return context.Canceled
}

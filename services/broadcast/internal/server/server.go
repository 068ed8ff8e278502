// Package server translates xinghuo.broadcast.v1 to the queues.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"

	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/queue"
	"github.com/xinghuo-edge/xinghuo/services/broadcast/internal/statusjson"
)

// Queues is what the server needs of the queues.
type Queues interface {
	Put(device string, payload []byte, dropped *atomic.Uint64)
	Stats() queue.Stats
	List(after string, size int) (page []queue.Device, more bool)
}

// Server implements BroadcastService.
type Server struct {
	broadcastv1.UnimplementedBroadcastServiceServer

	queues    Queues
	connected func() bool
	since     time.Time
}

// Register puts the service on r. connected reports whether the broker is
// there.
func Register(r grpc.ServiceRegistrar, queues Queues, connected func() bool) {
	broadcastv1.RegisterBroadcastServiceServer(r, &Server{queues: queues, connected: connected, since: time.Now()})
}

// PublishStatus implements BroadcastServiceServer. A batch is acknowledged when
// its statuses are queued, dropped, or waiting at most the enqueue limit for
// one of the two; the broker has no part in it.
func (s *Server) PublishStatus(stream grpc.BidiStreamingServer[broadcastv1.PublishStatusRequest, broadcastv1.PublishStatusResponse]) error {
	// Statuses that wait may be dropped after the stream's end.
	dropped := new(atomic.Uint64)
	for sequence := uint64(1); ; sequence++ {
		req, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("receive statuses: %w", err)
		}
		if err := check(req, sequence); err != nil {
			return err
		}
		now := time.Now()
		for _, m := range req.GetStatuses() {
			status := statusjson.Status{
				Device: m.GetDeviceId(), Time: now, Connected: m.GetConnected(), Sequence: m.GetSequence(), Values: m.GetValues(),
			}
			if m.GetTime() != nil {
				status.Time = m.GetTime().AsTime()
			}
			s.queues.Put(status.Device, statusjson.Append(make([]byte, 0, statusjson.Size(&status)), &status), dropped)
		}
		if err := stream.Send(&broadcastv1.PublishStatusResponse{Sequence: sequence, Dropped: dropped.Load()}); err != nil {
			return fmt.Errorf("acknowledge batch %d: %w", sequence, err)
		}
	}
}

// ListQueues implements BroadcastServiceServer.
func (s *Server) ListQueues(_ context.Context, req *broadcastv1.ListQueuesRequest) (*broadcastv1.ListQueuesResponse, error) {
	size, after, err := page(req)
	if err != nil {
		return nil, err
	}
	devices, more := s.queues.List(after, size)
	resp := &broadcastv1.ListQueuesResponse{Queues: make([]*broadcastv1.Queue, len(devices))}
	for i, d := range devices {
		resp.Queues[i] = &broadcastv1.Queue{
			DeviceId: d.ID, Depth: uint32(d.Queued), Capacity: uint32(d.Capacity),
			Accepted: d.Accepted, Delivered: d.Delivered, Dropped: d.Dropped.ByReason(false),
		}
	}
	if more {
		resp.NextPageToken = pageToken(devices[len(devices)-1].ID)
	}
	return resp, nil
}

// GetStats implements BroadcastServiceServer.
func (s *Server) GetStats(context.Context, *broadcastv1.GetStatsRequest) (*broadcastv1.GetStatsResponse, error) {
	stats := s.queues.Stats()
	return &broadcastv1.GetStatsResponse{
		Accepted: stats.Accepted, Delivered: stats.Delivered, Queued: stats.Queued, Dropped: stats.Dropped.ByReason(true),
		Devices: uint32(stats.Devices), BrokerConnected: s.connected(), Since: timestamppb.New(s.since),
	}, nil
}

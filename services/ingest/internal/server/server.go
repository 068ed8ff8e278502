// Package server answers ingest's RPCs.
package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ledger"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/watch"
)

const (
	defaultPage     = 100
	maxPage         = 1000
	maxPayload      = 32 << 10
	defaultDeadline = time.Second
	maxDeadline     = time.Minute
)

// Server answers about devices and reaches them.
type Server struct {
	ingestv1.UnimplementedIngestServiceServer

	Devices *device.Registry
	Ledger  *ledger.Ledger
	Watch   *watch.Hub
	// Statuses returns how statuses to broadcast fared.
	Statuses func() map[string]uint64
}

// Register registers the server.
func (s *Server) Register(r grpc.ServiceRegistrar) { ingestv1.RegisterIngestServiceServer(r, s) }

// ListDevices implements IngestServiceServer. A page token is the last id of the
// page before.
func (s *Server) ListDevices(_ context.Context, req *ingestv1.ListDevicesRequest) (*ingestv1.ListDevicesResponse, error) {
	size := int(req.GetPageSize())
	if size < 0 || size > maxPage {
		return nil, fault.Invalid("page_size", "must be 0 to %d, is %d", maxPage, size)
	}
	if size == 0 {
		size = defaultPage
	}
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || (len(after) > 0 && !bus.IsToken(string(after))) {
		return nil, fault.Invalid("page_token", "must be the next_page_token of this call, is %.80q", req.GetPageToken())
	}
	page := s.Devices.Page(string(after), size+1)
	resp := &ingestv1.ListDevicesResponse{}
	if len(page) > size {
		page = page[:size]
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(page[size-1].ID))
	}
	for _, d := range page {
		resp.Devices = append(resp.Devices, deviceOf(d.Info(false)))
	}
	return resp, nil
}

// GetDevice implements IngestServiceServer.
func (s *Server) GetDevice(_ context.Context, req *ingestv1.GetDeviceRequest) (*ingestv1.GetDeviceResponse, error) {
	d, err := s.find(req.GetDeviceId())
	if err != nil {
		return nil, err
	}
	return &ingestv1.GetDeviceResponse{Device: deviceOf(d.Info(true))}, nil
}

func (s *Server) find(id string) (*device.Device, error) {
	if !bus.IsToken(id) {
		return nil, fault.Invalid("device_id", "must be 1 to 64 of [A-Za-z0-9_-], is %.80q", id)
	}
	d := s.Devices.Get(id)
	if d == nil {
		return nil, fmt.Errorf("%w: device %s was never seen", fault.ErrNotFound, id)
	}
	return d, nil
}

// SendCommand implements IngestServiceServer.
func (s *Server) SendCommand(ctx context.Context, req *ingestv1.SendCommandRequest) (*ingestv1.SendCommandResponse, error) {
	if n := len(req.GetPayload()); n > maxPayload {
		return nil, fault.Invalid("payload", "must be at most %d bytes, is %d", maxPayload, n)
	}
	deadline := time.Duration(req.GetDeadlineMs()) * time.Millisecond
	if deadline > maxDeadline {
		return nil, fault.Invalid("deadline_ms", "must be 0 to %d, is %d", maxDeadline.Milliseconds(), req.GetDeadlineMs())
	}
	if deadline == 0 {
		deadline = defaultDeadline
	}
	d, err := s.find(req.GetDeviceId())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	start := time.Now()
	result, err := d.Send(ctx, req.GetPayload())
	if err != nil {
		return nil, err
	}
	return &ingestv1.SendCommandResponse{Ok: result.OK, Payload: result.Payload, RoundTripUs: uint64(time.Since(start).Microseconds())}, nil
}

// WatchReadings implements IngestServiceServer.
func (s *Server) WatchReadings(req *ingestv1.WatchReadingsRequest, stream grpc.ServerStreamingServer[ingestv1.WatchReadingsResponse]) error {
	if id := req.GetDeviceId(); id != "" && !bus.IsToken(id) {
		return fault.Invalid("device_id", "must be 1 to 64 of [A-Za-z0-9_-], is %.80q", id)
	}
	w, err := s.Watch.Watch(req.GetDeviceId())
	if err != nil {
		return err
	}
	defer s.Watch.Close(w)
	for {
		select {
		case it, ok := <-w.C:
			if !ok {
				return fmt.Errorf("%w: the watcher fell behind by more than %d readings", fault.ErrExhausted, cap(w.C))
			}
			if err := stream.Send(&ingestv1.WatchReadingsResponse{
				DeviceId: it.Device.ID, Reading: it.Reading, Evaluation: it.Evaluation, Reason: it.Reason,
			}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// GetStats implements IngestServiceServer.
func (s *Server) GetStats(context.Context, *ingestv1.GetStatsRequest) (*ingestv1.GetStatsResponse, error) {
	f := s.Ledger.Figures()
	q := s.Ledger.Latency.Quantiles(time.Now(), 0.5, 0.99)
	return &ingestv1.GetStatsResponse{
		Received: f.Received, Delivered: f.Delivered, Rejected: f.Rejected, InFlight: f.InFlight,
		Dropped: f.Dropped, Duplicates: f.Duplicates, Refused: f.Refused, Unevaluated: f.Unevaluated,
		ConnectedDevices: uint32(s.Devices.Connected()),
		AckP50Us:         uint64(q[0].Microseconds()), AckP99Us: uint64(q[1].Microseconds()),
		Since: timestamppb.New(f.Since), Statuses: s.Statuses(),
	}, nil
}

func deviceOf(i device.Info) *ingestv1.Device {
	return &ingestv1.Device{
		Id: i.ID, Source: i.Source, Connected: i.Connected, ConnectTime: timeOf(i.ConnectTime), LastSeenTime: timeOf(i.LastSeen),
		Model: i.Model, Firmware: i.Firmware, Session: i.Session, AckedSequence: i.Acked,
		Values: i.Values, ValuesTime: timeOf(i.ValuesTime),
		Received: i.Received, Delivered: i.Delivered, Rejected: i.Rejected, InFlight: i.InFlight, Dropped: i.Dropped, Connects: i.Connects,
	}
}

func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

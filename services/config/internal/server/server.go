// Package server is the config service's gRPC API: it only translates.
package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/config/v1"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
	"github.com/xinghuo-edge/xinghuo/services/config/internal/store"
)

// Store is what the server translates for.
type Store interface {
	Get(setting.Key) (setting.Entry, store.Freshness, error)
	Put(ctx context.Context, k setting.Key, value string, expected *int64) (int64, error)
	Delete(ctx context.Context, k setting.Key, expected *int64) (int64, error)
	Watch(service string, after int64) (*store.Watcher, error)
}

// Server implements ConfigService.
type Server struct {
	configv1.UnimplementedConfigServiceServer
	store Store
}

// New returns a server of a store.
func New(s Store) *Server { return &Server{store: s} }

// Get implements ConfigServiceServer.
func (s *Server) Get(_ context.Context, req *configv1.GetRequest) (*configv1.GetResponse, error) {
	e, f, err := s.store.Get(setting.Key{Service: req.GetService(), Name: req.GetName()})
	if err != nil {
		return nil, err
	}
	return &configv1.GetResponse{Entry: entry(e), Freshness: freshness(f)}, nil
}

// Put implements ConfigServiceServer.
func (s *Server) Put(ctx context.Context, req *configv1.PutRequest) (*configv1.PutResponse, error) {
	revision, err := s.store.Put(ctx, setting.Key{Service: req.GetService(), Name: req.GetName()}, req.GetValue(), req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	return &configv1.PutResponse{Revision: revision}, nil
}

// Delete implements ConfigServiceServer.
func (s *Server) Delete(ctx context.Context, req *configv1.DeleteRequest) (*configv1.DeleteResponse, error) {
	revision, err := s.store.Delete(ctx, setting.Key{Service: req.GetService(), Name: req.GetName()}, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	return &configv1.DeleteResponse{Revision: revision}, nil
}

// Watch implements ConfigServiceServer.
func (s *Server) Watch(req *configv1.WatchRequest, stream grpc.ServerStreamingServer[configv1.WatchResponse]) error {
	w, err := s.store.Watch(req.GetService(), req.GetAfterRevision())
	if err != nil {
		return err
	}
	defer w.Close()
	done := make(chan error, 1)
	// It runs beside, because a send to a reader that does not read waits for
	// ever; it ends with the stream's context, which ends when this returns.
	go func() { done <- send(w, stream) }()
	select {
	case err := <-done:
		return err
	case <-w.Ended():
		_, err := w.Next(stream.Context())
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func send(w *store.Watcher, stream grpc.ServerStreamingServer[configv1.WatchResponse]) error {
	for {
		e, err := w.Next(stream.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(response(e)); err != nil {
			return err
		}
	}
}

func response(e store.Event) *configv1.WatchResponse {
	resp := &configv1.WatchResponse{Revision: e.Revision}
	switch e.Kind {
	case store.Put:
		resp.Event = &configv1.WatchResponse_Put{Put: entry(e.Entry)}
	case store.Deleted:
		resp.Event = &configv1.WatchResponse_Deleted{Deleted: entry(e.Entry)}
	case store.Synced:
		resp.Event = &configv1.WatchResponse_Synced{Synced: &configv1.Synced{Freshness: freshness(e.Freshness), Entries: uint32(e.Entries)}}
	}
	return resp
}

func entry(e setting.Entry) *configv1.Entry {
	return &configv1.Entry{Service: e.Service, Name: e.Name, Value: e.Value, Revision: e.Revision, Time: timestamppb.New(e.Time)}
}

func freshness(f store.Freshness) *configv1.Freshness {
	out := &configv1.Freshness{Stale: f.Stale}
	if !f.Synced.IsZero() {
		out.SyncedTime = timestamppb.New(f.Synced)
	}
	return out
}

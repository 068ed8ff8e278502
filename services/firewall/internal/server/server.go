// Package server translates xinghuo.firewall.v1 to the guard.
package server

import (
	"context"

	"google.golang.org/grpc"

	firewallv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/firewall/v1"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/guard"
)

// Server implements FirewallService.
type Server struct {
	firewallv1.UnimplementedFirewallServiceServer

	guard *guard.Guard
}

// Register puts the service on r and returns it, for its Stats.
func Register(r grpc.ServiceRegistrar, g *guard.Guard) *Server {
	s := &Server{guard: g}
	firewallv1.RegisterFirewallServiceServer(r, s)
	return s
}

// Attach implements FirewallServiceServer.
func (s *Server) Attach(ctx context.Context, req *firewallv1.AttachRequest) (*firewallv1.AttachResponse, error) {
	mode, err := s.guard.Attach(ctx, req.GetInterface())
	if err != nil {
		return nil, err
	}
	return &firewallv1.AttachResponse{Mode: mode}, nil
}

// Detach implements FirewallServiceServer.
func (s *Server) Detach(ctx context.Context, _ *firewallv1.DetachRequest) (*firewallv1.DetachResponse, error) {
	if err := s.guard.Detach(ctx); err != nil {
		return nil, err
	}
	return &firewallv1.DetachResponse{}, nil
}

// PutEntry implements FirewallServiceServer.
func (s *Server) PutEntry(ctx context.Context, req *firewallv1.PutEntryRequest) (*firewallv1.PutEntryResponse, error) {
	v, err := verdict(req.GetVerdict())
	if err != nil {
		return nil, err
	}
	if err := s.guard.Put(ctx, req.GetCidr(), v); err != nil {
		return nil, err
	}
	return &firewallv1.PutEntryResponse{}, nil
}

// DeleteEntry implements FirewallServiceServer.
func (s *Server) DeleteEntry(ctx context.Context, req *firewallv1.DeleteEntryRequest) (*firewallv1.DeleteEntryResponse, error) {
	if err := s.guard.Delete(ctx, req.GetCidr()); err != nil {
		return nil, err
	}
	return &firewallv1.DeleteEntryResponse{}, nil
}

// ListEntries implements FirewallServiceServer.
func (s *Server) ListEntries(_ context.Context, req *firewallv1.ListEntriesRequest) (*firewallv1.ListEntriesResponse, error) {
	entries, next, err := s.guard.List(int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &firewallv1.ListEntriesResponse{NextPageToken: next}
	for _, e := range entries {
		resp.Entries = append(resp.Entries, &firewallv1.Entry{
			Cidr: e.Prefix.String(), Verdict: verdictMessage(e.Verdict), Packets: e.Hits,
		})
	}
	return resp, nil
}

// SetDefault implements FirewallServiceServer.
func (s *Server) SetDefault(ctx context.Context, req *firewallv1.SetDefaultRequest) (*firewallv1.SetDefaultResponse, error) {
	v, err := verdict(req.GetVerdict())
	if err != nil {
		return nil, err
	}
	if err := s.guard.SetDefault(ctx, v); err != nil {
		return nil, err
	}
	return &firewallv1.SetDefaultResponse{}, nil
}

// GetStats implements FirewallServiceServer.
func (s *Server) GetStats(context.Context, *firewallv1.GetStatsRequest) (*firewallv1.GetStatsResponse, error) {
	st, err := s.guard.Status()
	if err != nil {
		return nil, err
	}
	packets, bytes := byVerdict(st.Counters)
	return &firewallv1.GetStatsResponse{
		Interface: st.Interface, Mode: st.Mode,
		Entries: uint32(st.Entries), MaxEntries: st.MaxEntries,
		Packets: packets, Bytes: bytes,
	}, nil
}

func verdict(v firewallv1.Verdict) (firewall.Verdict, error) {
	switch v {
	case firewallv1.Verdict_VERDICT_ALLOW:
		return firewall.Allow, nil
	case firewallv1.Verdict_VERDICT_DENY:
		return firewall.Deny, nil
	case firewallv1.Verdict_VERDICT_UNSPECIFIED:
		fallthrough
	default:
		return 0, fault.Invalid("verdict", "must be VERDICT_ALLOW or VERDICT_DENY, is %v", v)
	}
}

func verdictMessage(v firewall.Verdict) firewallv1.Verdict {
	switch v {
	case firewall.Allow:
		return firewallv1.Verdict_VERDICT_ALLOW
	case firewall.Deny:
		return firewallv1.Verdict_VERDICT_DENY
	}
	return firewallv1.Verdict_VERDICT_UNSPECIFIED
}

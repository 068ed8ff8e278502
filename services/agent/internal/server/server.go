// Package server answers AgentService.
package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/agent/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/procmem"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

// Supervisor is what the server needs of the domain.
type Supervisor interface {
	List() []supervise.Status
	Restart(ctx context.Context, name string) (supervise.Status, error)
}

// startMargin is how long a service may take to serve after it was stopped.
const startMargin = 30 * time.Second

// Server implements AgentServiceServer.
type Server struct {
	agentv1.UnimplementedAgentServiceServer
	sup   Supervisor
	limit time.Duration
}

// New returns a server over sup; grace is how long a service may take to stop.
func New(sup Supervisor, grace time.Duration) *Server {
	return &Server{sup: sup, limit: grace + startMargin}
}

// ListServices implements AgentServiceServer.
func (s *Server) ListServices(context.Context, *agentv1.ListServicesRequest) (*agentv1.ListServicesResponse, error) {
	resp := new(agentv1.ListServicesResponse)
	for _, st := range s.sup.List() {
		resp.Services = append(resp.Services, service(st))
	}
	return resp, nil
}

// RestartService implements AgentServiceServer.
func (s *Server) RestartService(ctx context.Context, req *agentv1.RestartServiceRequest) (*agentv1.RestartServiceResponse, error) {
	if req.GetName() == "" {
		return nil, fault.Invalid("name", "must name a service, is empty")
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	st, err := s.sup.Restart(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &agentv1.RestartServiceResponse{Service: service(st)}, nil
}

var states = map[supervise.State]agentv1.ServiceState{
	supervise.Starting:      agentv1.ServiceState_SERVICE_STATE_STARTING,
	supervise.Serving:       agentv1.ServiceState_SERVICE_STATE_SERVING,
	supervise.BackingOff:    agentv1.ServiceState_SERVICE_STATE_BACKING_OFF,
	supervise.CrashLooping:  agentv1.ServiceState_SERVICE_STATE_CRASH_LOOPING,
	supervise.Stopping:      agentv1.ServiceState_SERVICE_STATE_STOPPING,
	supervise.Misconfigured: agentv1.ServiceState_SERVICE_STATE_MISCONFIGURED,
}

func service(st supervise.Status) *agentv1.Service {
	out := &agentv1.Service{
		Name: st.Name, State: states[st.State], Pid: int32(st.PID), Restarts: st.Restarts,
		LastExit: st.LastExit, Adopted: st.Adopted,
	}
	if !st.Since.IsZero() {
		out.StartTime = timestamppb.New(st.Since)
	}
	if st.Backoff > 0 {
		out.Backoff = durationpb.New(st.Backoff)
	}
	if st.PID > 0 {
		if mem, err := procmem.Of(st.PID); err == nil { // it may end at any moment
			out.RssBytes, out.PssBytes = mem.RSS, mem.PSS
		}
	}
	return out
}

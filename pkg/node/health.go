package node

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthService makes sure that a watcher sees NOT_SERVING before its stream
// ends: the drain cuts its stream at the same moment as the status changes.
type healthService struct{ *health.Server }

// Watch implements HealthServer.
func (h healthService) Watch(req *healthv1.HealthCheckRequest, stream grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	w := &healthWatch{ServerStreamingServer: stream}
	err := h.Server.Watch(req, w)
	if w.last == healthv1.HealthCheckResponse_SERVING {
		// To a watcher that has left by itself this is a send that fails.
		_ = stream.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING})
	}
	return err
}

type healthWatch struct {
	grpc.ServerStreamingServer[healthv1.HealthCheckResponse]
	last healthv1.HealthCheckResponse_ServingStatus // the handler's alone
}

func (w *healthWatch) Send(resp *healthv1.HealthCheckResponse) error {
	w.last = resp.GetStatus()
	return w.ServerStreamingServer.Send(resp)
}

package up

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
	agentv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/agent/v1"
	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/procmem"
)

// askLimit bounds a question to a service: who does not answer in time keeps
// its last figures.
const askLimit = 800 * time.Millisecond

// memory is one line of the table.
type memory struct {
	name     string
	state    string
	restarts uint32
	usage    procmem.Usage
	lastExit string
}

// figures is the node at one moment. Counts go on over a service's restart.
type figures struct {
	up       time.Duration
	devices  uint32
	perSec   float64
	received uint64
	acked    uint64
	accepted uint64
	rejected uint64
	// delivered is what JetStream has confirmed.
	delivered  uint64
	inFlight   uint64
	published  uint64 // what the MQTT broker has confirmed
	drops      uint64 // of readings
	mqttDrops  uint64 // of statuses
	unjudged   uint64
	p50, p99   time.Duration
	services   []memory
	total      procmem.Usage
	fleet      procmem.Usage
	allServing bool
}

// total counts on when a service starts again from 0.
type total struct{ base, last uint64 }

func (t *total) at(now uint64) uint64 {
	if now < t.last {
		t.base += t.last
	}
	t.last = now
	return t.base + now
}

// gauges asks the services for their figures.
type gauges struct {
	start time.Time
	fleet func() int // its pid, 0 when there is none
	conns map[string]*grpc.ClientConn

	last     figures
	lastTime time.Time
	totals   map[string]*total
}

func newGauges(runDir string, fleet func() int) (*gauges, error) {
	g := &gauges{start: time.Now(), fleet: fleet, conns: make(map[string]*grpc.ClientConn), totals: make(map[string]*total)}
	for _, name := range []string{"agent", "ingest", "broadcast", "policy"} {
		conn, err := mesh.Dial(runDir, name)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.conns[name] = conn
	}
	return g, nil
}

func (g *gauges) close() error {
	var errs []error
	for _, c := range g.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (g *gauges) count(name string, now uint64) uint64 {
	t := g.totals[name]
	if t == nil {
		t = new(total)
		g.totals[name] = t
	}
	return t.at(now)
}

// read returns the figures of now.
func (g *gauges) read(ctx context.Context) figures {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var (
		list *agentv1.ListServicesResponse
		in   *ingestv1.GetStatsResponse
		out  *broadcastv1.GetStatsResponse
		wg   sync.WaitGroup
	)
	// An error means that the service is away for the moment; the table shows
	// its state.
	wg.Go(func() {
		list, _ = agentv1.NewAgentServiceClient(g.conns["agent"]).ListServices(ctx, &agentv1.ListServicesRequest{})
	})
	wg.Go(func() {
		in, _ = ingestv1.NewIngestServiceClient(g.conns["ingest"]).GetStats(ctx, &ingestv1.GetStatsRequest{})
	})
	wg.Go(func() {
		out, _ = broadcastv1.NewBroadcastServiceClient(g.conns["broadcast"]).GetStats(ctx, &broadcastv1.GetStatsRequest{})
	})
	wg.Wait()

	now := time.Now()
	f := g.last
	f.up = now.Sub(g.start)
	f.perSec, f.devices = 0, 0
	if in != nil {
		g.ingest(&f, in, now)
	}
	if out != nil {
		f.published = g.count("published", out.GetDelivered())
		f.mqttDrops = g.count("mqtt drops", sum(out.GetDropped()))
	}
	g.memory(ctx, &f, list)
	g.last = f
	return f
}

func (g *gauges) ingest(f *figures, in *ingestv1.GetStatsResponse, now time.Time) {
	received := g.count("received", in.GetReceived())
	if d := now.Sub(g.lastTime).Seconds(); !g.lastTime.IsZero() && d > 0 {
		f.perSec = float64(received-f.received) / d
	}
	g.lastTime = now
	f.received = received
	f.devices = in.GetConnectedDevices()
	f.delivered = g.count("delivered", in.GetDelivered())
	f.rejected = g.count("rejected", in.GetRejected())
	f.unjudged = g.count("unevaluated", in.GetUnevaluated())
	f.drops = g.count("drops", sum(in.GetDropped()))
	f.inFlight = in.GetInFlight()
	f.acked = f.delivered + f.rejected // an acknowledgement waits for one of the two
	f.accepted = f.delivered - min(f.unjudged, f.delivered)
	f.p50 = time.Duration(in.GetAckP50Us()) * time.Microsecond
	f.p99 = time.Duration(in.GetAckP99Us()) * time.Microsecond
}

func (g *gauges) memory(ctx context.Context, f *figures, list *agentv1.ListServicesResponse) {
	f.services, f.total, f.allServing = nil, procmem.Usage{}, list != nil
	agent := memory{name: "agent", state: "away"}
	for _, s := range list.GetServices() {
		m := memory{
			name: s.GetName(), state: stateName(s.GetState()), restarts: s.GetRestarts(), lastExit: s.GetLastExit(),
			usage: procmem.Usage{RSS: s.GetRssBytes(), PSS: s.GetPssBytes()},
		}
		f.allServing = f.allServing && s.GetState() == agentv1.ServiceState_SERVICE_STATE_SERVING
		f.services = append(f.services, m)
	}
	if list != nil {
		agent.state = "serving"
		if info, err := adminv1.NewAdminServiceClient(g.conns["agent"]).GetInfo(ctx, &adminv1.GetInfoRequest{}); err == nil {
			agent.usage, _ = procmem.Of(int(info.GetPid())) // it may end at any moment
		}
	}
	own, _ := procmem.Of(os.Getpid())
	f.services = append(f.services, agent, memory{name: "nats+etcd", state: "serving", usage: own})
	for _, m := range f.services {
		f.total.RSS += m.usage.RSS
		f.total.PSS += m.usage.PSS
	}
	f.fleet = procmem.Usage{}
	if pid := g.fleet(); pid > 0 {
		f.fleet, _ = procmem.Of(pid)
	}
}

func stateName(s agentv1.ServiceState) string {
	switch s {
	case agentv1.ServiceState_SERVICE_STATE_STARTING:
		return "starting"
	case agentv1.ServiceState_SERVICE_STATE_SERVING:
		return "serving"
	case agentv1.ServiceState_SERVICE_STATE_BACKING_OFF:
		return "backing off"
	case agentv1.ServiceState_SERVICE_STATE_CRASH_LOOPING:
		return "crash loop"
	case agentv1.ServiceState_SERVICE_STATE_STOPPING:
		return "stopping"
	case agentv1.ServiceState_SERVICE_STATE_MISCONFIGURED:
		return "misconfigured"
	case agentv1.ServiceState_SERVICE_STATE_UNSPECIFIED:
	}
	return "unknown"
}

func sum(by map[string]uint64) uint64 {
	var n uint64
	for _, v := range by {
		n += v
	}
	return n
}

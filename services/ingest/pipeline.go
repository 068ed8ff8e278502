package ingest

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"
	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/mesh"
	"github.com/xinghuo-edge/xinghuo/pkg/node"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/config"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/deliver"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/evaluate"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/ledger"
	devicestatus "github.com/xinghuo-edge/xinghuo/services/ingest/internal/status"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/watch"
)

const (
	// itemBuffer is how many readings wait between the devices' goroutines and
	// the one that asks policy: 5 ms of 200,000 readings/s.
	itemBuffer = 1024
	// settleTime is how long a stop waits for the readings that are on their
	// way; with policy and NATS there it takes milliseconds.
	settleTime = 3 * time.Second
	settleStep = 2 * time.Millisecond
)

// pipeline is a reading's way through ingest: device → policy → JetStream, and
// beside it the device's status → broadcast.
type pipeline struct {
	devices   *device.Registry
	ledger    *ledger.Ledger
	watch     *watch.Hub
	items     chan device.Item
	evaluator *evaluate.Evaluator
	deliverer *deliver.Deliverer
	reporter  *devicestatus.Reporter
}

func newPipeline(cfg *config.Config, srv *node.Server, nats *bus.Bus, to *peers) *pipeline {
	p := &pipeline{
		devices: device.NewRegistry(cfg.MaxDevices), ledger: ledger.New(), watch: new(watch.Hub),
		items: make(chan device.Item, itemBuffer),
	}
	p.deliverer = deliver.New()
	p.deliverer.Bus, p.deliverer.Subjects, p.deliverer.Log = nats, nats.Subjects, srv.Log
	p.deliverer.Epoch = uint64(time.Now().UnixNano())
	p.deliverer.Done, p.deliverer.Abandoned = p.done, p.abandoned
	p.deliverer.Failing = func(reason string) { srv.Degrade("jetstream", reason) }
	policy := policyv1.NewPolicyServiceClient(to.policy)
	p.evaluator = &evaluate.Evaluator{
		Open: func(ctx context.Context) (policyv1.PolicyService_EvaluateStreamClient, error) {
			return policy.EvaluateStream(mesh.LongLived(ctx))
		},
		Refused: func(err error) bool { return status.Code(err) == codes.InvalidArgument },
		Mode:    evaluate.Mode(cfg.PolicyMode), In: p.items, Out: p.judged, Abandoned: p.abandoned,
		Unevaluated: p.ledger.Unevaluated, Log: srv.Log,
		Away: func(reason string) { srv.Degrade("policy", reason) },
	}
	broadcast := broadcastv1.NewBroadcastServiceClient(to.broadcast)
	p.reporter = devicestatus.New()
	p.reporter.Open = func(ctx context.Context) (broadcastv1.BroadcastService_PublishStatusClient, error) {
		return broadcast.PublishStatus(mesh.LongLived(ctx))
	}
	p.reporter.Devices, p.reporter.Log = p.devices, srv.Log
	p.reporter.Away = func(reason string) { srv.Degrade("broadcast", reason) }
	return p
}

// run runs the door until ctx ends, and the pipeline behind it until the door
// has closed.
func (p *pipeline) run(ctx context.Context, door func(context.Context) error) error {
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return p.evaluator.Run(behind) })
	g.Go(func() error { return p.deliverer.Run(behind) })
	g.Go(func() error { return p.reporter.Run(behind) })
	g.Go(func() error {
		defer stop()
		return door(ctx)
	})
	err := g.Wait()
	p.drain()
	return err
}

// drain gives up what was taken in after the evaluator had ended.
func (p *pipeline) drain() {
	for {
		select {
		case it := <-p.items:
			p.abandoned([]device.Item{it})
		default:
			return
		}
	}
}

// judged takes a batch that has its verdicts on to JetStream.
func (p *pipeline) judged(items []device.Item) {
	for i := range items {
		if it := &items[i]; it.Outcome == device.Deliver {
			it.Device.Show(it)
			p.devices.Changed(it.Device)
		}
	}
	p.watch.Show(items)
	p.deliverer.Add(items)
}

// done ends the way of items of one device. The device comes last: who sees an
// acknowledgement finds it counted.
func (p *pipeline) done(items []device.Item) {
	delivered, rejected := 0, 0
	now := time.Now()
	for i := range items {
		switch items[i].Outcome {
		case device.Deliver:
			delivered++
		case device.Reject:
			rejected++
		case device.Drop:
			p.ledger.Drop(items[i].Reason, 1)
		}
		p.ledger.Latency.Observe(now, now.Sub(items[i].Arrived), 1)
	}
	p.ledger.Done(delivered, rejected)
	items[0].Device.Done(items)
}

// abandoned ends the way of items that are not acknowledged.
func (p *pipeline) abandoned(items []device.Item) {
	for i := range items {
		items[i].Device.Abandon("shutdown", 1)
	}
	p.ledger.Drop("shutdown", len(items))
}

// settle waits until nothing is on its way, for settleTime at the most.
func (p *pipeline) settle() {
	limit := time.NewTimer(settleTime)
	defer limit.Stop()
	step := time.NewTicker(settleStep)
	defer step.Stop()
	for p.devices.InFlight() > 0 {
		select {
		case <-step.C:
		case <-limit.C:
			return
		}
	}
}

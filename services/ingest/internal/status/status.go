// Package status tells broadcast how the devices are.
//
// A status is a device's state, not a message: while broadcast is away or
// behind, a newer one takes the place of the one that has not gone out, so
// nothing here grows and nothing waits.
package status

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	broadcastv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/broadcast/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

const (
	// maxBatch is what broadcast takes in one message.
	maxBatch = 256
	// maxOpen bounds the batches that broadcast has not acknowledged.
	maxOpen = 4
	// retryPause keeps a broadcast that ends each stream at once from being
	// called in a tight loop.
	retryPause = 100 * time.Millisecond
)

// Opener opens a stream to broadcast, waiting for broadcast to be there.
type Opener func(ctx context.Context) (broadcastv1.BroadcastService_PublishStatusClient, error)

// Reporter sends the status of each device that has changed.
type Reporter struct {
	// Open opens the stream.
	Open Opener
	// Devices knows what has changed.
	Devices *device.Registry
	// Away is told when broadcast goes ("…") and comes back ("").
	Away func(reason string)
	Log  *slog.Logger

	interval atomic.Int64
	retimed  chan struct{} // signals a new interval
	sent     atomic.Uint64
	dropped  atomic.Uint64
}

// New returns a reporter; set its fields and its interval before Run.
func New() *Reporter { return &Reporter{retimed: make(chan struct{}, 1)} }

// SetInterval sets how often a device's status is sent at the most, from now on.
func (r *Reporter) SetInterval(d time.Duration) {
	r.interval.Store(int64(d))
	select {
	case r.retimed <- struct{}{}:
	default: // it is signalled already
	}
}

// Counts returns how many statuses broadcast has acknowledged, and how many of
// those it dropped.
func (r *Reporter) Counts() (sent, dropped uint64) { return r.sent.Load(), r.dropped.Load() }

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := r.stream(ctx)
		if ctx.Err() != nil {
			break
		}
		r.Away("broadcast is away: statuses wait, the newest of each device")
		r.Log.WarnContext(ctx, "broadcast stream ended", "err", err)
		pause := time.NewTimer(retryPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return nil
}

// open is what broadcast has not acknowledged.
type open struct {
	mu      sync.Mutex // guards what follows
	batches []batch
}

type batch struct {
	sequence uint64
	devices  []string
}

func (r *Reporter) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.Open(ctx)
	if err != nil {
		cancel()
		return fmt.Errorf("open status stream: %w", err)
	}
	r.Away("")
	var o open
	free := make(chan struct{}, maxOpen)
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() { // ends with the stream, which ends with ctx
		defer close(done)
		failed <- r.acks(stream, &o, free)
	}()
	err = r.send(ctx, stream, &o, free, failed)
	cancel()
	<-done
	for _, b := range o.batches { // what is not acknowledged may not have gone out
		for _, id := range b.devices {
			if d := r.Devices.Get(id); d != nil {
				r.Devices.Changed(d)
			}
		}
	}
	return err
}

func (r *Reporter) send(ctx context.Context, stream broadcastv1.BroadcastService_PublishStatusClient, o *open, free chan struct{}, failed <-chan error) error {
	var sequence uint64
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.retimed:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		timer.Reset(time.Duration(r.interval.Load()))
		for {
			select { // first the place, then what is newest
			case free <- struct{}{}:
			case err := <-failed:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
			infos := r.Devices.TakeChanged(maxBatch)
			if len(infos) == 0 {
				<-free
				break
			}
			sequence++
			req := &broadcastv1.PublishStatusRequest{Sequence: sequence, Statuses: make([]*broadcastv1.DeviceStatus, len(infos))}
			ids := make([]string, len(infos))
			for i := range infos {
				req.Statuses[i], ids[i] = statusOf(&infos[i]), infos[i].ID
			}
			o.mu.Lock()
			o.batches = append(o.batches, batch{sequence, ids})
			o.mu.Unlock()
			if err := stream.Send(req); err != nil {
				return fmt.Errorf("send statuses: %w", err)
			}
		}
	}
}

func statusOf(i *device.Info) *broadcastv1.DeviceStatus {
	return &broadcastv1.DeviceStatus{
		DeviceId: i.ID, Time: timestamppb.New(i.StatusTime), Connected: i.Connected, Sequence: i.Sequence, Values: i.Values,
	}
}

func (r *Reporter) acks(stream broadcastv1.BroadcastService_PublishStatusClient, o *open, free <-chan struct{}) error {
	var dropped uint64
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		r.dropped.Add(resp.GetDropped() - dropped)
		dropped = resp.GetDropped()
		o.mu.Lock()
		for len(o.batches) > 0 && o.batches[0].sequence <= resp.GetSequence() {
			r.sent.Add(uint64(len(o.batches[0].devices)))
			o.batches = o.batches[1:]
			<-free
		}
		o.mu.Unlock()
	}
}

// Package deliver brings readings to JetStream, each device's in order, and
// ends their way when JetStream has confirmed them.
//
// A device has at most one message in flight, and what comes meanwhile goes
// into its next one. So a message that is sent again cannot overtake another,
// and the busier the node is, the more readings a message carries.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

const (
	// maxReadings is how many readings one message carries.
	maxReadings = 64
	// maxBytes is where a message is full; with one more reading of a full
	// frame it stays below NATS's limit of 1 MiB.
	maxBytes = 512 << 10
	// maxInFlight bounds the messages that wait for JetStream.
	maxInFlight = 4096
	// retryPause is the time between two attempts on one message.
	retryPause = 100 * time.Millisecond
	// eventReadingRejected is the Xh-Event of a RejectedReading.
	eventReadingRejected = "reading-rejected"
)

var errNotSent = errors.New("not sent")

// Publisher is what Deliverer needs of the bus.
type Publisher interface {
	PublishAsync(ctx context.Context, m bus.Message) (jetstream.PubAckFuture, error)
}

// Deliverer brings items to JetStream.
type Deliverer struct {
	// Bus publishes.
	Bus Publisher
	// Subjects names the subjects.
	Subjects bus.Subjects
	// Epoch tells the message ids of this process from those of its
	// predecessors.
	Epoch uint64
	// Done is told of items, all of one device, whose way has ended.
	Done func([]device.Item)
	// Abandoned is told of items, all of one device, that Run could not bring
	// to JetStream before it ended.
	Abandoned func([]device.Item)
	Log       *slog.Logger

	mu     sync.Mutex // guards what follows
	queues map[*device.Device]*queue
	ready  []*queue // those with items and nothing in flight
	wake   chan struct{}
	last   uint64 // of the sequences in message ids
}

type queue struct {
	items []device.Item
	busy  bool // ready, or in flight
}

// flight is a device's items on their way.
type flight struct {
	queue    *queue
	items    []device.Item
	messages []bus.Message
	futures  []jetstream.PubAckFuture
}

// New returns a deliverer; set its fields before Run.
func New() *Deliverer {
	return &Deliverer{queues: make(map[*device.Device]*queue), wake: make(chan struct{}, 1)}
}

// Add takes items over, in order. It does not block: devices' windows bound
// what can be here.
func (d *Deliverer) Add(items []device.Item) {
	d.mu.Lock()
	for i := range items {
		q := d.queues[items[i].Device]
		if q == nil {
			q = &queue{}
			d.queues[items[i].Device] = q
		}
		q.items = append(q.items, items[i])
		if !q.busy {
			q.busy = true
			d.ready = append(d.ready, q)
		}
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default: // the sender is awake
	}
}

// Run delivers until ctx ends. What is not confirmed by then is given to
// Abandoned; its device sends it again.
func (d *Deliverer) Run(ctx context.Context) error {
	flights := make(chan *flight, maxInFlight)
	confirmed := make(chan struct{})
	go func() { // ends when flights closes
		defer close(confirmed)
		for f := range flights {
			d.confirm(ctx, f)
		}
	}()
	for ctx.Err() == nil {
		d.mu.Lock()
		ready := d.ready
		d.ready = nil
		d.mu.Unlock()
		for _, q := range ready {
			f := d.take(q)
			d.send(ctx, f)
			flights <- f // there is room, or it comes as JetStream answers or ctx ends
		}
		if len(ready) == 0 {
			select {
			case <-d.wake:
			case <-ctx.Done():
			}
		}
	}
	close(flights)
	<-confirmed
	d.abandon()
	return nil
}

// abandon gives up what never took off.
func (d *Deliverer) abandon() {
	d.mu.Lock()
	var left [][]device.Item
	for _, q := range d.queues {
		if len(q.items) > 0 {
			left = append(left, q.items)
			q.items = nil
		}
	}
	d.mu.Unlock()
	for _, items := range left {
		d.Abandoned(items)
	}
}

// take makes the next messages of a device: one with the readings that may
// leave, and one for each that was rejected.
func (d *Deliverer) take(q *queue) *flight {
	d.mu.Lock()
	n, size := 1, q.items[0].Size
	for n < len(q.items) && n < maxReadings && size < maxBytes && q.items[n].Session == q.items[0].Session {
		size += q.items[n].Size
		n++
	}
	f := &flight{queue: q, items: slices.Clone(q.items[:n])}
	q.items = slices.Delete(q.items, 0, n)
	first := d.last + 1
	d.last += uint64(n) + 1 // at most this many messages
	d.mu.Unlock()

	head := &f.items[0]
	tel := &telemetryv1.Telemetry{DeviceId: head.Device.ID, Source: head.Source, Session: head.Session}
	for i := range f.items {
		it := &f.items[i]
		switch it.Outcome {
		case device.Deliver:
			tel.Readings = append(tel.Readings, &telemetryv1.AcceptedReading{Reading: it.Reading, Evaluation: it.Evaluation, Reason: it.Reason})
		case device.Reject:
			f.add(d.message(d.Subjects.Event("ingest"), eventReadingRejected, first+uint64(i)+1, &telemetryv1.RejectedReading{
				DeviceId: it.Device.ID, Source: it.Source, Session: it.Session, Reading: it.Reading, Module: it.Module, Reason: it.Reason,
			}))
		case device.Drop: // it only waits for its turn to be acknowledged
		}
	}
	if len(tel.Readings) > 0 {
		f.add(d.message(d.Subjects.Telemetry(head.Source, head.Device.ID), "", first, tel))
	}
	return f
}

func (f *flight) add(m bus.Message) { f.messages = append(f.messages, m) }

func (d *Deliverer) message(subject, event string, sequence uint64, body proto.Message) bus.Message {
	raw, err := proto.Marshal(body)
	if err != nil { // only for text that is not UTF-8, which decoding has refused
		panic(fmt.Sprintf("marshal %s: %v", subject, err))
	}
	return bus.Message{Subject: subject, ID: d.Subjects.MsgID(d.Epoch, sequence), Event: event, Body: raw}
}

// send puts every message of a flight on its way. A message that could not be
// sent has no future.
func (d *Deliverer) send(ctx context.Context, f *flight) {
	f.futures = make([]jetstream.PubAckFuture, len(f.messages))
	for i, m := range f.messages {
		future, err := d.Bus.PublishAsync(ctx, m)
		if err != nil {
			return // confirm sends again, after a pause
		}
		f.futures[i] = future
	}
}

// confirm waits until JetStream has every message of a flight, sending again
// under the same ids what failed, and starts the device's next flight.
func (d *Deliverer) confirm(ctx context.Context, f *flight) {
	failures := 0
	for i := range f.messages {
		for {
			err := wait(ctx, f.futures[i])
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				d.Abandoned(f.items)
				d.next(f.queue)
				return
			}
			failures++
			if failures == 1 {
				d.Log.WarnContext(ctx, "publish failed, sending again", "subject", f.messages[i].Subject, "err", err)
			}
			if !pause(ctx, retryPause) {
				continue
			}
			if f.futures[i], err = d.Bus.PublishAsync(ctx, f.messages[i]); err != nil {
				f.futures[i] = nil
			}
		}
	}
	d.Done(f.items)
	d.next(f.queue)
}

func (d *Deliverer) next(q *queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(q.items) == 0 {
		q.busy = false
		return
	}
	d.ready = append(d.ready, q)
	select {
	case d.wake <- struct{}{}:
	default: // the sender is awake
	}
}

func wait(ctx context.Context, future jetstream.PubAckFuture) error {
	if future == nil {
		return errNotSent
	}
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Package deliver brings readings to JetStream, each device's in order, and
// ends their way when JetStream has confirmed them.
//
// A device has at most one message in flight, and what comes meanwhile goes
// into its next one. So a message that is sent again cannot overtake another,
// and the busier the node is, the more readings a message carries.
package deliver

import (
	"context"
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
	// retryPause and maxPause are the time between two attempts on a message,
	// at first and at the most.
	retryPause = 100 * time.Millisecond
	maxPause   = time.Second
	// eventReadingRejected is the Xh-Event of a RejectedReading.
	eventReadingRejected = "reading-rejected"
)

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
	// Failing is told why publishing fails, and "" when it works again.
	Failing func(reason string)
	Log     *slog.Logger

	life    context.Context //nolint:containedctx // of what Add starts; it ends with Run
	end     context.CancelFunc
	flights sync.WaitGroup

	failingMu sync.Mutex // guards failing, and the order of what Failing is told
	failing   int        // flights whose last attempt failed

	mu     sync.Mutex // guards what follows
	queues map[*device.Device]*queue
	last   uint64 // of the sequences in message ids
	closed bool
}

// queue is what a device has that is not on its way.
type queue struct {
	items  []device.Item
	flying bool // whether someone brings them
}

// flight is a device's items on their way.
type flight struct {
	items    []device.Item
	messages []bus.Message // those that JetStream has not confirmed
}

// New returns a deliverer; set its fields before Add.
func New() *Deliverer {
	d := &Deliverer{queues: make(map[*device.Device]*queue)}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Add takes items over, in order. It does not block: devices' windows bound
// what can be here.
func (d *Deliverer) Add(items []device.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		d.Abandoned(items)
		return
	}
	for i := range items {
		q := d.queues[items[i].Device]
		if q == nil {
			q = new(queue)
			d.queues[items[i].Device] = q
		}
		q.items = append(q.items, items[i])
		if !q.flying {
			q.flying = true
			d.flights.Go(func() { d.fly(q) })
		}
	}
}

// Run delivers until ctx ends. What is not confirmed by then is given to
// Abandoned, as is what comes later; its device sends it again.
func (d *Deliverer) Run(ctx context.Context) error {
	<-ctx.Done()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.end()
	d.flights.Wait()
	return nil
}

// fly brings a device's items to JetStream until it has no more. A device that
// cannot be served delays no other.
func (d *Deliverer) fly(q *queue) {
	for {
		f := d.take(q)
		switch {
		case f == nil:
			return
		case d.bring(f):
			d.Done(f.items)
		default:
			d.Abandoned(f.items)
		}
	}
}

// take makes the next messages of a device: one with the readings that may
// leave, and one for each that was rejected. It returns nil when there are none,
// and then the queue is not flying any more.
func (d *Deliverer) take(q *queue) *flight {
	d.mu.Lock()
	if len(q.items) == 0 {
		if cap(q.items) > maxReadings { // an outage made it grow
			q.items = nil
		}
		q.flying = false
		d.mu.Unlock()
		return nil
	}
	n, size := 1, q.items[0].Size
	for n < len(q.items) && n < maxReadings && size < maxBytes && q.items[n].Session == q.items[0].Session {
		size += q.items[n].Size
		n++
	}
	f := &flight{items: slices.Clone(q.items[:n])}
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

// bring sends a flight's messages until JetStream has them all, again under the
// same ids what failed. It reports false when the deliverer ended first.
func (d *Deliverer) bring(f *flight) bool {
	failed := false
	for wait := retryPause; d.life.Err() == nil; wait = min(2*wait, maxPause) {
		err := d.attempt(f)
		if len(f.messages) == 0 {
			if failed {
				d.recovered()
			}
			return true
		}
		if !failed {
			d.failed(f.messages[0].Subject, err)
		}
		failed = true
		pause(d.life, wait)
	}
	return false
}

// failed notes that a flight fails; the first says it for all.
func (d *Deliverer) failed(subject string, err error) {
	d.failingMu.Lock()
	defer d.failingMu.Unlock()
	d.failing++
	if d.failing == 1 {
		d.Log.WarnContext(d.life, "publish failed, sending again", "subject", subject, "err", err)
		d.Failing(fmt.Sprintf("readings are not confirmed, and not acknowledged: %v", err))
	}
}

// recovered notes that a flight that failed has arrived.
func (d *Deliverer) recovered() {
	d.failingMu.Lock()
	defer d.failingMu.Unlock()
	d.failing--
	if d.failing == 0 {
		d.Log.InfoContext(d.life, "publishing works again")
		d.Failing("")
	}
}

// attempt sends a flight's messages and keeps those that were not confirmed.
func (d *Deliverer) attempt(f *flight) error {
	futures := make([]jetstream.PubAckFuture, 0, len(f.messages))
	var failure error
	for _, m := range f.messages {
		future, err := d.Bus.PublishAsync(d.life, m)
		if err != nil {
			failure = err
			break
		}
		futures = append(futures, future)
	}
	left := f.messages[:0]
	for i, future := range futures {
		if err := wait(d.life, future); err != nil {
			failure = err
			left = append(left, f.messages[i])
		}
	}
	f.messages = append(left, f.messages[len(futures):]...)
	return failure
}

func wait(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
	}
	select {
	case <-future.Ok(): // both were ready: it is delivered
		return nil
	default:
		return ctx.Err()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

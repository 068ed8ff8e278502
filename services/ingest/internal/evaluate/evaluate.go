// Package evaluate asks policy about readings, in batches over one stream, and
// keeps their order whatever happens to the stream.
package evaluate

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
)

// Mode says what happens to readings while policy is away.
type Mode string

// The modes.
const (
	// Hold keeps the readings until policy is back. Devices' windows bound how
	// many that are.
	Hold Mode = "hold"
	// Pass lets them go on, marked UNEVALUATED.
	Pass Mode = "pass"
	// Drop drops and counts them, and tells their device.
	Drop Mode = "drop"
)

const (
	// MaxBatch is how many readings one message to policy carries.
	MaxBatch = 64
	// maxBytes is where a batch is full, well below gRPC's limit of 4 MiB.
	maxBytes = 1 << 20
	// maxOpen is how many batches may be with policy: enough to keep it busy
	// while answers travel.
	maxOpen = 8
	// patience is how long policy may be away before Pass and Drop take
	// effect: a restart is shorter and costs no verdict.
	patience = 2 * time.Second
	// verdictTimeout ends a stream whose peer has stopped answering without
	// closing it.
	verdictTimeout = 5 * time.Second
	// retryPause keeps a policy that ends each stream at once from being asked
	// in a tight loop.
	retryPause = 50 * time.Millisecond
)

// Opener opens a stream to policy, waiting for policy to be there.
type Opener func(ctx context.Context) (policyv1.PolicyService_EvaluateStreamClient, error)

// Evaluator turns items without an outcome into items with one.
type Evaluator struct {
	// Open opens the stream.
	Open Opener
	// Refused reports whether an error of the stream means that policy will
	// never judge the batch it was asked about.
	Refused func(error) bool
	// Mode says what happens while policy is away.
	Mode Mode
	// In is where items come from.
	In <-chan device.Item
	// Out takes each batch once, in the order of In. It must not block.
	Out func([]device.Item)
	// Abandoned is told of items that have no verdict when Run ends.
	Abandoned func([]device.Item)
	// Unevaluated is told how many items went on without a verdict.
	Unevaluated func(n int)
	// Away is told when policy goes ("…") and comes back ("").
	Away func(reason string)
	Log  *slog.Logger

	delay atomic.Int64
	last  uint64
	open  []*batch // asked and not answered, oldest first
}

type batch struct {
	id    uint64
	items []device.Item
	asked time.Time
}

// SetDelay sets how long an incomplete batch waits for more readings.
func (e *Evaluator) SetDelay(d time.Duration) { e.delay.Store(int64(d)) }

// Run evaluates until ctx ends. Items that have no verdict by then are given to
// Abandoned.
func (e *Evaluator) Run(ctx context.Context) error {
	batches := make(chan *batch)
	collected := make(chan struct{})
	go func() { // ends with ctx
		defer close(collected)
		e.collect(ctx, batches)
	}()
	for ctx.Err() == nil {
		stream, cancel, ok := e.await(ctx, batches)
		if !ok {
			break
		}
		e.Away("")
		err := e.pump(ctx, stream, batches)
		cancel()
		if e.Refused(err) && len(e.open) > 0 { // asking again would end the next stream, too
			b := e.open[0]
			e.open = e.open[1:]
			e.drop(b, "policy_refused")
		}
		if ctx.Err() == nil {
			e.Away("policy is away: its stream ended")
			e.Log.WarnContext(ctx, "policy stream ended", "err", err, "open_batches", len(e.open))
		}
	}
	<-collected
	for _, b := range e.open {
		e.Abandoned(b.items)
	}
	e.open = nil
	return nil
}

// collect gathers items into batches: up to MaxBatch, or what comes within the
// delay of the first.
func (e *Evaluator) collect(ctx context.Context, batches chan<- *batch) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b := &batch{items: make([]device.Item, 0, MaxBatch)}
		size := 0
		select {
		case it := <-e.In:
			b.items = append(b.items, it)
			size = it.Size
		case <-ctx.Done():
			return
		}
		timer.Reset(time.Duration(e.delay.Load()))
	fill:
		for len(b.items) < MaxBatch && size < maxBytes {
			select {
			case it := <-e.In:
				b.items = append(b.items, it)
				size += it.Size
			case <-timer.C:
				break fill
			case <-ctx.Done():
				break fill
			}
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			e.Abandoned(b.items)
			return
		}
	}
}

type opened struct {
	stream policyv1.PolicyService_EvaluateStreamClient
	err    error
}

// await waits for a stream to policy. Meanwhile, and after some patience, it
// handles batches as the mode says.
func (e *Evaluator) await(ctx context.Context, batches <-chan *batch) (policyv1.PolicyService_EvaluateStreamClient, context.CancelFunc, bool) {
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	var bypass <-chan *batch
	for {
		streamCtx, cancel := context.WithCancel(ctx)
		result := make(chan opened, 1)
		go func() { // ends when the stream opens or streamCtx ends
			stream, err := e.Open(streamCtx)
			result <- opened{stream, err}
		}()
	waiting:
		for {
			select {
			case r := <-result:
				if r.err == nil {
					return r.stream, cancel, true
				}
				cancel()
				e.Away(fmt.Sprintf("policy is away: %v", r.err))
				if !pause(ctx, retryPause) {
					return nil, nil, false
				}
				break waiting
			case <-impatient.C:
				if e.Mode == Hold {
					e.Away("policy is away: readings are held")
					continue
				}
				e.Away("policy is away: readings " + string(e.Mode))
				for _, b := range e.open {
					e.without(b)
				}
				e.open = nil
				bypass = batches
			case b := <-bypass:
				e.without(b)
			case <-ctx.Done():
				cancel()
				<-result
				return nil, nil, false
			}
		}
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

// pump asks about batches until the stream fails; what is asked and not
// answered then stays in e.open and is asked again first.
func (e *Evaluator) pump(ctx context.Context, stream policyv1.PolicyService_EvaluateStreamClient, batches <-chan *batch) error {
	answers := make(chan *policyv1.EvaluateStreamResponse)
	failed := make(chan error, 1)
	go func() { // ends with the stream, which ends with its context
		for {
			resp, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case answers <- resp:
			case <-stream.Context().Done():
				failed <- stream.Context().Err()
				return
			}
		}
	}()
	for _, b := range e.open {
		if err := e.ask(stream, b); err != nil {
			return err
		}
	}
	check := time.NewTicker(verdictTimeout / 5)
	defer check.Stop()
	for {
		in := batches
		if len(e.open) >= maxOpen {
			in = nil
		}
		select {
		case b := <-in:
			e.last++
			b.id = e.last
			e.open = append(e.open, b)
			if err := e.ask(stream, b); err != nil {
				return err
			}
		case resp := <-answers:
			if err := e.answer(resp); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case now := <-check.C:
			if len(e.open) > 0 && now.Sub(e.open[0].asked) > verdictTimeout {
				return fmt.Errorf("no verdict within %v", verdictTimeout)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *Evaluator) ask(stream policyv1.PolicyService_EvaluateStreamClient, b *batch) error {
	b.asked = time.Now()
	req := &policyv1.EvaluateStreamRequest{BatchId: b.id, Readings: make([]*policyv1.DeviceReading, len(b.items))}
	readings := make([]policyv1.DeviceReading, len(b.items)) // filled in place, never copied
	for i := range b.items {
		readings[i].DeviceId = b.items[i].Device.ID
		readings[i].Source = b.items[i].Source
		readings[i].Reading = b.items[i].Reading
		req.Readings[i] = &readings[i]
	}
	if err := stream.Send(req); err != nil {
		return fmt.Errorf("ask policy: %w", err)
	}
	return nil
}

// answer takes the verdicts of the oldest open batch.
func (e *Evaluator) answer(resp *policyv1.EvaluateStreamResponse) error {
	if len(e.open) == 0 || resp.GetBatchId() != e.open[0].id {
		return fmt.Errorf("policy answered batch %d, which is not the oldest open one", resp.GetBatchId())
	}
	b := e.open[0]
	if got, want := len(resp.GetVerdicts()), len(b.items); got != want {
		return fmt.Errorf("policy gave %d verdicts on %d readings", got, want)
	}
	e.open[0] = nil
	e.open = e.open[1:]
	unevaluated := 0
	for i, v := range resp.GetVerdicts() {
		it := &b.items[i]
		it.Module, it.Reason = v.GetModule(), v.GetReason()
		switch {
		case v.GetAction() == policyv1.Action_ACTION_REJECT:
			it.Outcome = device.Reject
		case v.GetUnevaluated():
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_UNEVALUATED
			unevaluated++
		case v.GetAction() == policyv1.Action_ACTION_ALERT:
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_ALERTED
		case v.GetAction() == policyv1.Action_ACTION_TRANSFORM && v.GetTransformed() != nil:
			sequence := it.Reading.GetSequence() // is not policy's to change
			it.Reading = v.GetTransformed()
			it.Reading.Sequence = sequence
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_TRANSFORMED
		default:
			it.Evaluation = telemetryv1.Evaluation_EVALUATION_ACCEPTED
		}
	}
	if unevaluated > 0 {
		e.Unevaluated(unevaluated)
	}
	e.Out(b.items)
	return nil
}

// without handles a batch as the mode says.
func (e *Evaluator) without(b *batch) {
	if e.Mode == Drop {
		e.drop(b, "policy_away")
		return
	}
	for i := range b.items {
		b.items[i].Evaluation = telemetryv1.Evaluation_EVALUATION_UNEVALUATED
	}
	e.Unevaluated(len(b.items))
	e.Out(b.items)
}

func (e *Evaluator) drop(b *batch, reason string) {
	for i := range b.items {
		b.items[i].Outcome, b.items[i].Reason = device.Drop, reason
	}
	e.Out(b.items)
}

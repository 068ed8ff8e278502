// Package evaluate asks policy about readings, in batches over one stream, and
// keeps their order whatever happens to the stream.
package evaluate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"

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

	delay   atomic.Int64
	last    uint64
	open    []*batch  // asked and not answered, oldest first
	failing time.Time // since when policy does not answer; zero while it does
}

type batch struct {
	id    uint64
	items []device.Item
}

var errSilent = fmt.Errorf("no verdict within %v", verdictTimeout)

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
	e.failing = time.Now() // until it answers
	for ctx.Err() == nil {
		stream, cancel, ok := e.await(ctx, batches)
		if !ok {
			break
		}
		err := e.pump(stream, cancel, batches)
		if ctx.Err() != nil {
			break
		}
		if e.Refused(err) && len(e.open) > 0 {
			e.refuse()
			continue // what is left is another question
		}
		e.Away("policy is away: its stream ended")
		e.Log.WarnContext(ctx, "policy stream ended", "err", err, "open_batches", len(e.open))
		if e.failing.IsZero() { // it answered until now: a restart
			e.failing = time.Now()
			continue
		}
		pause(ctx, retryPause)
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

// await waits for a stream to policy. Meanwhile, and once policy has not
// answered for some patience, it handles batches as the mode says.
func (e *Evaluator) await(ctx context.Context, batches <-chan *batch) (policyv1.PolicyService_EvaluateStreamClient, context.CancelCauseFunc, bool) {
	var bypass <-chan *batch
	lose := func() {
		if e.Mode == Hold {
			e.Away("policy is away: readings are held")
			return
		}
		e.Away("policy is away: readings " + string(e.Mode))
		for _, b := range e.open {
			e.without(b)
		}
		e.open = nil
		bypass = batches
	}
	left := patience - time.Since(e.failing)
	if left <= 0 { // also for a policy that takes each stream and answers none
		lose()
	}
	impatient := time.NewTimer(left)
	defer impatient.Stop()
	for {
		streamCtx, cancel := context.WithCancelCause(ctx)
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
				cancel(nil)
				e.Away(fmt.Sprintf("policy is away: %v", r.err))
				if !pause(ctx, retryPause) {
					return nil, nil, false
				}
				break waiting
			case <-impatient.C:
				lose()
			case b := <-bypass:
				e.without(b)
			case <-ctx.Done():
				cancel(nil)
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
func (e *Evaluator) pump(stream policyv1.PolicyService_EvaluateStreamClient, cancel context.CancelCauseFunc, batches <-chan *batch) error {
	// There is room for each answer: a policy that cannot send does not read
	// either, and asking would wait for it.
	answers := make(chan *policyv1.EvaluateStreamResponse, len(e.open)+maxOpen)
	failed := make(chan error, 1)
	go func() {
		defer close(answers)
		failed <- receive(stream, answers)
	}()
	defer func() {
		cancel(nil)
		for range answers { // until it is closed, and so received from no more
		}
	}()
	// It ends also an ask that waits for a policy that does not read.
	silence := time.AfterFunc(verdictTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	if len(e.open) == 0 {
		silence.Stop()
		e.Away("") // it may be long until there is something to ask
	}
	for _, b := range e.open {
		if err := e.ask(stream, b); err != nil {
			return err
		}
	}
	lasting := time.NewTimer(patience)
	defer lasting.Stop()
	for {
		in := batches
		if len(e.open) >= maxOpen {
			in = nil
		}
		select {
		case b := <-in:
			if len(e.open) == 0 {
				silence.Reset(verdictTimeout)
			}
			e.last++
			b.id = e.last
			e.open = append(e.open, b)
			if err := e.ask(stream, b); err != nil {
				return err
			}
		case resp, ok := <-answers:
			if !ok {
				if err := context.Cause(stream.Context()); errors.Is(err, errSilent) {
					return err
				}
				return <-failed
			}
			if err := e.answer(resp); err != nil {
				return err
			}
			e.answered()
			if silence.Stop(); len(e.open) > 0 {
				silence.Reset(verdictTimeout)
			}
		case <-lasting.C:
			if len(e.open) == 0 { // a stream that lasts is as good as an answer
				e.answered()
			}
		}
	}
}

func (e *Evaluator) answered() {
	if !e.failing.IsZero() {
		e.failing = time.Time{}
		e.Away("")
	}
}

// receive hands on what policy answers until the stream ends.
func receive(stream policyv1.PolicyService_EvaluateStreamClient, answers chan<- *policyv1.EvaluateStreamResponse) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case answers <- resp:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (e *Evaluator) ask(stream policyv1.PolicyService_EvaluateStreamClient, b *batch) error {
	req := &policyv1.EvaluateStreamRequest{BatchId: b.id, Readings: make([]*policyv1.DeviceReading, len(b.items))}
	readings := make([]policyv1.DeviceReading, len(b.items)) // filled in place, never copied
	for i := range b.items {
		readings[i].DeviceId = b.items[i].Device.ID
		readings[i].Source = b.items[i].Source
		readings[i].Reading = b.items[i].Reading
		req.Readings[i] = &readings[i]
	}
	// io.EOF says that the stream has ended; receiving says why.
	if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("ask policy: %w", err)
	}
	return nil
}

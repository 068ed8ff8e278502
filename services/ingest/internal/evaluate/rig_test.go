package evaluate_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	policyv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/device"
	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/evaluate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBroken  = errors.New("stream broke")
	errRefused = errors.New("refused")
	errAway    = errors.New("away")
)

// accept is policy's answer to a batch when it has nothing against it.
func accept(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
	resp := &policyv1.EvaluateStreamResponse{BatchId: req.GetBatchId()}
	for range req.GetReadings() {
		resp.Verdicts = append(resp.Verdicts, &policyv1.Verdict{Action: policyv1.Action_ACTION_ACCEPT})
	}
	return resp, nil
}

func silent(*policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
	return nil, nil
}

// stream is one stream to the rig's policy.
type stream struct {
	grpc.ClientStream
	ctx  context.Context
	rig  *rig
	out  chan *policyv1.EvaluateStreamResponse
	fail chan error // holds the one that ends the stream
	over atomic.Bool
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Send(req *policyv1.EvaluateStreamRequest) error {
	if s.ctx.Err() != nil || s.over.Load() {
		return io.EOF
	}
	resp, err := s.rig.ask(req)
	if err != nil {
		s.end(err)
		return nil
	}
	if resp != nil {
		s.out <- resp
	}
	return nil
}

func (s *stream) end(err error) {
	if !s.over.Swap(true) {
		s.fail <- err
	}
}

// Recv gives out all answers before the error, as grpc does.
func (s *stream) Recv() (*policyv1.EvaluateStreamResponse, error) {
	select {
	case resp := <-s.out:
		return resp, nil
	default:
	}
	select {
	case resp := <-s.out:
		return resp, nil
	case err := <-s.fail:
		return nil, err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// rig is an evaluator in a bubble, with a policy that the test is.
type rig struct {
	t    *testing.T
	in   chan device.Item
	stop func()

	mu     sync.Mutex // guards what follows
	policy func(*policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error)
	down   bool
	seen
}

// seen is what a test looks at.
type seen struct {
	streams     []*stream
	out         []device.Item
	batches     []int
	abandoned   int
	unevaluated int
	away        string
}

// look returns what was seen, once nothing moves any more.
func (r *rig) look() seen {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

func newRig(t *testing.T, mode evaluate.Mode) *rig {
	t.Helper()
	r := &rig{t: t, in: make(chan device.Item, 1024), policy: accept}
	e := &evaluate.Evaluator{
		Open:    r.open,
		Refused: func(err error) bool { return errors.Is(err, errRefused) },
		Mode:    mode, In: r.in,
		Out: func(items []device.Item) {
			r.locked(func() { r.out = append(r.out, items...); r.batches = append(r.batches, len(items)) })
		},
		Abandoned:   func(items []device.Item) { r.locked(func() { r.abandoned += len(items) }) },
		Unevaluated: func(n int) { r.locked(func() { r.unevaluated += n }) },
		Away:        func(reason string) { r.locked(func() { r.away = reason }) },
		Log:         slog.New(slog.DiscardHandler),
	}
	e.SetDelay(5 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	r.stop = func() { cancel(); <-ended }
	synctest.Wait()
	return r
}

func (r *rig) locked(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *rig) open(ctx context.Context) (policyv1.PolicyService_EvaluateStreamClient, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return nil, errAway
	}
	s := &stream{ctx: ctx, rig: r, out: make(chan *policyv1.EvaluateStreamResponse, 1024), fail: make(chan error, 1)}
	r.streams = append(r.streams, s)
	return s, nil
}

func (r *rig) ask(req *policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy(req)
}

// breakStream ends the stream that is open.
func (r *rig) breakStream(err error) {
	r.locked(func() { r.streams[len(r.streams)-1].end(err) })
	synctest.Wait()
}

func (r *rig) set(down bool, policy func(*policyv1.EvaluateStreamRequest) (*policyv1.EvaluateStreamResponse, error)) {
	r.locked(func() { r.down, r.policy = down, policy })
}

var meter = &device.Device{ID: "meter-1"}

func (r *rig) send(first, n int) {
	for s := first; s < first+n; s++ {
		r.in <- device.Item{Device: meter, Source: "ws", Size: 20, Reading: &telemetryv1.Reading{Sequence: uint64(s)}}
	}
}

// pass lets time pass: in the bubble, once nothing else can move.
func (r *rig) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// want checks that readings 1 to n came out once each and in order, and how.
func (r *rig) want(n int, how func(device.Item) bool) {
	r.t.Helper()
	out := r.look().out
	if len(out) != n {
		r.t.Fatalf("%d readings came out, want %d", len(out), n)
	}
	for i, it := range out {
		if it.Reading.GetSequence() != uint64(i+1) {
			r.t.Fatalf("reading %d came out in place of %d", it.Reading.GetSequence(), i+1)
		}
		if !how(it) {
			r.t.Errorf("reading %d came out as %+v", i+1, it)
		}
	}
}

func accepted(it device.Item) bool {
	return it.Outcome == device.Deliver && it.Evaluation == telemetryv1.Evaluation_EVALUATION_ACCEPTED
}

func unevaluated(it device.Item) bool {
	return it.Outcome == device.Deliver && it.Evaluation == telemetryv1.Evaluation_EVALUATION_UNEVALUATED
}

func dropped(it device.Item) bool { return it.Outcome == device.Drop && it.Reason == "policy_away" }

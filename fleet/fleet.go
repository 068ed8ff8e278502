// Package fleet is simulated meters: each has a WebSocket of its own to the
// node's device door, replays real household power data on its own schedule,
// keeps what is not acknowledged and sends it again after a reconnect.
package fleet

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/fleet/internal/household"
	"github.com/xinghuo-edge/xinghuo/fleet/latency"
)

// power is the data that the meters replay; testdata/ATTRIBUTION.md says whose
// it is.
//
//go:embed testdata/household.txt
var power string

const (
	// drainLimit is how long a run waits at its end for acknowledgements.
	drainLimit = 5 * time.Second
	// maxDials bounds the handshakes under way at one time, so that a large
	// fleet does not overrun the door's accept queue.
	maxDials = 64
)

// ErrRefused says that the node refused every meter for good.
var ErrRefused = errors.New("the node refused every meter")

// Fleet is a number of meters. It runs once.
type Fleet struct {
	opts    Options
	encoder *household.Encoder
	meters  []*meter
	acks    latency.Histogram
	epoch   time.Time // set by Run before its meters start

	started atomic.Int64  // Unix ns; 0 before Run
	stopped atomic.Int64  // Unix ns when the last reading was due; 0 before
	ending  chan struct{} // closed when no more is to be measured
	dials   chan struct{} // holds maxDials
}

// New returns a fleet that is ready to run. Its error lists every fault of the
// options.
func New(opts Options) (*Fleet, error) {
	if faults := opts.Check(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.URL = strings.TrimSuffix(opts.URL, "/")
	rows, err := household.Parse(power)
	if err != nil {
		return nil, fmt.Errorf("read household data: %w", err)
	}
	encoder, err := household.NewEncoder(rows, opts.Subprotocol == JSON)
	if err != nil {
		return nil, err
	}
	f := &Fleet{
		opts: opts, encoder: encoder, meters: make([]*meter, opts.Meters),
		ending: make(chan struct{}), dials: make(chan struct{}, maxDials),
	}
	for i := range f.meters {
		f.meters[i] = &meter{
			fleet:   f,
			id:      fmt.Sprintf("%s-%04d", opts.Prefix, i+1),
			offset:  i * len(rows) / opts.Meters,
			session: rand.Uint64() | 1, // never 0, which the node refuses
		}
	}
	return f, nil
}

// Run connects the meters and sends until the context or the duration ends, or
// until the node has refused every meter; then it waits up to 5 s for what is
// not acknowledged. The report is complete also with an error, which is
// ErrRefused.
func (f *Fleet) Run(ctx context.Context) (Report, error) {
	epoch := time.Now()
	if !f.started.CompareAndSwap(0, epoch.UnixNano()) {
		return Report{}, errors.New("run fleet: it has run before")
	}
	f.epoch = epoch
	soft, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.opts.Duration > 0 {
		soft, cancel = context.WithTimeout(soft, f.opts.Duration)
		defer cancel()
	}
	hard, cancelHard := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelHard()

	var meters errgroup.Group
	for i, m := range f.meters {
		// Meters that start together send together: spread over one interval.
		m.pace = newPace(f.opts, epoch, float64(i)/float64(len(f.meters)))
		meters.Go(func() error { m.run(hard); return nil })
	}
	var ender errgroup.Group
	ender.Go(func() error {
		<-soft.Done()
		f.stopped.Store(time.Now().UnixNano())
		close(f.ending)
		limit := time.NewTimer(drainLimit)
		defer limit.Stop()
		select {
		case <-limit.C:
			cancelHard()
		case <-hard.Done():
		}
		return nil
	})
	_ = meters.Wait() // they report through their counters
	cancel()
	cancelHard()
	_ = ender.Wait()

	report := f.Snapshot()
	report.Lost, report.InFlight = report.InFlight, 0
	if report.Refused == len(f.meters) {
		return report, fmt.Errorf("run fleet: %w: %s", ErrRefused, report.Refusals[0])
	}
	return report, nil
}

// Snapshot returns how the run stands. It may be called at any time, also
// while Run runs.
func (f *Fleet) Snapshot() Report {
	r := Report{Meters: len(f.meters), Latency: percentiles(f.acks.Counts())}
	for _, m := range f.meters {
		m.addTo(&r)
	}
	if from := f.started.Load(); from != 0 {
		to := f.stopped.Load()
		if to == 0 {
			to = time.Now().UnixNano()
		}
		r.Seconds = time.Duration(to - from).Seconds()
	}
	if r.Seconds > 0 {
		r.SentPerSecond = float64(r.Sent) / r.Seconds
	}
	return r
}

// Latencies returns how long acknowledgements have taken so far, from handing
// a reading to the socket for the first time. Counts.Since tells those of an
// interval.
func (f *Fleet) Latencies() *latency.Counts { return f.acks.Counts() }

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/xinghuo-edge/xinghuo/fleet"
	ingestv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1"
	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"

	"github.com/xinghuo-edge/xinghuo/bench/naive"
	"github.com/xinghuo-edge/xinghuo/bench/proc"
)

// side is one of the two that are measured.
type side struct {
	name   string
	door   string
	stream string // where its readings end
	pid    int    // of the process that holds the devices' door
}

// load is what the meters do.
type load struct {
	meters int
	rate   float64 // of all meters together, readings a second; 0 is a closed loop
	batch  int
	window int // a meter's readings in flight; 0 leaves it to the door
}

// measured is what came of it.
type measured struct {
	perSecond float64 // acknowledged, over the measured time
	withheld  float64 // of what fell due in the measured time, 0 to 1
	p50, p99  float64 // ms, over the measured time
	rss       float64 // MB, the most of the door's process
	doorPSS   float64 // MB, the same with shared pages divided among those who share them
	pss       float64 // MB, the most of the node's processes together
	cpu       map[string]float64
}

const (
	mega       = 1e6 // memory is in MB of 10^6 bytes
	sampleTime = 250 * time.Millisecond
	connect    = 10 * time.Second
	countIdle  = 5 * time.Second
)

// run puts a load on a side: it warms up, measures, and checks that every
// acknowledged reading is in JetStream once and none was dropped.
func (s *system) run(ctx context.Context, to side, l load, warm, measure time.Duration) (_ measured, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure %s at %+v: %w", to.name, l, err)
		}
	}()
	stream, err := s.js.Stream(ctx, to.stream)
	if err != nil {
		return measured{}, fmt.Errorf("open stream %s: %w", to.stream, err)
	}
	if err := stream.Purge(ctx); err != nil {
		return measured{}, fmt.Errorf("purge stream %s: %w", to.stream, err)
	}
	before, err := s.dropped(ctx)
	if err != nil {
		return measured{}, err
	}
	opts := fleet.DefaultOptions()
	opts.URL, opts.Key, opts.Meters, opts.Batch, opts.Window = "ws://"+to.door, s.key, l.meters, l.batch, l.window
	opts.Rate = l.rate / float64(l.meters)
	f, err := fleet.New(opts)
	if err != nil {
		return measured{}, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	var final fleet.Report
	g.Go(func() error {
		var err error
		final, err = f.Run(running)
		return err
	})
	m, merr := s.watch(ctx, f, to, l, warm, measure)
	stop()
	if err := errors.Join(merr, g.Wait()); err != nil {
		return measured{}, err
	}
	after, err := s.dropped(ctx)
	if err != nil {
		return measured{}, err
	}
	if final.Lost > 0 || final.Reconnects > 0 || final.Faults > 0 || after > before {
		return measured{}, fmt.Errorf("not clean: dropped %d, faults %d: %v", after-before, final.Faults, final)
	}
	count, err := s.count(ctx, stream, final.Acked)
	if err != nil {
		return measured{}, err
	}
	if count != final.Acked {
		return measured{}, fmt.Errorf("%d readings are in JetStream, %d were acknowledged", count, final.Acked)
	}
	return m, nil
}

// watch waits for the meters, lets them warm up and measures.
func (s *system) watch(ctx context.Context, f *fleet.Fleet, to side, l load, warm, measure time.Duration) (measured, error) {
	if err := poll(ctx, connect, func(context.Context) error {
		if n := f.Snapshot().Connected; n < l.meters {
			return fmt.Errorf("only %d of %d meters are connected", n, l.meters)
		}
		return nil
	}); err != nil {
		return measured{}, err
	}
	if err := pause(ctx, warm); err != nil {
		return measured{}, err
	}
	m := measured{cpu: make(map[string]float64)}
	cpu, err := s.cpu()
	if err != nil {
		return m, err
	}
	from, acks, start := f.Snapshot(), f.Latencies(), time.Now()
	for left := measure; left > 0; left = measure - time.Since(start) {
		if err := pause(ctx, min(left, sampleTime)); err != nil {
			return m, err
		}
		if err := s.memory(&m, to.pid); err != nil {
			return m, err
		}
	}
	till, took := f.Snapshot(), time.Since(start)
	late := f.Latencies().Since(acks)
	used, err := s.cpu()
	if err != nil {
		return m, err
	}
	for name, t := range used {
		m.cpu[name] = (t - cpu[name]).Seconds() / took.Seconds()
	}
	m.perSecond = float64(till.Acked+till.Rejected-from.Acked-from.Rejected) / took.Seconds()
	if due := till.Sent + till.Withheld - from.Sent - from.Withheld; due > 0 {
		m.withheld = float64(till.Withheld-from.Withheld) / float64(due)
	}
	m.p50 = late.Percentile(50).Seconds() * 1e3
	m.p99 = late.Percentile(99).Seconds() * 1e3
	return m, nil
}

// memory takes one sample.
func (s *system) memory(m *measured, pid int) error {
	rss, err := proc.RSS(pid)
	if err != nil {
		return err
	}
	m.rss = max(m.rss, float64(rss)/mega)
	tree, err := proc.Tree(s.node.Process.Pid)
	if err != nil {
		return err
	}
	var sum int64
	for _, p := range tree {
		pss, err := proc.PSS(p.PID)
		if err != nil {
			return err
		}
		sum += pss
	}
	door, err := proc.PSS(pid)
	if err != nil {
		return err
	}
	m.doorPSS = max(m.doorPSS, float64(door)/mega)
	m.pss = max(m.pss, float64(sum)/mega)
	return nil
}

// cpu returns what each process has used so far, the meters' too.
func (s *system) cpu() (map[string]time.Duration, error) {
	used := make(map[string]time.Duration)
	for _, root := range []int{s.node.Process.Pid, s.peer.Process.Pid, self()} {
		tree, err := proc.Tree(root)
		if err != nil {
			return nil, err
		}
		for _, p := range tree {
			name := service(p.Args)
			if root == self() {
				if p.PID != root {
					continue // the node and the peer are our children
				}
				name = "meters"
			}
			t, err := proc.CPU(p.PID)
			if err != nil {
				return nil, err
			}
			used[name] += t
		}
	}
	return used, nil
}

// dropped is how many readings ingest has given up since its start.
func (s *system) dropped(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, connect)
	defer cancel()
	stats, err := s.ingest.GetStats(ctx, &ingestv1.GetStatsRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask ingest: %w", err)
	}
	var sum uint64
	for _, n := range stats.GetDropped() {
		sum += n
	}
	return sum, nil
}

// count reads a stream to its end and returns how many readings are in it. A
// reading that is in it twice, or out of order, is an error.
func (s *system) count(ctx context.Context, stream jetstream.Stream, want uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for stream: %w", err)
	}
	if want == 0 || info.State.Msgs == 0 {
		return 0, nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return 0, fmt.Errorf("consume stream: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return 0, fmt.Errorf("consume stream: %w", err)
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	var count uint64
	last := make(map[string]uint64)
	for range info.State.Msgs {
		msg, err := messages.Next(jetstream.NextMaxWait(countIdle))
		if err != nil {
			return count, fmt.Errorf("read stream after %d readings: %w", count, err)
		}
		var t telemetryv1.Telemetry
		if err := proto.Unmarshal(msg.Data(), &t); err != nil {
			return count, fmt.Errorf("read stream: %w", err)
		}
		for _, r := range t.GetReadings() {
			sequence := r.GetReading().GetSequence()
			if sequence <= last[t.GetDeviceId()] {
				return count, fmt.Errorf("reading %d of %s comes after %d", sequence, t.GetDeviceId(), last[t.GetDeviceId()])
			}
			last[t.GetDeviceId()] = sequence
			count++
		}
	}
	return count, nil
}

func (s *system) ours(pid int) side {
	return side{name: "ours", door: s.ws, stream: "XH_TEL_site_node", pid: pid}
}

func (s *system) theirs() side {
	return side{name: "naive", door: s.naive, stream: naive.Stream, pid: s.peer.Process.Pid}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xinghuo-edge/xinghuo/bench/proc"
	"github.com/xinghuo-edge/xinghuo/bench/result"
)

const (
	meters = 128
	// calm is 128 meters at 50 readings a second each.
	calm = 128 * 50
	// bar is five times the published reference.
	bar       = 31_000
	reference = 6210
	maxRSS    = 38 // MB, of ingest
	maxPSS    = 96 // MB, of all processes
	// inFlight is what a meter has in flight in a closed loop: enough that no
	// side waits for the meters, little enough that latency means something.
	inFlight = 64
	// keptUp is what of an offered rate may fall behind: a reading that a full
	// window held back was not taken.
	keptUp    = 0.001
	naivePeer = "naive Go"
)

// rungs is the ladder of offered rates, readings a second.
var rungs = []float64{calm, 12_800, 20_000, 25_600, bar, 36_000, 42_000, 48_000, 56_000, 64_000, 80_000}

// Options says how long to measure.
type Options struct {
	// Binary is the built xinghuo.
	Binary string
	// Rounds is how often each thing is measured; the median counts.
	Rounds int
	// Warm and Measure are the times of one measurement.
	Warm, Measure time.Duration
	// Ladder climbs the rates too, which takes longer.
	Ladder bool
}

// samples is what the rounds measured, by what and whose.
type samples map[string][]float64

func (s samples) add(what, whose string, v float64) {
	key := what + "/" + whose
	s[key] = append(s[key], v)
}

func (s samples) ours(what string) []float64   { return s[what+"/ours"] }
func (s samples) theirs(what string) []float64 { return s[what+"/naive"] }

// Run measures the node and says how it goes on progress.
func Run(ctx context.Context, o Options, progress io.Writer) (_ []result.Result, err error) {
	own, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the peer: %w", err)
	}
	if _, err := os.Stat(o.Binary); err != nil {
		return nil, fmt.Errorf("find the node (make build makes it): %w", err)
	}
	all := make(samples)
	if err := on(ctx, o, own, func(b *bench) error {
		b.progress, b.samples = progress, all
		for round := range o.Rounds {
			if err := b.round(ctx, round); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	// The same with a binary for each service, which is how containers run
	// them: what a service needs by itself.
	if err := on(ctx, o, own, func(b *bench) error {
		b.progress, b.samples = progress, all
		for round := range o.Rounds {
			m, err := b.measure(ctx, round, "own", b.ours, load{meters: meters, rate: calm, batch: 1})
			if err != nil {
				return err
			}
			all.add("own rss", b.ours.name, m.rss)
		}
		return nil
	}, "--binaries", filepath.Dir(o.Binary)); err != nil {
		return nil, err
	}
	return all.rows(o.Ladder), nil
}

// on starts a node, measures, and stops it.
func on(ctx context.Context, o Options, own string, measure func(*bench) error, flags ...string) (err error) {
	sys, err := start(ctx, o.Binary, own, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.close()) }()
	ingest, err := sys.pidOf("ingest")
	if err != nil {
		return err
	}
	return measure(&bench{sys: sys, opts: o, ours: sys.ours(ingest), theirs: sys.theirs()})
}

type bench struct {
	sys          *system
	opts         Options
	progress     io.Writer
	samples      samples
	ours, theirs side
}

// round measures everything once, ours and theirs in turns; who is first
// changes with each round.
func (b *bench) round(ctx context.Context, round int) error {
	sides := []side{b.ours, b.theirs}
	if round%2 == 1 {
		slices.Reverse(sides)
	}
	for _, step := range []struct {
		name string
		load load
	}{
		{"calm", load{meters: meters, rate: calm, batch: 1}}, // first: before the loops below have grown any heap
		{"closed", load{meters: meters, batch: 1, window: inFlight}},
		{"closed8", load{meters: meters, batch: 8, window: inFlight}},
		{"bar", load{meters: meters, rate: bar, batch: 1}},
	} {
		for _, to := range sides {
			m, err := b.measure(ctx, round, step.name, to, step.load)
			if err != nil {
				return err
			}
			b.samples.add(step.name+" rate", to.name, m.perSecond)
			b.samples.add(step.name+" p50", to.name, m.p50)
			b.samples.add(step.name+" p99", to.name, m.p99)
			b.samples.add(step.name+" rss", to.name, m.rss)
			b.samples.add(step.name+" door pss", to.name, m.doorPSS)
			b.samples.add(step.name+" pss", to.name, m.pss)
		}
	}
	if !b.opts.Ladder {
		return nil
	}
	for _, to := range sides {
		best := 0.0
		for _, rung := range rungs {
			m, err := b.measure(ctx, round, "ladder", to, load{meters: meters, rate: rung, batch: 1})
			if err != nil {
				return err
			}
			if m.withheld > keptUp || m.perSecond < rung*(1-10*keptUp) {
				break
			}
			best = rung
		}
		b.samples.add("ladder", to.name, best)
	}
	return nil
}

func (b *bench) measure(ctx context.Context, round int, name string, to side, l load) (measured, error) {
	m, err := b.sys.run(ctx, to, l, b.opts.Warm, b.opts.Measure)
	if err != nil {
		return m, err
	}
	var cpu []string
	for _, p := range slices.Sorted(maps.Keys(m.cpu)) {
		if m.cpu[p] >= 0.01 {
			cpu = append(cpu, fmt.Sprintf("%s %.2f", p, m.cpu[p]))
		}
	}
	_, err = fmt.Fprintf(b.progress, "round %d  %-8s %-6s %7.0f/s of %6.0f  withheld %5.1f%%  p50 %7.2f ms  p99 %7.2f ms  rss %5.1f MB  pss %5.1f MB  node pss %6.1f MB  cores: %s\n",
		round+1, name, to.name, m.perSecond, l.rate, 100*m.withheld, m.p50, m.p99, m.rss, m.doorPSS, m.pss, strings.Join(cpu, ", "))
	return m, err
}

func (s samples) rows(ladder bool) []result.Result {
	against := func(name, unit string, better result.Better, what string) result.Result {
		return result.New(name, unit, better, s.ours(what)).Against(naivePeer, s.theirs(what))
	}
	rows := []result.Result{
		against("readings end to end, one a frame, 128 meters, closed loop", "readings/s", result.Higher, "closed rate").Toward(bar),
		result.New("readings end to end, one a frame, 128 meters, closed loop", "readings/s", result.Higher, s.ours("closed rate")).
			Against("reference, published", []float64{reference}).Toward(bar),
		against("readings end to end, 8 a frame, 128 meters, closed loop", "readings/s", result.Higher, "closed8 rate"),
		against("readings taken of 31,000/s offered, one a frame", "readings/s", result.Higher, "bar rate"),
		result.New("ingest RSS, own binary, 128 meters at 50/s", "MB", result.Lower, s.ours("own rss")).
			Against(naivePeer, s.theirs("calm rss")).Toward(maxRSS),
		against("ingest RSS, one binary for all, 128 meters at 50/s", "MB", result.Lower, "calm rss").Toward(maxRSS),
		against("ingest PSS, 128 meters at 50/s", "MB", result.Lower, "calm door pss"),
		result.New("node PSS, all processes with NATS and etcd, 128 meters at 50/s", "MB", result.Lower, s.ours("calm pss")).Toward(maxPSS),
		against("device to ack, P50, 128 meters at 50/s", "ms", result.Lower, "calm p50"),
		against("device to ack, P99, 128 meters at 50/s", "ms", result.Lower, "calm p99"),
		against("device to ack, P50, 31,000/s offered", "ms", result.Lower, "bar p50"),
		against("device to ack, P99, 31,000/s offered", "ms", result.Lower, "bar p99"),
	}
	if ladder {
		rows = append(rows, against("highest offered rate kept up with (ladder), one a frame", "readings/s", result.Higher, "ladder").Toward(bar))
	}
	return rows
}

// pidOf finds a service's process below the node's.
func (s *system) pidOf(name string) (int, error) {
	tree, err := proc.Tree(s.node.Process.Pid)
	if err != nil {
		return 0, err
	}
	for _, p := range tree {
		if service(p.Args) == name {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("find process: no %s below the node", name)
}

func self() int { return os.Getpid() }

// Package journal measures pkg/journal beside tidwall/wal and etcd's wal, on
// the same disk in turns: 64 writers, each of which waits until its record is
// synced.
//
// The peers are measured as they come, a sync for each append, and once more
// behind a group commit, which they have not: the writers that wait are written
// and synced together. Only the second says how good a log is; the first says
// what its user gets.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xinghuo-edge/xinghuo/bench/result"
)

const (
	writers     = 64
	payloadSize = 200 // bytes; a reading of seven values
)

// Options says how long to measure.
type Options struct {
	// Dir is where the logs are written; the system's temporary folder if
	// empty. It should be on a disk that syncs.
	Dir string
	// Rounds is how often each log is measured; the median counts.
	Rounds int
	// Measure is the time of one measurement.
	Measure time.Duration
}

// log is one side. write returns when payload is on disk.
type log interface {
	write(ctx context.Context, payload []byte) error
	close() error
}

var sides = []struct {
	name string
	open func(dir string) (log, error)
}{
	{"ours", openOurs},
	{"tidwall/wal, grouped", func(dir string) (log, error) { return grouped(openTidwall(dir)) }},
	{"etcd wal, grouped", func(dir string) (log, error) { return grouped(openEtcd(dir)) }},
	{"tidwall/wal", func(dir string) (log, error) { return alone(openTidwall(dir)) }},
	{"etcd wal", func(dir string) (log, error) { return alone(openEtcd(dir)) }},
}

type samples struct{ rate, p50, p99, allocs []float64 }

// Run measures all sides and says how it goes on progress.
func Run(ctx context.Context, o Options, progress io.Writer) ([]result.Result, error) {
	got := make(map[string]*samples)
	for round := range o.Rounds {
		order := slices.Clone(sides)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, side := range order {
			m, err := measure(ctx, o, side.open)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, side.name, err)
			}
			s := got[side.name]
			if s == nil {
				s = &samples{}
				got[side.name] = s
			}
			s.rate, s.p50 = append(s.rate, m.rate), append(s.p50, m.p50)
			s.p99, s.allocs = append(s.p99, m.p99), append(s.allocs, m.allocs)
			if _, err := fmt.Fprintf(progress, "round %d  %-22s %8.0f appends/s  p50 %7.3f ms  p99 %7.3f ms  %6.3f allocations/append\n",
				round+1, side.name, m.rate, m.p50, m.p99, m.allocs); err != nil {
				return nil, err
			}
		}
	}
	ours := got["ours"]
	what := fmt.Sprintf("append and fsync, %d writers, %d B", writers, payloadSize)
	var rows []result.Result
	for _, side := range sides[1:] {
		theirs := got[side.name]
		row := result.New(what, "appends/s", result.Higher, ours.rate).Against(side.name, theirs.rate)
		rows = append(rows, row.Toward(*result.Median(theirs.rate)))
	}
	for _, side := range sides[1:3] {
		theirs := got[side.name]
		rows = append(rows,
			result.New(what+", P50", "ms", result.Lower, ours.p50).Against(side.name, theirs.p50),
			result.New(what+", P99", "ms", result.Lower, ours.p99).Against(side.name, theirs.p99))
	}
	return append(rows, result.New(what, "allocations/append", result.Lower, ours.allocs).
		Against("tidwall/wal, grouped", got["tidwall/wal, grouped"].allocs).Toward(0.01)), nil
}

type measured struct{ rate, p50, p99, allocs float64 }

func measure(ctx context.Context, o Options, open func(string) (log, error)) (m measured, err error) {
	dir, err := os.MkdirTemp(o.Dir, "xinghuo-journal-")
	if err != nil {
		return m, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := open(filepath.Join(dir, "log"))
	if err != nil {
		return m, fmt.Errorf("open log: %w", err)
	}
	defer func() { err = errors.Join(err, l.close()) }()
	// The first appends make files and buffers.
	if _, err := load(ctx, l, o.Measure/4); err != nil {
		return m, err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	took, err := load(ctx, l, o.Measure)
	if err != nil {
		return m, err
	}
	runtime.ReadMemStats(&after)
	if len(took) == 0 {
		return m, errors.New("nothing was appended")
	}
	slices.Sort(took)
	n := float64(len(took))
	ms := func(q float64) float64 { return float64(took[int(q*(n-1))]) / float64(time.Millisecond) }
	return measured{
		rate: n / o.Measure.Seconds(), p50: ms(0.5), p99: ms(0.99),
		allocs: float64(after.Mallocs-before.Mallocs) / n,
	}, nil
}

// load lets the writers append for a time and returns how long each took.
func load(ctx context.Context, l log, d time.Duration) ([]time.Duration, error) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	end := time.AfterFunc(d, func() { stop.Store(true) })
	defer end.Stop()
	took := make([][]time.Duration, writers)
	errs := make([]error, writers)
	for w := range writers {
		took[w] = make([]time.Duration, 0, 1<<16)
		wg.Go(func() {
			payload := make([]byte, payloadSize)
			for i := range payload {
				payload[i] = byte(w + i)
			}
			for !stop.Load() && ctx.Err() == nil {
				start := time.Now()
				if errs[w] = l.write(ctx, payload); errs[w] != nil {
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	return slices.Concat(took...), errors.Join(append(errs, ctx.Err())...)
}

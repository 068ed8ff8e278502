// Command bench measures an area of the project beside its peers, prints a
// table and writes bench/results/<area>.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xinghuo-edge/xinghuo/bench/journal"
	"github.com/xinghuo-edge/xinghuo/bench/naive"
	"github.com/xinghuo-edge/xinghuo/bench/node"
	"github.com/xinghuo-edge/xinghuo/bench/result"
)

// options are what every area gets.
type options struct {
	binary        string
	rounds        int
	warm, measure time.Duration
	ladder        bool
}

var areas = map[string]func(context.Context, options, io.Writer) ([]result.Result, error){
	"journal": func(ctx context.Context, o options, progress io.Writer) ([]result.Result, error) {
		return journal.Run(ctx, journal.Options{Rounds: o.rounds, Measure: o.measure}, progress)
	},
	"node": func(ctx context.Context, o options, progress io.Writer) ([]result.Result, error) {
		return node.Run(ctx, node.Options{Binary: o.binary, Rounds: o.rounds, Warm: o.warm, Measure: o.measure, Ladder: o.ladder}, progress)
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	// The peer is this program once more, so that it is built with the same
	// libraries.
	if len(args) > 0 && args[0] == "naive" {
		return naive.Run(ctx, args[1:], progress)
	}
	names := strings.Join(slices.Sorted(maps.Keys(areas)), ", ")
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	area := fs.String("area", "node", "what to measure: "+names)
	dir := fs.String("out", "bench/results", "`folder` of the results; empty writes none")
	fs.StringVar(&o.binary, "binary", "bin/xinghuo", "the built node")
	fs.IntVar(&o.rounds, "rounds", 5, "how often; the median counts")
	fs.DurationVar(&o.warm, "warm", 2*time.Second, "how long each load runs before it is measured")
	fs.DurationVar(&o.measure, "measure", 5*time.Second, "how long each load is measured")
	fs.BoolVar(&o.ladder, "ladder", true, "climb the offered rates too")
	if err := fs.Parse(args); err != nil {
		return err
	}
	measure, ok := areas[*area]
	if !ok {
		return fmt.Errorf("-area: must be one of %s, is %q", names, *area)
	}
	if o.rounds < 1 || o.warm <= 0 || o.measure <= 0 {
		return fmt.Errorf("-rounds, -warm, -measure: must be over 0, are %d, %v, %v", o.rounds, o.warm, o.measure)
	}
	rows, err := measure(ctx, o, progress)
	if err != nil {
		return fmt.Errorf("measure %s: %w", *area, err)
	}
	if err := result.Table(out, rows); err != nil {
		return fmt.Errorf("print results of %s: %w", *area, err)
	}
	if *dir == "" {
		return nil
	}
	return result.Write(*dir, *area, rows)
}

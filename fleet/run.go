package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// Run is the whole program: it runs a fleet as args say and writes how it goes
// to out. The error is a *settings.Error for bad arguments, settings.ErrDone
// after help, or why the run failed.
func Run(ctx context.Context, args []string, out io.Writer) error {
	opts := DefaultOptions()
	fs := flag.NewFlagSet("fleet", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // faults are reported together, by the caller
	fs.IntVar(&opts.Meters, "n", opts.Meters, "how many meters")
	fs.Float64Var(&opts.Rate, "rate", opts.Rate, "readings a meter and second; 0 sends as fast as the node acknowledges")
	fs.StringVar(&opts.URL, "url", opts.URL, "the node's device door")
	keyFile := fs.String("token-key", "", "`file` with the node's token key, from which the meters' tokens are made")
	fs.DurationVar(&opts.Duration, "for", 0, "how long to run; 0 runs until interrupted")
	fs.StringVar(&opts.Subprotocol, "subprotocol", opts.Subprotocol, "proto or json")
	fs.IntVar(&opts.Batch, "batch", opts.Batch, "readings a frame, 1 to 64")
	fs.StringVar(&opts.Prefix, "prefix", opts.Prefix, "start of the meters' ids, <prefix>-0001 and on")
	fs.IntVar(&opts.HotEvery, "hot-every", 0, "make every so-manieth reading of a meter hotter than 85 °C; 0 makes none")
	fs.IntVar(&opts.Window, "window", 0, "readings a meter has in flight at most; 0 leaves it to the node")
	fs.DurationVar(&opts.Tick, "tick", opts.Tick, "shortest time between two wake-ups of a meter")
	every := fs.Duration("report", time.Second, "how often to say how it goes; 0 does not")
	asJSON := fs.Bool("json", false, "write only the final report, as JSON")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprint(out, "Usage: fleet [flags]\n\nSimulated meters that replay household power data to a node.\n\n")
			fs.SetOutput(out)
			fs.PrintDefaults()
			return settings.ErrDone
		}
		return &settings.Error{Service: "fleet", Faults: []error{err}}
	}

	faults := opts.Check()
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("arguments: none are taken, found %q", fs.Args()))
	}
	if *every < 0 {
		faults = append(faults, fmt.Errorf("report: must not be negative, is %v", *every))
	}
	if *keyFile != "" {
		key, err := devicetoken.Load(*keyFile)
		if err != nil {
			faults = append(faults, fmt.Errorf("token-key: %w", err))
		}
		opts.Key = key
	}
	if len(faults) > 0 {
		return &settings.Error{Service: "fleet", Faults: faults}
	}
	f, err := New(opts)
	if err != nil {
		return err
	}
	if *asJSON {
		*every = 0
	}
	return f.tell(ctx, *every, *asJSON, out)
}

// tell runs the fleet and writes a line each interval and the report.
func (f *Fleet) tell(ctx context.Context, every time.Duration, asJSON bool, out io.Writer) error {
	finished := make(chan struct{})
	var teller errgroup.Group
	if every > 0 {
		teller.Go(func() error {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					if _, err := fmt.Fprintln(out, f.Snapshot()); err != nil {
						return fmt.Errorf("write progress: %w", err)
					}
				case <-finished:
					return nil
				}
			}
		})
	}
	report, err := f.Run(ctx)
	close(finished)
	err = errors.Join(err, teller.Wait())
	if asJSON {
		raw, jerr := json.MarshalIndent(report, "", "  ")
		if jerr != nil {
			return errors.Join(err, jerr)
		}
		_, werr := fmt.Fprintf(out, "%s\n", raw)
		return errors.Join(err, werr)
	}
	_, werr := fmt.Fprintln(out, "in all", report)
	for _, r := range report.Refusals {
		_, rerr := fmt.Fprintln(out, "refused", r)
		werr = errors.Join(werr, rerr)
	}
	return errors.Join(err, werr)
}

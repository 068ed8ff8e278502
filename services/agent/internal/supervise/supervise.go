// Package supervise keeps the node's services running: it starts them, adopts
// those that run already, starts them again when they end, and stops them in
// order.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// State is where a service is.
type State int

// The states of a service.
const (
	Starting      State = iota + 1 // its process runs and does not serve yet
	Serving                        // it serves
	BackingOff                     // it ended, and is started again after a pause
	CrashLooping                   // it ends shortly after each start
	Stopping                       // it is being stopped
	Misconfigured                  // it refused its configuration, and waits to be asked
)

// String returns the state's name in lower case.
func (s State) String() string {
	names := [...]string{"unknown", "starting", "serving", "backing_off", "crash_looping", "stopping", "misconfigured"}
	if s < 0 || int(s) >= len(names) {
		s = 0
	}
	return names[s]
}

// Status is a service at one moment.
type Status struct {
	Name     string
	State    State
	PID      int // 0 when it does not run
	Since    time.Time
	Restarts uint32
	LastExit string
	Backoff  time.Duration
	Adopted  bool
}

// Process is a running service.
type Process interface {
	PID() int
	// Done is closed when the process has ended.
	Done() <-chan struct{}
	// Exit says how it ended; call it after Done.
	Exit() Exit
	// Terminate asks it to end in good order, Kill ends it.
	Terminate() error
	Kill() error
	// Release stops watching a process that is to live on.
	Release()
}

// Exit says how a process ended.
type Exit struct {
	Code   int // -1 when it is not known or a signal ended it
	Text   string
	Output string // the last lines that it wrote
}

// Launcher brings services' processes to life.
type Launcher interface {
	Start(service string) (Process, error)
	// Adopt takes over the process of pid.
	Adopt(service string, pid int) (Process, error)
}

// Prober asks services how they are. Its calls end with their context.
type Prober interface {
	// PID returns the process that serves, and an error at once when none does.
	PID(ctx context.Context, service string) (int, error)
	// Serving returns nil when the service's health is SERVING.
	Serving(ctx context.Context, service string) error
}

// Options says what to supervise.
type Options struct {
	Services []string // in the order of their start
	// Grace is how long a service may take to stop before it is killed.
	Grace time.Duration
	// Leave lets the services run on when Run ends.
	Leave bool
}

// Supervisor supervises. Make it with New.
type Supervisor struct {
	opts  Options
	log   *slog.Logger
	units []*unit
}

// New returns a supervisor; Run starts it.
func New(o Options, launcher Launcher, prober Prober, log *slog.Logger) *Supervisor {
	s := &Supervisor{opts: o, log: log}
	for _, name := range o.Services {
		s.units = append(s.units, newUnit(name, o, launcher, prober, log.With("supervised", name)))
	}
	return s
}

// Run supervises until ctx ends, then stops the services one after the other,
// the last started first: what takes readings in stops before what they are
// handed to.
func (s *Supervisor) Run(ctx context.Context) error {
	type running struct {
		stop context.CancelFunc
		done chan struct{}
	}
	g := new(errgroup.Group)
	units := make([]running, len(s.units))
	for i, u := range s.units {
		uctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		units[i] = running{stop, make(chan struct{})}
		g.Go(func() error {
			defer close(units[i].done)
			u.run(uctx)
			return nil
		})
	}
	<-ctx.Done()
	for _, u := range slices.Backward(units) {
		u.stop()
		<-u.done
	}
	return g.Wait()
}

// List returns every service, ordered by name.
func (s *Supervisor) List() []Status {
	all := make([]Status, 0, len(s.units))
	for _, u := range s.units {
		all = append(all, u.snapshot())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Restart stops a service in good order, starts it again and returns when it
// serves. It returns fault.ErrNotFound, fault.ErrConflict while the service is
// being restarted already, and the context's error.
func (s *Supervisor) Restart(ctx context.Context, name string) (Status, error) {
	i := slices.IndexFunc(s.units, func(u *unit) bool { return u.name == name })
	if i < 0 {
		return Status{}, fmt.Errorf("%w: service %q", fault.ErrNotFound, name)
	}
	return s.units[i].askRestart(ctx)
}

var errNotRunning = errors.New("the supervisor has stopped")

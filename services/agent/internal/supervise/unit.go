package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	// A service that starts is asked often, so that who waits for it is told
	// soon; one that serves is asked now and then.
	startProbe = 100 * time.Millisecond
	serveProbe = time.Second
	// probeLimit bounds one question.
	probeLimit = time.Second
	// killMargin is what a service gets beyond its own grace.
	killMargin = 2 * time.Second
	// exitBadConfig is pkg/node's exit code for a configuration that is refused.
	exitBadConfig = 2
)

// unit supervises one service. Only run changes it.
type unit struct {
	name     string
	opts     Options
	launcher Launcher
	prober   Prober
	log      *slog.Logger

	restart chan struct{} // capacity 1: a restart that was asked for
	backoff backoff

	mu      sync.Mutex // guards what follows
	status  Status
	asked   bool // a restart is under way
	served  bool // in this life
	lives   int
	stopped bool
	changed chan struct{} // closed and replaced at each change
}

func newUnit(name string, o Options, l Launcher, p Prober, log *slog.Logger) *unit {
	return &unit{
		name: name, opts: o, launcher: l, prober: p, log: log,
		restart: make(chan struct{}, 1), changed: make(chan struct{}),
		status: Status{Name: name, State: Starting},
	}
}

func (u *unit) snapshot() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *unit) set(change func(*Status)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.update(change)
}

// update is set for who holds mu.
func (u *unit) update(change func(*Status)) {
	change(&u.status)
	close(u.changed)
	u.changed = make(chan struct{})
}

// run is the life of the unit: lives of its process, and the pauses between.
func (u *unit) run(ctx context.Context) {
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.stopped = true
		u.update(func(s *Status) { s.PID = 0; s.State = Stopping })
	}()
	for first := true; ctx.Err() == nil; first = false {
		start := time.Now()
		var exit Exit
		asked := false
		p, adopted, err := u.acquire(ctx)
		if ctx.Err() != nil && err != nil {
			return
		}
		if err != nil {
			exit = Exit{Code: -1, Text: err.Error()}
		} else {
			u.mu.Lock()
			u.lives++
			u.served = false
			u.update(func(s *Status) {
				s.State, s.PID, s.Since, s.Adopted, s.Backoff = Starting, p.PID(), time.Now(), adopted, 0
				if !first && !adopted {
					s.Restarts++
				}
			})
			u.mu.Unlock()
			u.log.InfoContext(ctx, "service process runs", "pid", p.PID(), "adopted", adopted)
			if exit, asked = u.attend(ctx, p); ctx.Err() != nil {
				return
			}
		}
		u.pause(ctx, exit, asked, time.Since(start))
	}
}

// acquire adopts the process that serves already, or starts one.
func (u *unit) acquire(ctx context.Context) (p Process, adopted bool, err error) {
	if p := u.adopt(ctx); p != nil {
		return p, true, nil
	}
	p, err = u.launcher.Start(u.name)
	return p, false, err
}

func (u *unit) adopt(ctx context.Context) Process {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	pid, err := u.prober.PID(ctx, u.name)
	if err != nil {
		return nil // nobody serves: the usual case
	}
	p, err := u.launcher.Adopt(u.name, pid)
	if err != nil {
		u.log.WarnContext(ctx, "adoption failed", "pid", pid, "err", err)
		return nil
	}
	// The process may have ended and its id gone to another between the two
	// steps; now that it is held, the same answer means the same process.
	if again, err := u.prober.PID(ctx, u.name); err != nil || again != pid {
		p.Release()
		return nil
	}
	return p
}

// attend watches a process until it ends, by itself or because it is to.
func (u *unit) attend(ctx context.Context, p Process) (exit Exit, asked bool) {
	health := make(chan bool)
	probing, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { u.probe(probing, health) })
	defer wg.Wait()
	defer cancel()
	for {
		select {
		case <-p.Done():
			return p.Exit(), false
		case serving := <-health:
			u.healthy(ctx, serving)
		case <-u.restart:
			return u.stop(ctx, p), true
		case <-ctx.Done():
			if u.opts.Leave {
				p.Release()
				return Exit{}, false
			}
			return u.stop(context.WithoutCancel(ctx), p), false
		}
	}
}

// probe asks the service for its health until ctx ends.
func (u *unit) probe(ctx context.Context, health chan<- bool) {
	for {
		pctx, cancel := context.WithTimeout(ctx, probeLimit)
		err := u.prober.Serving(pctx, u.name)
		cancel()
		select {
		case health <- err == nil:
		case <-ctx.Done():
			return
		}
		wait := startProbe
		if err == nil {
			wait = serveProbe
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (u *unit) healthy(ctx context.Context, serving bool) {
	state := Starting
	if serving {
		state = Serving
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.status.State == state {
		return
	}
	u.served = u.served || serving
	u.update(func(s *Status) { s.State = state })
	u.log.InfoContext(ctx, "service health changed", "state", state.String())
}

// stop ends a process: in good order, and by force after its grace.
func (u *unit) stop(ctx context.Context, p Process) Exit {
	u.set(func(s *Status) { s.State = Stopping })
	u.log.InfoContext(ctx, "stopping service", "pid", p.PID())
	if err := p.Terminate(); err != nil {
		u.log.WarnContext(ctx, "terminate failed", "pid", p.PID(), "err", err)
	}
	grace := time.NewTimer(u.opts.Grace + killMargin)
	defer grace.Stop()
	select {
	case <-p.Done():
		return p.Exit()
	case <-grace.C:
	}
	u.log.WarnContext(ctx, "service did not stop in time; killing it", "pid", p.PID())
	if err := p.Kill(); err != nil {
		u.log.WarnContext(ctx, "kill failed", "pid", p.PID(), "err", err)
	}
	// A killed process ends as soon as the kernel lets go of it. One in an
	// uninterruptible wait may not; the node's end does not wait for it.
	stuck := time.NewTimer(killMargin)
	defer stuck.Stop()
	select {
	case <-p.Done():
		return p.Exit()
	case <-stuck.C:
		p.Release()
		return Exit{Code: -1, Text: "killed, and still there"}
	}
}

// pause waits as long as the last life's end asks for.
func (u *unit) pause(ctx context.Context, exit Exit, asked bool, life time.Duration) {
	u.mu.Lock()
	served := u.served
	u.mu.Unlock()
	text := exit.Text
	if exit.Code > 0 && exit.Output != "" {
		text += ": " + exit.Output
	}
	if asked {
		u.backoff.reset()
		u.set(func(s *Status) { s.PID, s.LastExit, s.State = 0, text, Starting })
		return
	}
	wait, looping := u.backoff.after(time.Now(), life)
	state := BackingOff
	switch {
	case refusedConfig(exit, served):
		state, wait = Misconfigured, 0
	case looping:
		state = CrashLooping
	}
	u.set(func(s *Status) { s.PID, s.LastExit, s.State, s.Backoff = 0, text, state, wait })
	u.log.WarnContext(ctx, "service ended", "exit", text, "life", life, "state", state.String(), "pause", wait)
	var again <-chan time.Time
	if state != Misconfigured {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-again:
	case <-u.restart:
		u.backoff.reset()
	case <-ctx.Done():
	}
}

// refusedConfig tells a refused configuration from a crash: Go's runtime ends a
// program that panics with the same exit code 2.
func refusedConfig(exit Exit, served bool) bool {
	if exit.Code != exitBadConfig || served {
		return false
	}
	for line := range strings.Lines(exit.Output) {
		for _, crash := range []string{"panic: ", "fatal error: ", "goroutine ", "\t", "created by "} {
			if strings.HasPrefix(line, crash) {
				return false
			}
		}
	}
	return true
}

func (u *unit) askRestart(ctx context.Context) (Status, error) {
	u.mu.Lock()
	if u.stopped {
		u.mu.Unlock()
		return Status{}, fmt.Errorf("restart %s: %w: %w", u.name, fault.ErrUnavailable, errNotRunning)
	}
	if u.asked {
		u.mu.Unlock()
		return Status{}, fmt.Errorf("restart %s: %w: it is being restarted already", u.name, fault.ErrConflict)
	}
	u.asked = true
	before := u.lives
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.asked = false
	}()
	select {
	case u.restart <- struct{}{}:
	default: // one is on its way
	}
	for {
		u.mu.Lock()
		now, lives, changed, stopped := u.status, u.lives, u.changed, u.stopped
		u.mu.Unlock()
		switch {
		case stopped:
			return now, fmt.Errorf("restart %s: %w: %w", u.name, fault.ErrUnavailable, errNotRunning)
		case now.State == Serving && lives > before:
			return now, nil
		case now.State == Misconfigured && lives > before:
			return now, fmt.Errorf("restart %s: %w: %s", u.name, fault.ErrPrecondition, now.LastExit)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, fmt.Errorf("restart %s: it is %s: %w", u.name, now.State, ctx.Err())
		}
	}
}

// Package guard keeps one network interface guarded: it attaches or adopts at
// the start, looks after the attachment while the service runs, and says what
// is wrong while there is none.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	// component is the part that GetInfo shows as degraded.
	component = "xdp"
	// lookAfter is how often the attachment is checked, or tried again. What
	// mends it is done by people or by a driver that loads: slowly.
	lookAfter = 10 * time.Second
	// maxInterface is IFNAMSIZ without its NUL (netdevice(7)).
	maxInterface = 15
)

// Reporter is told how the guard is; node.Server is one.
type Reporter interface {
	// Degrade takes the reason why a part does not work; empty when it does.
	Degrade(component, reason string)
	SetFact(name, value string)
}

// Guard holds the interface that is guarded now, if any. Its methods may be
// called at the same time.
type Guard struct {
	kernel Kernel
	opts   firewall.Options // but for the interface
	report Reporter
	log    *slog.Logger

	mu     sync.RWMutex // guards what follows; written by what attaches or lets go
	closed bool
	// wanted is the interface to guard, empty for none; while handle is not
	// nil, the one that it guards.
	wanted string
	// released says that Detach was called: what is not wanted then is not
	// looked for among the pins either.
	released bool
	handle   Handle
	reason   string // why handle is nil
}

// New returns a Guard that wants opts.Interface guarded. Start attaches.
func New(kernel Kernel, opts firewall.Options, report Reporter, log *slog.Logger) *Guard {
	wanted := opts.Interface
	opts.Interface = ""
	return &Guard{kernel: kernel, opts: opts, report: report, log: log, wanted: wanted, reason: "not started"}
}

// CheckInterface refuses what cannot be the name of an interface (dev_valid_name
// in the kernel). Errors: fault.ErrInvalid.
func CheckInterface(name string) error {
	if name == "" || len(name) > maxInterface {
		return fault.Invalid("interface", "must be 1 to %d bytes, is %d", maxInterface, len(name))
	}
	if name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return fault.Invalid("interface", "must have no slash, colon or space, is %q", name)
	}
	return nil
}

// Start attaches to the interface that is wanted. Where none is, it takes over
// what an earlier Attach left guarded. What fails is reported, and tried again
// by Keep.
func (g *Guard) Start(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retry(ctx)
}

// Keep looks after the attachment until ctx ends. It returns nil.
func (g *Guard) Keep(ctx context.Context) error {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.mu.Lock()
			g.retry(ctx)
			g.mu.Unlock()
		}
	}
}

// retry brings about what is wanted, and reports how that went. Needs mu.
func (g *Guard) retry(ctx context.Context) {
	if g.closed {
		return
	}
	if g.handle != nil {
		err := g.handle.Check()
		if err == nil {
			return
		}
		g.log.WarnContext(ctx, "interface is guarded no longer", "interface", g.wanted, "err", err)
		g.letGo(ctx)
	}
	if g.wanted == "" {
		if g.released {
			return
		}
		iface, _, err := g.kernel.Pinned(g.opts.PinDir)
		if err != nil {
			g.lost(ctx, fmt.Sprintf("no interface is set, and what is pinned cannot be taken over: %v; set `interface`, or call Detach and Attach", err))
			return
		}
		if iface == "" {
			g.lost(ctx, "no interface is set: set `interface` in the settings, or call Attach")
			return
		}
		g.wanted = iface
	}
	if err := g.open(ctx, g.wanted); err != nil {
		g.lost(ctx, fmt.Sprintf("%v; it is tried again every %v", err, lookAfter))
	}
}

// letGo closes the handle. Needs mu and a handle.
func (g *Guard) letGo(ctx context.Context) {
	if err := g.handle.Close(); err != nil {
		g.log.WarnContext(ctx, "handle not closed", "interface", g.wanted, "err", err)
	}
	g.handle = nil
}

// open guards iface and reports that. Needs mu and no handle.
func (g *Guard) open(ctx context.Context, iface string) error {
	opts := g.opts
	opts.Interface = iface
	h, err := g.kernel.Open(opts)
	if err != nil {
		return err
	}
	verdict, err := h.Default()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	g.handle, g.wanted, g.released, g.reason = h, iface, false, ""
	g.report.Degrade(component, "")
	g.report.SetFact("interface", iface)
	g.report.SetFact("mode", h.Mode())
	g.report.SetFact("mode_reason", h.ModeReason())
	g.report.SetFact("adopted", strconv.FormatBool(h.Adopted()))
	g.report.SetFact("default", verdict.String())
	g.log.InfoContext(ctx, "interface is guarded", "interface", iface, "mode", h.Mode(), "mode_reason", h.ModeReason(), "adopted", h.Adopted())
	return nil
}

// lost reports that nothing is guarded. Needs mu and no handle.
func (g *Guard) lost(ctx context.Context, reason string) {
	if g.reason == reason {
		return // a line every ten seconds tells nobody more
	}
	g.reason = reason
	g.report.Degrade(component, reason)
	g.report.SetFact("mode", "none")
	for _, fact := range []string{"interface", "mode_reason", "adopted", "default"} {
		g.report.SetFact(fact, "")
	}
	g.log.WarnContext(ctx, "no interface is guarded", "reason", reason)
}

// Attach guards an interface and returns the mode, "native" or "generic". It
// holds until Detach, also for the next Start that has no interface set.
//
// Errors: fault.ErrInvalid, ErrNotFound (no such interface), ErrPrecondition
// (the machine cannot; another interface is guarded).
func (g *Guard) Attach(ctx context.Context, iface string) (mode string, err error) {
	if err := CheckInterface(iface); err != nil {
		return "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return "", errStopped
	}
	if g.handle != nil {
		switch err := g.handle.Check(); {
		case err == nil && g.wanted == iface:
			return g.handle.Mode(), nil
		case err == nil:
			return "", fmt.Errorf("%w: attach to %s: %s is guarded; call Detach first", fault.ErrPrecondition, iface, g.wanted)
		}
		g.letGo(ctx)
	}
	if err := g.open(ctx, iface); err != nil {
		if g.reason == "" { // the handle that was let go
			g.lost(ctx, fmt.Sprintf("%s is gone; attaching to %s: %v", g.wanted, iface, err))
		}
		return "", kinded(err)
	}
	return g.handle.Mode(), nil
}

// Detach ends enforcement, also that of a guard that is pinned but could not be
// adopted. Nothing is attached again until Attach or the next start.
//
// Errors: fault.ErrPrecondition when there is nothing to detach, or the process
// has no right to.
func (g *Guard) Detach(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errStopped
	}
	if err := g.detach(); err != nil {
		if errors.Is(err, errNothing) {
			return g.nothing()
		}
		g.wanted, g.released = "", true
		g.lost(ctx, fmt.Sprintf("detach did not finish: %v; call Detach again", err))
		return kinded(err)
	}
	g.wanted, g.released = "", true
	g.lost(ctx, "detached on request: call Attach, or start the service again with `interface` set")
	return nil
}

var errNothing = errors.New("nothing is attached")

func (g *Guard) detach() error {
	if h := g.handle; h != nil {
		g.handle = nil
		return h.Detach()
	}
	_, found, err := g.kernel.Pinned(g.opts.PinDir)
	if !found {
		return errors.Join(err, errNothing)
	}
	// What Pinned could not make out, Remove may still remove.
	return g.kernel.Remove(g.opts.PinDir)
}

// nothing is the answer to calls that need what is attached. Needs mu.
func (g *Guard) nothing() error {
	return fmt.Errorf("%w: nothing is attached: %s", fault.ErrPrecondition, g.reason)
}

// Close lets go of the interface; the kernel goes on enforcing. Calls that come
// later fail.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.handle == nil {
		return nil
	}
	err := g.handle.Close()
	g.handle, g.reason = nil, "the service is stopping"
	return err
}

var errStopped = fmt.Errorf("%w: the service is stopping", fault.ErrUnavailable)

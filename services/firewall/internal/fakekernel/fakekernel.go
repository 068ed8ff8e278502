// Package fakekernel is a kernel with state for tests: it keeps pins, links and
// rules as package bpf/firewall and the kernel do, and has no packets. Tests
// only.
package fakekernel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/guard"
)

// Kernel implements guard.Kernel for one pin directory.
type Kernel struct {
	mu      sync.Mutex // guards what follows
	ifaces  map[string]bool
	broken  error
	pins    *pins
	handles int
}

// pins outlive the handles.
type pins struct {
	iface   string // that the link is on; empty when it has gone
	mode    string
	max     uint32
	rules   map[netip.Prefix]firewall.Entry
	verdict firewall.Verdict
	stats   firewall.Stats
}

// New returns a kernel with these interfaces.
func New(ifaces ...string) *Kernel {
	k := &Kernel{ifaces: make(map[string]bool)}
	for _, name := range ifaces {
		k.ifaces[name] = true
	}
	return k
}

// Plug adds an interface.
func (k *Kernel) Plug(iface string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ifaces[iface] = true
}

// Unplug takes an interface away, and its link with it.
func (k *Kernel) Unplug(iface string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.ifaces, iface)
	if k.pins != nil && k.pins.iface == iface {
		k.pins.iface = ""
	}
}

// Break makes Open and Remove fail with err; nil mends them.
func (k *Kernel) Break(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = err
}

// Count adds to the counters of what is pinned.
func (k *Kernel) Count(s firewall.Stats) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pins.stats = s
}

// Enforced returns the interface whose packets are judged, if any.
func (k *Kernel) Enforced() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pins == nil {
		return ""
	}
	return k.pins.iface
}

// Handles returns how many handles are open.
func (k *Kernel) Handles() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.handles
}

// Open implements guard.Kernel.
func (k *Kernel) Open(opts firewall.Options) (guard.Handle, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ifaces[opts.Interface] {
		return nil, fmt.Errorf("open firewall: %w: %s", firewall.ErrNoInterface, opts.Interface)
	}
	if k.broken != nil {
		return nil, fmt.Errorf("open firewall on %s: %w", opts.Interface, k.broken)
	}
	adopted := k.pins != nil && k.pins.iface != ""
	switch {
	case adopted && k.pins.iface != opts.Interface:
		return nil, fmt.Errorf("open firewall on %s: %w: %s is guarded; detach that first", opts.Interface, firewall.ErrConflict, k.pins.iface)
	case k.pins != nil && k.pins.max != opts.MaxEntries:
		return nil, fmt.Errorf("open firewall on %s: %w: another max entries; detach first", opts.Interface, firewall.ErrConflict)
	case k.pins == nil:
		k.pins = &pins{max: opts.MaxEntries, rules: make(map[netip.Prefix]firewall.Entry), verdict: opts.Default}
	}
	if !adopted {
		k.pins.iface, k.pins.mode = opts.Interface, "native"
		if opts.Mode == firewall.ModeGeneric {
			k.pins.mode = "generic"
		}
	}
	k.handles++
	return &handle{kernel: k, pins: k.pins, adopted: adopted}, nil
}

// Pinned implements guard.Kernel.
func (k *Kernel) Pinned(string) (string, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pins == nil {
		return "", false, nil
	}
	return k.pins.iface, true, nil
}

// Remove implements guard.Kernel.
func (k *Kernel) Remove(dir string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.remove(dir)
}

func (k *Kernel) remove(dir string) error {
	if k.broken != nil {
		return fmt.Errorf("remove firewall in %s: %w", dir, k.broken)
	}
	k.pins = nil
	return nil
}

// handle implements guard.Handle; the kernel's lock guards it.
type handle struct {
	kernel  *Kernel
	pins    *pins
	adopted bool
	closed  bool
}

// locked runs fn on a handle that is open.
func (h *handle) locked(fn func() error) error {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	if h.closed {
		return fmt.Errorf("fake: %w", firewall.ErrClosed)
	}
	return fn()
}

func (h *handle) Mode() string       { return h.pins.mode }
func (h *handle) ModeReason() string { return "the fake says so" }
func (h *handle) Adopted() bool      { return h.adopted }

func (h *handle) Check() error {
	return h.locked(func() error {
		if h.kernel.pins != h.pins || h.pins.iface == "" {
			return fmt.Errorf("check firewall: %w: it has gone", firewall.ErrNoInterface)
		}
		return nil
	})
}

func (h *handle) Put(p netip.Prefix, v firewall.Verdict) error {
	return h.locked(func() error {
		family := 0
		for q := range h.pins.rules {
			if q.Addr().Is4() == p.Addr().Is4() {
				family++
			}
		}
		if _, found := h.pins.rules[p]; !found && family >= int(h.pins.max) {
			return fmt.Errorf("put rule %v: %w: %d of %d", p, firewall.ErrFull, family, h.pins.max)
		}
		h.pins.rules[p] = firewall.Entry{Prefix: p, Verdict: v}
		return nil
	})
}

func (h *handle) Delete(p netip.Prefix) error {
	return h.locked(func() error {
		if _, found := h.pins.rules[p]; !found {
			return fmt.Errorf("delete rule: %w: %v", firewall.ErrNotFound, p)
		}
		delete(h.pins.rules, p)
		return nil
	})
}

func (h *handle) List() (all []firewall.Entry, err error) {
	err = h.locked(func() error {
		all = slices.SortedFunc(maps.Values(h.pins.rules), func(a, b firewall.Entry) int { return a.Prefix.Compare(b.Prefix) })
		return nil
	})
	return all, err
}

func (h *handle) Len() (n int, err error) {
	err = h.locked(func() error { n = len(h.pins.rules); return nil })
	return n, err
}

func (h *handle) SetDefault(v firewall.Verdict) error {
	return h.locked(func() error { h.pins.verdict = v; return nil })
}

func (h *handle) Default() (v firewall.Verdict, err error) {
	err = h.locked(func() error { v = h.pins.verdict; return nil })
	return v, err
}

func (h *handle) Stats() (s firewall.Stats, err error) {
	err = h.locked(func() error { s = h.pins.stats; return nil })
	return s, err
}

func (h *handle) close() {
	if !h.closed {
		h.closed = true
		h.kernel.handles--
	}
}

func (h *handle) Close() error {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	h.close()
	return nil
}

func (h *handle) Detach() error {
	return h.locked(func() error {
		defer h.close()
		return h.kernel.remove("pins")
	})
}

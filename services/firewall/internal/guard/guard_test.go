package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/fakekernel"
	"github.com/xinghuo-edge/xinghuo/services/firewall/internal/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// info keeps what a guard reports, as GetInfo would show it.
type info struct {
	mu    sync.Mutex
	why   string
	facts map[string]string
}

func (i *info) Degrade(_, reason string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.why = reason
}

func (i *info) SetFact(name, value string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.facts == nil {
		i.facts = make(map[string]string)
	}
	i.facts[name] = value
}

func (i *info) degraded() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.why
}

func (i *info) fact(name string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.facts)[name]
}

func start(t *testing.T, k *fakekernel.Kernel, opts firewall.Options) (*guard.Guard, *info) {
	t.Helper()
	if opts.Default == 0 {
		opts.Default = firewall.Allow
	}
	opts.MaxEntries = 4
	i := &info{}
	g := guard.New(k, opts, i, slog.New(slog.DiscardHandler))
	g.Start(t.Context())
	t.Cleanup(func() {
		if err := g.Close(); err != nil || k.Handles() != 0 {
			t.Errorf("Close() = %v with %d handles open, want nil with none", err, k.Handles())
		}
	})
	return g, i
}

func TestStart(t *testing.T) {
	unsupported := fmt.Errorf("load: %w: the process needs CAP_BPF", firewall.ErrNotSupported)
	tests := []struct {
		name     string
		before   func(k *fakekernel.Kernel)
		iface    string
		enforced string
		degraded string
		adopted  string
	}{
		{"attaches", nil, "eth0", "eth0", "", "false"},
		{"none set", nil, "", "", "set `interface`", ""},
		{"no such interface", nil, "eth9", "", "eth9; it is tried again", ""},
		{"no rights", func(k *fakekernel.Kernel) { k.Break(unsupported) }, "eth0", "", "needs CAP_BPF; it is tried again every 10s", ""},
		{"adopts", guarded("eth0"), "eth0", "eth0", "", "true"},
		{"adopts what is pinned when none is set", guarded("eth0"), "", "eth0", "", "true"},
		{"another is guarded", guarded("eth1"), "eth0", "eth1", "detach that first", ""},
		{"pins of an interface that is gone", func(k *fakekernel.Kernel) {
			guarded("eth0")(k)
			k.Unplug("eth0")
		}, "", "", "set `interface`", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := fakekernel.New("eth0", "eth1")
			if tt.before != nil {
				tt.before(k)
			}
			_, i := start(t, k, firewall.Options{Interface: tt.iface})
			if got := k.Enforced(); got != tt.enforced {
				t.Errorf("enforced on %q, want %q", got, tt.enforced)
			}
			if got := i.degraded(); !strings.Contains(got, tt.degraded) || (got == "") != (tt.degraded == "") {
				t.Errorf("degraded = %q, want %q in it", got, tt.degraded)
			}
			if got := i.fact("adopted"); got != tt.adopted {
				t.Errorf("fact adopted = %q, want %q", got, tt.adopted)
			}
		})
	}
}

// guarded leaves pins behind, as an earlier process does.
func guarded(iface string) func(*fakekernel.Kernel) {
	return func(k *fakekernel.Kernel) {
		h, err := k.Open(firewall.Options{Interface: iface, MaxEntries: 4, Default: firewall.Deny})
		if err != nil {
			panic(err)
		}
		_ = h.Close()
	}
}

// keep runs the loop for as long as the test's bubble lasts.
func keep(t *testing.T, g *guard.Guard) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Keep(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Keep() = %v, want nil", err)
		}
	})
}

// pass lets the loop look once.
func pass(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(10*time.Second + time.Millisecond):
	case <-t.Context().Done():
	}
	synctest.Wait()
}

func TestInterfaceComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fakekernel.New()
		g, i := start(t, k, firewall.Options{Interface: "eth0", Mode: firewall.ModeGeneric})
		keep(t, g)
		if i.degraded() == "" || i.fact("mode") != "none" {
			t.Errorf("without the interface: degraded = %q, mode %q, want a reason and none", i.degraded(), i.fact("mode"))
		}
		k.Plug("eth0")
		pass(t)
		if i.degraded() != "" || i.fact("mode") != "generic" || k.Enforced() != "eth0" {
			t.Errorf("with the interface: degraded = %q, mode %q, enforced on %q", i.degraded(), i.fact("mode"), k.Enforced())
		}
		if err := g.Put(t.Context(), "10.0.0.0/8", firewall.Deny); err != nil {
			t.Fatal(err)
		}

		k.Unplug("eth0")
		pass(t)
		if !strings.Contains(i.degraded(), "eth0") || k.Handles() != 0 {
			t.Errorf("interface gone: degraded = %q, %d handles, want a reason and none", i.degraded(), k.Handles())
		}
		if err := g.Put(t.Context(), "10.0.0.0/8", firewall.Allow); !errors.Is(err, fault.ErrPrecondition) {
			t.Errorf("Put without the interface = %v, want %v", err, fault.ErrPrecondition)
		}
		k.Plug("eth0")
		pass(t)
		if entries, _, err := g.List(0, ""); err != nil || len(entries) != 1 || i.degraded() != "" {
			t.Errorf("interface back: List() = %v, %v, degraded %q, want the entry", entries, err, i.degraded())
		}
	})
}

func TestRightsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fakekernel.New("eth0")
		k.Break(firewall.ErrNotSupported)
		g, i := start(t, k, firewall.Options{Interface: "eth0"})
		keep(t, g)
		pass(t)
		if i.degraded() == "" {
			t.Errorf("degraded = nothing, want a reason")
		}
		k.Break(nil)
		pass(t)
		if i.degraded() != "" || k.Enforced() != "eth0" {
			t.Errorf("degraded = %q, enforced on %q, want nothing, eth0", i.degraded(), k.Enforced())
		}
	})
}

// What was detached stays detached, until Attach.
func TestDetachHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fakekernel.New("eth0", "eth1")
		g, i := start(t, k, firewall.Options{Interface: "eth0"})
		keep(t, g)
		if err := g.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(t)
		if k.Enforced() != "" || !strings.Contains(i.degraded(), "on request") {
			t.Errorf("after Detach enforced on %q, degraded = %q", k.Enforced(), i.degraded())
		}
		if err := g.Detach(t.Context()); !errors.Is(err, fault.ErrPrecondition) {
			t.Errorf("second Detach() = %v, want %v", err, fault.ErrPrecondition)
		}
		if mode, err := g.Attach(t.Context(), "eth1"); mode != "native" || err != nil {
			t.Errorf("Attach(eth1) = %q, %v, want native", mode, err)
		}
		pass(t)
		if k.Enforced() != "eth1" || i.degraded() != "" || i.fact("interface") != "eth1" {
			t.Errorf("after Attach enforced on %q, degraded = %q", k.Enforced(), i.degraded())
		}
	})
}

func TestDetachFails(t *testing.T) {
	k := fakekernel.New("eth0")
	g, i := start(t, k, firewall.Options{Interface: "eth0"})
	k.Break(firewall.ErrNotSupported)
	if err := g.Detach(t.Context()); !errors.Is(err, fault.ErrPrecondition) {
		t.Errorf("Detach() = %v, want %v", err, fault.ErrPrecondition)
	}
	if !strings.Contains(i.degraded(), "Detach again") {
		t.Errorf("degraded = %q, want how to go on", i.degraded())
	}
	k.Break(nil)
	if err := g.Detach(t.Context()); err != nil || k.Enforced() != "" {
		t.Errorf("Detach() again = %v, enforced on %q, want nil, nothing", err, k.Enforced())
	}
}

// Pins that cannot be adopted can still be detached.
func TestDetachForeignPins(t *testing.T) {
	k := fakekernel.New("eth0", "eth1")
	guarded("eth1")(k)
	g, _ := start(t, k, firewall.Options{Interface: "eth0"})
	if _, err := g.Attach(t.Context(), "eth0"); !errors.Is(err, fault.ErrPrecondition) {
		t.Errorf("Attach(eth0) = %v, want %v", err, fault.ErrPrecondition)
	}
	if err := g.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Attach(t.Context(), "eth0"); err != nil || k.Enforced() != "eth0" {
		t.Errorf("Attach(eth0) = %v, enforced on %q", err, k.Enforced())
	}
}

// Attach mends at once what Keep would have found out later.
func TestAttachAfterUnplug(t *testing.T) {
	k := fakekernel.New("eth0")
	g, i := start(t, k, firewall.Options{Interface: "eth0"})
	k.Unplug("eth0")
	if _, err := g.Attach(t.Context(), "eth0"); !errors.Is(err, fault.ErrNotFound) || i.degraded() == "" {
		t.Errorf("Attach(eth0) = %v, degraded %q, want %v and a reason", err, i.degraded(), fault.ErrNotFound)
	}
	k.Plug("eth0")
	if _, err := g.Attach(t.Context(), "eth0"); err != nil || i.degraded() != "" {
		t.Errorf("Attach(eth0) = %v, degraded %q, want nil, nothing", err, i.degraded())
	}
}

func TestCloseLeavesItGuarded(t *testing.T) {
	k := fakekernel.New("eth0")
	g, _ := start(t, k, firewall.Options{Interface: "eth0"})
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if k.Enforced() != "eth0" {
		t.Errorf("after Close enforced on %q, want eth0", k.Enforced())
	}
	if _, err := g.Attach(t.Context(), "eth0"); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("Attach after Close = %v, want %v", err, fault.ErrUnavailable)
	}
	if err := g.Detach(t.Context()); !errors.Is(err, fault.ErrUnavailable) || k.Enforced() != "eth0" {
		t.Errorf("Detach after Close = %v, enforced on %q", err, k.Enforced())
	}
	if err := g.SetDefault(t.Context(), firewall.Deny); !errors.Is(err, fault.ErrPrecondition) {
		t.Errorf("SetDefault after Close = %v, want %v", err, fault.ErrPrecondition)
	}
}

func FuzzParseCIDR(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "fd00::/8", "::ffff:1.2.3.4/128", "10.0.0.1/8", "::/0", "1.2.3.4/32", "fe80::%eth0/64", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := guard.ParseCIDR(s)
		if err != nil {
			if !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("ParseCIDR(%q) = %v, want %v", s, err, fault.ErrInvalid)
			}
			return
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Errorf("ParseCIDR(%q) = %v, not canonical", s, p)
		}
		if again, err := guard.ParseCIDR(p.String()); again != p || err != nil {
			t.Errorf("ParseCIDR(%q) = %v, %v, want %v", p, again, err, p)
		}
	})
}

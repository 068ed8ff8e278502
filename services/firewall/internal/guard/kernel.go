package guard

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/xinghuo-edge/xinghuo/bpf/firewall"
	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// Kernel is what a Guard needs of package bpf/firewall, whose contracts its
// implementations keep, sentinel errors included.
type Kernel interface {
	// Open guards opts.Interface or adopts the guard pinned for it.
	Open(opts firewall.Options) (Handle, error)
	// Pinned tells what an earlier start left in dir.
	Pinned(dir string) (iface string, found bool, err error)
	// Remove ends the enforcement pinned in dir.
	Remove(dir string) error
}

// Handle is one guarded interface. Its methods may be called at the same time.
type Handle interface {
	Mode() string
	ModeReason() string
	Adopted() bool
	Check() error
	Put(prefix netip.Prefix, v firewall.Verdict) error
	Delete(prefix netip.Prefix) error
	List() ([]firewall.Entry, error)
	Len() (int, error)
	SetDefault(v firewall.Verdict) error
	Default() (firewall.Verdict, error)
	Stats() (firewall.Stats, error)
	// Close lets go; enforcement goes on.
	Close() error
	// Detach ends enforcement and closes the handle, also when it fails.
	Detach() error
}

// Linux is the kernel that the process runs on.
type Linux struct{}

// Open implements Kernel.
func (Linux) Open(opts firewall.Options) (Handle, error) {
	f, err := firewall.Open(opts)
	if err != nil {
		return nil, err // not f: a nil *Firewall in a Handle is not nil
	}
	return f, nil
}

// Pinned implements Kernel.
func (Linux) Pinned(dir string) (string, bool, error) { return firewall.Pinned(dir) }

// Remove implements Kernel.
func (Linux) Remove(dir string) error { return firewall.Remove(dir) }

var kinds = []struct{ err, kind error }{
	{firewall.ErrNotSupported, fault.ErrPrecondition},
	{firewall.ErrNoInterface, fault.ErrNotFound},
	{firewall.ErrFull, fault.ErrExhausted},
	{firewall.ErrNotFound, fault.ErrNotFound},
	{firewall.ErrInvalid, fault.ErrInvalid},
	// Not fault.ErrConflict, which says that trying again may help.
	{firewall.ErrConflict, fault.ErrPrecondition},
	{firewall.ErrClosed, fault.ErrPrecondition},
}

// kinded gives an error of the kernel its kind for callers; one that is none of
// bpf/firewall's stays without, and so inside the service.
func kinded(err error) error {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return fmt.Errorf("%w: %w", k.kind, err)
		}
	}
	return err
}

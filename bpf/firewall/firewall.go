// Package firewall drops or passes frames by their source address, in the
// kernel, before the network stack sees them.
//
// One XDP program judges every frame that an interface receives: the longest
// prefix holding the source address gives the verdict, and the default where
// none does. VLAN tags (one or two) are looked through. Frames that are not IP
// pass, and so does IPv6 neighbour discovery (RFC 4861). IP frames whose
// headers are cut short or contradict themselves are dropped whatever the rules.
//
// Maps and link are pinned: when the process ends, enforcement goes on with
// the rules it left. The next Open adopts them and swaps in its own program
// between two frames. Only Detach ends enforcement.
package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Mode is where in the receive path the program runs.
type Mode string

const (
	// ModeAuto takes native where the driver can, generic otherwise.
	ModeAuto Mode = ""
	// ModeNative runs in the driver, before the kernel allocates for the frame.
	ModeNative Mode = "native"
	// ModeGeneric runs in the stack: any driver can, at a higher cost a frame.
	ModeGeneric Mode = "generic"
)

// Options says what to guard and how.
type Options struct {
	// PinDir is an absolute path on a bpffs, made if missing (its parent file
	// system must be mounted), for this interface alone, for example
	// /sys/fs/bpf/xinghuo/firewall. The names that Open makes hold no dot.
	PinDir string
	// Interface is the name of the interface to guard, for example eth0.
	Interface string
	// MaxEntries is the number of rules for IPv4, and again for IPv6:
	// 1 to 1,048,576; 0 means DefaultMaxEntries. It is fixed while pinned.
	MaxEntries uint32
	// Mode is ModeAuto, ModeNative or ModeGeneric. It is fixed while pinned.
	Mode Mode
	// Default is the verdict where no rule matches, from the first frame on;
	// 0 means Allow. An adopted firewall keeps the default it has.
	Default Verdict
}

func (o *Options) check() error {
	var errs []error
	if !filepath.IsAbs(o.PinDir) {
		errs = append(errs, fmt.Errorf("%w: pin directory is %q, want an absolute path", ErrInvalid, o.PinDir))
	}
	switch o.Mode {
	case ModeAuto, ModeNative, ModeGeneric:
	default:
		errs = append(errs, fmt.Errorf("%w: mode is %q, want %q, %q or nothing", ErrInvalid, o.Mode, ModeNative, ModeGeneric))
	}
	if o.Default == 0 {
		o.Default = Allow
	}
	if err := o.Default.check(); err != nil {
		errs = append(errs, fmt.Errorf("default: %w", err))
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.MaxEntries > maxMaxEntries {
		errs = append(errs, fmt.Errorf("%w: max entries is %d, want at most %d", ErrInvalid, o.MaxEntries, maxMaxEntries))
	}
	return errors.Join(errs...)
}

// Firewall is a handle on what the kernel enforces. Its methods may be called
// at the same time. One process at a time may change rules: another's changes
// are enforced and listed, but not counted against MaxEntries.
type Firewall struct {
	iface   string
	pinDir  string
	max     uint32
	adopted bool
	mode    Mode
	reason  string

	mu     sync.Mutex // guards what follows
	closed bool
	objs   filterObjects
	link   link.Link
	used   map[*ebpf.Map]uint32 // rules held, by trie
	// known repeats the tries' keys, for a trie's lookup answers with the
	// longest match and does not tell which that was.
	known map[netip.Prefix]Verdict
}

// Open guards an interface, or takes over the guard that is pinned for it:
// then rules, default and counters are kept, and the program is replaced in
// one step, so that no frame passes unjudged.
//
// Errors: ErrInvalid, ErrNoInterface, ErrNotSupported; ErrConflict if the pins
// belong to another interface, mode or size, or another XDP program is there.
func Open(opts Options) (*Firewall, error) {
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("open firewall: %w", err)
	}
	if opts.Interface == "" {
		return nil, fmt.Errorf("open firewall: %w: none is named", ErrNoInterface)
	}
	iface, err := net.InterfaceByName(opts.Interface)
	if err != nil {
		return nil, fmt.Errorf("open firewall: %w: %s: %w", ErrNoInterface, opts.Interface, err)
	}
	// Kernels before 5.11 count maps against RLIMIT_MEMLOCK. A failure to lift
	// it shows, if it matters, as EPERM when the maps are made.
	memlockErr := rlimit.RemoveMemlock()
	if err := makePinDir(opts.PinDir); err != nil {
		return nil, fmt.Errorf("open firewall: %w", err)
	}

	f := &Firewall{iface: iface.Name, pinDir: opts.PinDir, max: opts.MaxEntries}
	pinned := hasPins(opts.PinDir)
	if err := f.open(opts, iface.Index); err != nil {
		err = errors.Join(err, f.Close())
		if !pinned { // leave the machine as it was found
			err = errors.Join(err, Remove(opts.PinDir))
		}
		if memlockErr != nil {
			err = fmt.Errorf("%w (and the memlock limit could not be lifted: %w)", err, memlockErr)
		}
		return nil, fmt.Errorf("open firewall on %s: %w", opts.Interface, err)
	}
	return f, nil
}

func (f *Firewall) open(opts Options, ifindex int) error {
	old, mode, err := findLink(opts.PinDir)
	if err != nil {
		return err
	}
	if old != nil {
		f.link, f.adopted, f.mode, f.reason = old, true, mode, "adopted from an earlier start"
		if err := checkAdoption(old, mode, opts, ifindex); err != nil {
			return err
		}
	}
	if err := f.load(opts.MaxEntries, opts.PinDir); err != nil {
		return err
	}
	if err := f.initDefault(opts.Default); err != nil {
		return err
	}
	if old != nil {
		if err := old.Update(f.objs.XhFilter); err != nil {
			return supported("replace the program of the pinned link", err)
		}
		return nil
	}
	return f.attach(opts, ifindex)
}

// load makes the program and its maps, taking the maps pinned in pinDir; with
// no pinDir nothing is pinned.
func (f *Firewall) load(maxEntries uint32, pinDir string) error {
	spec, err := newSpec(maxEntries)
	if err != nil {
		return err
	}
	if pinDir == "" {
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinNone
		}
	}
	err = spec.LoadAndAssign(&f.objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: pinDir}})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return fmt.Errorf("%w: maps pinned in %s were made with another max entries (now %d) or by another version; detach first: %w", ErrConflict, pinDir, maxEntries, err)
	}
	if err != nil {
		return supported("load program and maps", err)
	}
	entries, err := f.list()
	if err != nil {
		return err
	}
	f.used = map[*ebpf.Map]uint32{}
	f.known = make(map[netip.Prefix]Verdict, len(entries))
	for _, e := range entries {
		f.known[e.Prefix] = e.Verdict
		f.used[f.trie(e.Prefix)]++
	}
	return nil
}

// Mode returns "native" or "generic".
func (f *Firewall) Mode() string { return string(f.mode) }

// ModeReason says why the mode is what it is, for people to read.
func (f *Firewall) ModeReason() string { return f.reason }

// Adopted tells whether Open found the interface guarded already.
func (f *Firewall) Adopted() bool { return f.adopted }

// Check returns nil while the interface is guarded, and ErrNoInterface when it
// has gone since; the program does not come back by itself with an interface
// of the same name: Open again. Other errors: ErrClosed.
func (f *Firewall) Check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("check firewall: %w", ErrClosed)
	}
	index, err := linkedInterface(f.link)
	if err != nil {
		return fmt.Errorf("check firewall on %s: %w", f.iface, err)
	}
	if index == 0 {
		return fmt.Errorf("check firewall: %w: %s has gone", ErrNoInterface, f.iface)
	}
	return nil
}

// Close lets go of the firewall, which goes on enforcing. It may be repeated.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.close()
}

func (f *Firewall) close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	var linkErr error
	if f.link != nil {
		linkErr = f.link.Close()
	}
	if err := errors.Join(linkErr, f.objs.Close()); err != nil {
		return fmt.Errorf("close firewall on %s: %w", f.iface, err)
	}
	return nil
}

// Detach ends enforcement: the program leaves the interface, and rules,
// counters and pins are gone. The Firewall is closed by it.
func (f *Firewall) Detach() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("detach firewall: %w", ErrClosed)
	}
	if err := errors.Join(Remove(f.pinDir), f.close()); err != nil {
		return fmt.Errorf("detach firewall from %s: %w", f.iface, err)
	}
	return nil
}

// supported wraps err with what was tried, and with ErrNotSupported where the
// machine or the process's rights are the cause.
func supported(op string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission): // EPERM and EACCES
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) && !errors.Is(err, unix.EPERM) {
			break // EACCES is also the verifier's no
		}
		return fmt.Errorf("%s: %w: the process needs CAP_BPF and CAP_NET_ADMIN: %w", op, ErrNotSupported, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: %w: %w", op, ErrNotSupported, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

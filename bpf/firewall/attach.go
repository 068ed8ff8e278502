package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The link's pin tells the mode, which the kernel does not.
const linkPrefix = "link_"

func linkPath(dir string, mode Mode) string { return filepath.Join(dir, linkPrefix+string(mode)) }

func mapPaths(dir string) []string {
	return []string{
		filepath.Join(dir, filterMapRules4), filepath.Join(dir, filterMapRules6),
		filepath.Join(dir, filterMapSettings), filepath.Join(dir, filterMapCounters),
	}
}

// hasPins tells whether an earlier start left anything in dir.
func hasPins(dir string) bool {
	for _, path := range append(mapPaths(dir), linkPath(dir, ModeNative), linkPath(dir, ModeGeneric)) {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// makePinDir makes dir, but only on a bpffs: elsewhere a pin would fail later
// and leave a stray directory.
func makePinDir(dir string) error {
	at := filepath.Clean(dir)
	for {
		_, err := os.Stat(at)
		if err == nil {
			break
		}
		// A bpffs answers EPERM to a name with a dot, made or only asked for.
		if strings.Contains(filepath.Base(at), ".") && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EPERM)) {
			return fmt.Errorf("%w: pin directory %s: a bpffs takes no dot, as in %q", ErrInvalid, dir, filepath.Base(at))
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("pin directory: %w: %w", ErrNotSupported, err)
		}
		at = filepath.Dir(at)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return fmt.Errorf("pin directory: statfs %s: %w", at, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("pin directory: %w: %s is not on a bpffs; mount one: mount -t bpf bpf /sys/fs/bpf", ErrNotSupported, at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return supported("make pin directory", err)
	}
	return nil
}

// findLink returns the link pinned in dir that still has an interface, or nil.
// A pin whose interface is gone is removed: it can never guard anything again.
func findLink(dir string) (link.Link, Mode, error) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		path := linkPath(dir, mode)
		l, err := link.LoadPinnedLink(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", supported("load pinned link "+path, err)
		}
		index, err := linkedInterface(l)
		if err != nil {
			return nil, "", errors.Join(err, l.Close())
		}
		if index != 0 {
			return l, mode, nil
		}
		if err := errors.Join(os.Remove(path), l.Close()); err != nil {
			return nil, "", fmt.Errorf("remove link of an interface that is gone: %w", err)
		}
	}
	return nil, "", nil
}

// linkedInterface returns the index of the interface that a link is attached
// to, 0 if that interface is gone.
func linkedInterface(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for the link's interface: %w", err)
	}
	xdp := info.XDP()
	if xdp == nil {
		return 0, fmt.Errorf("%w: the pinned link is %v, not XDP", ErrConflict, info.Type)
	}
	return int(xdp.Ifindex), nil
}

// checkAdoption refuses what could only be had by a moment without a guard.
func checkAdoption(l link.Link, mode Mode, opts Options, ifindex int) error {
	index, err := linkedInterface(l)
	if err != nil {
		return err
	}
	if index != ifindex {
		return fmt.Errorf("%w: %s guards interface %d, not %s (%d); detach that first", ErrConflict, opts.PinDir, index, opts.Interface, ifindex)
	}
	if opts.Mode != ModeAuto && opts.Mode != mode {
		return fmt.Errorf("%w: %s is guarded in %s mode, not %s; detach that first", ErrConflict, opts.Interface, mode, opts.Mode)
	}
	for _, path := range mapPaths(opts.PinDir) {
		if _, err := os.Lstat(path); err != nil {
			// New maps would be empty: the rules in force would be lost unseen.
			return fmt.Errorf("%w: %s is guarded, but a map's pin is missing: %w", ErrConflict, opts.Interface, err)
		}
	}
	return nil
}

// attach links the loaded program to the interface and pins the link.
func (f *Firewall) attach(opts Options, ifindex int) error {
	try := func(mode Mode, flag link.XDPAttachFlags) error {
		l, err := link.AttachXDP(link.XDPOptions{Program: f.objs.XhFilter, Interface: ifindex, Flags: flag})
		if err != nil {
			return err
		}
		f.link, f.mode = l, mode
		if err := l.Pin(linkPath(f.pinDir, mode)); err != nil {
			return supported("pin link", err)
		}
		return nil
	}

	var native error
	if opts.Mode != ModeGeneric {
		native = try(ModeNative, link.XDPDriverMode)
		switch {
		case native == nil:
			f.reason = "the driver runs XDP"
			return nil
		case f.link != nil: // attached, but not pinned
			return native
		case errors.Is(native, unix.EBUSY), errors.Is(native, unix.EEXIST):
			return fmt.Errorf("%w: another XDP program is on the interface: %w", ErrConflict, native)
		case opts.Mode == ModeNative, errors.Is(native, unix.EPERM):
			return supported("attach in native mode", native)
		}
	}
	err := try(ModeGeneric, link.XDPGenericMode)
	switch {
	case err == nil && native != nil:
		f.reason = "the driver refuses native XDP: " + native.Error()
		return nil
	case err == nil:
		f.reason = "asked for"
		return nil
	case f.link != nil:
		return err
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: another XDP program is on the interface: %w", ErrConflict, err)
	}
	return supported("attach in generic mode", errors.Join(err, native))
}

// Remove ends the enforcement that is pinned in dir, without opening it first,
// and removes its pins and dir itself. Where nothing is pinned it does nothing.
func Remove(dir string) error {
	var errs []error
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		if err := removeLink(linkPath(dir, mode)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		// The maps stay with a guard that could not be removed, so that it can
		// still be adopted.
		return fmt.Errorf("remove firewall in %s: %w", dir, errors.Join(errs...))
	}
	for _, path := range append(mapPaths(dir), dir) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("remove firewall in %s: %w", dir, errors.Join(errs...))
	}
	return nil
}

// removeLink detaches before it unpins, for another process may hold the link.
func removeLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return supported("load pinned link "+path, err)
	}
	if err := l.Detach(); err != nil {
		return errors.Join(supported("detach", err), l.Close())
	}
	return errors.Join(os.Remove(path), l.Close())
}

package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/cilium/ebpf/link"
)

// Pinned tells, changing nothing, what an earlier start left in dir: whether
// there is anything, and the name of the interface that it guards, empty when
// that has gone. Open adopts it, Remove takes it away.
//
// The caller is to be in the network namespace that Open was called in: the
// kernel tells an interface's index, which another namespace may have too.
// Errors: ErrNotSupported; ErrConflict if no interface here has the index.
func Pinned(dir string) (iface string, found bool, err error) {
	if !hasPins(dir) {
		return "", false, nil
	}
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		name, err := pinnedInterface(linkPath(dir, mode))
		if err != nil {
			return "", true, fmt.Errorf("look at pins in %s: %w", dir, err)
		}
		if name != "" {
			return name, true, nil
		}
	}
	return "", true, nil
}

func pinnedInterface(path string) (name string, err error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", supported("load pinned link "+path, err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	index, err := linkedInterface(l)
	if err != nil || index == 0 {
		return "", err
	}
	at, err := net.InterfaceByIndex(index)
	if err != nil {
		return "", fmt.Errorf("%w: interface %d is guarded, which is not in this network namespace: %w", ErrConflict, index, err)
	}
	return at.Name, nil
}

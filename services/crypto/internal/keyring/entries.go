package keyring

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/limit"
)

func nonceFile(handle string, version uint32) string {
	return handle + "." + strconv.FormatUint(uint64(version), 10) + ".nonce"
}

// handles returns the handles of the folder's key files, sorted. The folder is
// read each time, because another process may have made a key.
func (k *Keyring) handles() ([]string, error) {
	entries, err := os.ReadDir(k.folder.path)
	if err != nil {
		return nil, fmt.Errorf("read key folder: %w", err)
	}
	var handles []string
	for _, e := range entries {
		handle, ok := strings.CutSuffix(e.Name(), keySuffix)
		if ok && limit.Handle("handle", handle) == nil {
			handles = append(handles, handle)
		}
	}
	slices.Sort(handles)
	return handles, nil
}

// get returns a key, from disk when another process made it. Errors:
// fault.ErrInvalid, fault.ErrNotFound, fault.ErrPrecondition for a damaged one.
func (k *Keyring) get(field, handle string) (*entry, error) {
	if err := limit.Handle(field, handle); err != nil {
		return nil, err
	}
	k.mu.RLock()
	e, ok := k.entries[handle]
	k.mu.RUnlock()
	if ok {
		return e, nil
	}
	e, err := k.load(handle)
	if err != nil {
		return nil, err
	}
	return k.keep(handle, e)
}

// keep remembers an entry, unless there is one already: each key has one
// counter, or its range would be two.
func (k *Keyring) keep(handle string, e *entry) (*entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, fmt.Errorf("%w: key %q: the keyring is closed", fault.ErrUnavailable, handle)
	}
	if old, ok := k.entries[handle]; ok {
		return old, nil
	}
	k.entries[handle] = e
	return e, nil
}

// load reads a key from disk.
func (k *Keyring) load(handle string) (*entry, error) {
	data, err := k.folder.read(handle + keySuffix)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: key %q", fault.ErrNotFound, handle)
	}
	if err != nil {
		return nil, fmt.Errorf("read key %q: %w", handle, err)
	}
	r, err := openRecord(k.master, handle, firstVersion, data)
	if err != nil {
		return nil, fmt.Errorf("%w: key %q: %w", fault.ErrPrecondition, handle, err)
	}
	defer clear(r.secret)
	return k.entry(handle, r)
}

// entry makes a key ready for use.
func (k *Keyring) entry(handle string, r record) (*entry, error) {
	e := &entry{key: Key{Handle: handle, Kind: r.kind, Version: r.version, Created: r.created}}
	var err error
	switch r.kind {
	case KindSM4:
		e.nonces = &counter{folder: k.folder, master: k.master, handle: handle, version: r.version}
		e.seal, err = k.crypto.NewSM4GCM(r.secret)
	case KindSM2:
		if e.sign, err = k.crypto.LoadSM2(r.secret); err == nil {
			e.key.Public = e.sign.Public()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load key %q: %w", handle, err)
	}
	return e, nil
}

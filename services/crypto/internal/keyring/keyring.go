package keyring

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/limit"
)

const (
	// MaxKeys bounds the folder, and the memory that its keys take.
	MaxKeys = 10_000
	// DefaultPage and MaxPage are keys a page.
	DefaultPage = 100
	MaxPage     = 1000

	firstVersion = 1
	keySuffix    = ".1.key"
)

// Kind says what a key is for.
type Kind uint8

// The kinds. Their numbers are on disk.
const (
	KindSM4 Kind = 1 // Seal and Open
	KindSM2 Kind = 2 // Sign and Verify
)

// String returns the algorithm's name.
func (k Kind) String() string {
	switch k {
	case KindSM4:
		return "SM4"
	case KindSM2:
		return "SM2"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

func (k Kind) known() bool { return k == KindSM4 || k == KindSM2 }

// Key is what may be known of a key.
type Key struct {
	Handle  string
	Kind    Kind
	Version uint32
	Created time.Time
	Public  []byte // SM2 only: the uncompressed point, 65 bytes
}

// Crypto is what the keyring needs of the algorithms; driver.Set has it.
type Crypto interface {
	driver.Sealer
	driver.Signer
}

// entry is a key in memory. It does not change.
type entry struct {
	key    Key
	seal   driver.AEAD   // SM4
	nonces *counter      // SM4
	sign   driver.SM2Key // SM2
}

// Keyring works with keys. Its methods may be called from many goroutines, and
// several processes may have the folder open.
type Keyring struct {
	crypto  Crypto
	folder  *folder
	master  driver.AEAD
	damaged []error

	mu      sync.RWMutex // guards entries and closed; before any counter's lock
	entries map[string]*entry
	closed  bool
}

// Open opens the folder of keys under the master key in the file masterPath,
// and makes both at the first start. Every readable key is loaded.
func Open(ctx context.Context, crypto Crypto, dir, masterPath string) (*Keyring, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	k := &Keyring{crypto: crypto, folder: f, entries: make(map[string]*entry)}
	unlock, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := errors.Join(f.sweep(), sweepMaster(masterPath)); err != nil {
		return nil, err
	}
	handles, err := k.handles()
	if err != nil {
		return nil, err
	}
	raw, err := loadMaster(masterPath)
	if errors.Is(err, os.ErrNotExist) {
		if len(handles) > 0 {
			return nil, fmt.Errorf("%w; %d keys in %s are sealed under it: put it back", err, len(handles), dir)
		}
		if err := createMaster(masterPath); err != nil {
			return nil, err
		}
		raw, err = loadMaster(masterPath)
	}
	if err != nil {
		return nil, err
	}
	k.master, err = crypto.NewSM4GCM(raw)
	clear(raw)
	if err != nil {
		return nil, fmt.Errorf("load master key: %w", err)
	}
	for _, handle := range handles {
		e, err := k.load(handle)
		if err != nil {
			k.damaged = append(k.damaged, err)
			continue
		}
		k.entries[handle] = e
	}
	if len(handles) > 0 && len(k.entries) == 0 {
		return nil, fmt.Errorf("master key %s opens none of the %d keys in %s: %w", masterPath, len(handles), dir, k.damaged[0])
	}
	return k, nil
}

// Damaged returns an error for each key that did not load at the start.
func (k *Keyring) Damaged() []error { return slices.Clone(k.damaged) }

// Close stops sealing and gives back the nonces that were reserved and not
// used. What is opened, signed or verified at that moment still ends well.
func (k *Keyring) Close(ctx context.Context) error {
	k.mu.Lock()
	k.closed = true
	entries := k.entries
	k.entries = nil
	k.mu.Unlock()
	var errs []error
	for _, e := range entries {
		if e.nonces != nil {
			errs = append(errs, e.nonces.close(ctx))
		}
	}
	return errors.Join(errs...)
}

// Create generates a key. Errors: fault.ErrInvalid, fault.ErrExists,
// fault.ErrExhausted at MaxKeys.
func (k *Keyring) Create(ctx context.Context, handle string, kind Kind) (Key, error) {
	if err := limit.Handle("handle", handle); err != nil {
		return Key{}, err
	}
	if !kind.known() {
		return Key{}, fault.Invalid("kind", "must be SM4 or SM2, is %d", uint8(kind))
	}
	unlock, err := k.folder.lock(ctx)
	if err != nil {
		return Key{}, err
	}
	defer unlock()
	handles, err := k.handles()
	if err != nil {
		return Key{}, err
	}
	k.mu.RLock()
	_, loaded := k.entries[handle]
	k.mu.RUnlock()
	// One that is loaded counts, even if somebody has removed its file.
	if _, found := slices.BinarySearch(handles, handle); found || loaded {
		return Key{}, fmt.Errorf("%w: key %q", fault.ErrExists, handle)
	}
	if len(handles) >= MaxKeys {
		return Key{}, fmt.Errorf("%w: %d keys, the limit", fault.ErrExhausted, MaxKeys)
	}
	r := record{kind: kind, version: firstVersion, created: time.Now()}
	if r.secret, err = k.generate(kind); err != nil {
		return Key{}, fmt.Errorf("make key %q: %w", handle, err)
	}
	defer clear(r.secret)
	data, err := r.seal(k.master, handle)
	if err != nil {
		return Key{}, fmt.Errorf("seal key %q: %w", handle, err)
	}
	e, err := k.entry(handle, r)
	if err != nil {
		return Key{}, err
	}
	// The nonces first: a key that is there can seal. A nonce file of an
	// earlier key of this handle is never turned back, in case another process
	// still seals with that key.
	if e.nonces != nil {
		spent, err := e.nonces.read()
		if err != nil && !errors.Is(err, fault.ErrPrecondition) {
			return Key{}, err
		}
		if err := e.nonces.write(spent); err != nil {
			return Key{}, err
		}
	}
	if err := k.folder.write(handle+keySuffix, data); err != nil {
		return Key{}, err
	}
	e, err = k.keep(handle, e)
	if err != nil {
		return Key{}, err
	}
	return e.info(), nil
}

// Get returns what may be known of a key. Errors: fault.ErrInvalid,
// fault.ErrNotFound.
func (k *Keyring) Get(handle string) (Key, error) {
	e, err := k.get("key_handle", handle)
	if err != nil {
		return Key{}, err
	}
	return e.info(), nil
}

// List returns one page of the keys by handle, and the token of the next page,
// empty on the last. Size 0 means DefaultPage. Damaged keys are left out.
// Errors: fault.ErrInvalid.
func (k *Keyring) List(size int, token string) (keys []Key, next string, err error) {
	if size < 0 || size > MaxPage {
		return nil, "", fault.Invalid("page_size", "must be 0 to %d, is %d", MaxPage, size)
	}
	size = cmp.Or(size, DefaultPage)
	after, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	handles, err := k.handles()
	if err != nil {
		return nil, "", err
	}
	start, found := slices.BinarySearch(handles, after)
	if found {
		start++
	}
	for _, handle := range handles[start:] {
		if len(keys) == size {
			return keys, pageToken(keys[size-1].Handle), nil
		}
		e, err := k.get("handle", handle)
		if errors.Is(err, fault.ErrPrecondition) || errors.Is(err, fault.ErrNotFound) {
			continue // damaged, or gone since the folder was read
		}
		if err != nil {
			return nil, "", err
		}
		keys = append(keys, e.info())
	}
	return keys, "", nil
}

const tokenPrefix = "after:"

func pageToken(handle string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + handle))
}

func parseToken(token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	bad := fault.Invalid("page_token", "is none that this call gave out")
	if len(token) > 2*limit.MaxHandle {
		return "", bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", bad
	}
	after, ok := strings.CutPrefix(string(b), tokenPrefix)
	if !ok || limit.Handle("page_token", after) != nil {
		return "", bad
	}
	return after, nil
}

// generate makes a secret.
func (k *Keyring) generate(kind Kind) ([]byte, error) {
	if kind == KindSM2 {
		return k.crypto.GenerateSM2()
	}
	secret := make([]byte, driver.SM4KeySize)
	_, err := rand.Read(secret)
	return secret, err
}

func (e *entry) info() Key {
	key := e.key
	key.Public = slices.Clone(key.Public)
	return key
}

package keyring

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

const (
	// MaxSeals is how often one key version seals (NIST SP 800-38D section
	// 8.3 allows no more for nonces that are in part random).
	MaxSeals = 1 << 32
	// reserve is how many counters one synced write buys, and how many a
	// crash wastes: two writes a second at 31,000 seals a second, and 262,144
	// crashes until a key is used up.
	reserve = 1 << 14
)

// counter hands out the nonces of one key version, each once.
type counter struct {
	folder  *folder
	master  driver.AEAD
	handle  string
	version uint32

	mu        sync.Mutex // guards what follows; the folder's lock is taken inside it
	closed    bool
	prefix    [4]byte // random, drawn for each range
	next, end uint64  // this process's range; next = end when there is none
}

// nonce returns a nonce that was never returned before, by any process.
// Errors: fault.ErrExhausted, fault.ErrUnavailable.
func (c *counter) nonce(ctx context.Context) (out [driver.GCMNonceSize]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return out, fmt.Errorf("%w: key %q: the keyring is closed", fault.ErrUnavailable, c.handle)
	}
	if c.next == c.end {
		if err := c.refill(ctx); err != nil {
			return out, err
		}
	}
	copy(out[:4], c.prefix[:])
	binary.BigEndian.PutUint64(out[4:], c.next)
	c.next++
	return out, nil
}

// refill reserves a range. It is on disk before it is used.
func (c *counter) refill(ctx context.Context) error {
	unlock, err := c.folder.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Read anew each time: another process may have reserved in between.
	spent, err := c.read()
	if err != nil {
		return err
	}
	if spent >= MaxSeals {
		return fmt.Errorf("%w: key %q version %d has sealed %d times, the limit; make a new key", fault.ErrExhausted, c.handle, c.version, uint64(MaxSeals))
	}
	end := min(spent+reserve, MaxSeals)
	var prefix [4]byte
	if _, err := rand.Read(prefix[:]); err != nil {
		return fmt.Errorf("draw nonce prefix: %w", err)
	}
	if err := c.write(end); err != nil {
		return err
	}
	c.prefix, c.next, c.end = prefix, spent, end
	return nil
}

// close gives back what was reserved and not used, unless another process has
// reserved after it.
func (c *counter) close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.next == c.end {
		return nil
	}
	unlock, err := c.folder.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	spent, err := c.read()
	if err != nil || spent != c.end {
		return err
	}
	next := c.next
	c.next = c.end // whatever becomes of the write, nothing of the range is used any more
	return c.write(next)
}

// read returns the end of the reserved counters.
func (c *counter) read() (uint64, error) {
	data, err := c.folder.read(nonceFile(c.handle, c.version))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: key %q: its nonce file is gone, sealing might repeat a nonce; make a new key", fault.ErrPrecondition, c.handle)
	}
	if err != nil {
		return 0, fmt.Errorf("read nonces of key %q: %w", c.handle, err)
	}
	spent, err := openReserved(c.master, c.handle, c.version, data)
	if errors.Is(err, errDamaged) {
		return 0, fmt.Errorf("%w: key %q: its nonce file is damaged, sealing might repeat a nonce; make a new key", fault.ErrPrecondition, c.handle)
	}
	return spent, err
}

func (c *counter) write(reserved uint64) error {
	data, err := sealReserved(c.master, c.handle, c.version, reserved)
	if err != nil {
		return fmt.Errorf("reserve nonces of key %q: %w", c.handle, err)
	}
	if err := c.folder.write(nonceFile(c.handle, c.version), data); err != nil {
		return fmt.Errorf("reserve nonces of key %q: %w", c.handle, err)
	}
	return nil
}

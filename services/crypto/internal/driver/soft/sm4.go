package soft

import (
	"crypto/cipher"
	"fmt"
	"slices"
	"sync"

	"github.com/tjfoc/gmsm/sm4"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

// maxNonce bounds the nonces other than 12 bytes, which SP 800-38D allows and
// other parties use. 2,056 bits is the longest that Wycheproof tries.
const maxNonce = 257

// gcm is SM4-GCM under one key.
type gcm struct {
	key []byte
	// pool holds cipher.AEAD, each over a block of its own: the library's
	// block is not safe for two goroutines.
	pool sync.Pool
}

// NewSM4GCM returns the cipher of a key of 16 bytes. Errors: driver.ErrKey.
func (Driver) NewSM4GCM(key []byte) (driver.AEAD, error) {
	if len(key) != driver.SM4KeySize {
		return nil, fmt.Errorf("%w: SM4 key of %d bytes, want %d", driver.ErrKey, len(key), driver.SM4KeySize)
	}
	return &gcm{key: slices.Clone(key)}, nil
}

// SealSM4GCM appends ciphertext and tag to dst.
func (g *gcm) SealSM4GCM(dst, nonce, plaintext, aad []byte) ([]byte, error) {
	return guarded("seal sm4-gcm", func() ([]byte, error) {
		c, err := g.take(len(nonce))
		if err != nil {
			return nil, err
		}
		out := c.Seal(dst, nonce, plaintext, aad)
		g.give(c)
		return out, nil
	})
}

// OpenSM4GCM appends the plaintext to dst, or returns nil and an error.
func (g *gcm) OpenSM4GCM(dst, nonce, sealed, aad []byte) ([]byte, error) {
	return guarded("open sm4-gcm", func() ([]byte, error) {
		c, err := g.take(len(nonce))
		if err != nil {
			return nil, err
		}
		out, err := c.Open(dst, nonce, sealed, aad)
		g.give(c)
		if err != nil {
			return nil, driver.ErrAuthentication
		}
		if out == nil {
			out = []byte{} // nil stands for "did not open"
		}
		return out, nil
	})
}

// take returns a cipher that nobody else holds. One that panics is not given
// back.
func (g *gcm) take(nonceSize int) (cipher.AEAD, error) {
	if nonceSize < 1 || nonceSize > maxNonce {
		return nil, fmt.Errorf("%w: %d bytes, want %d", driver.ErrNonce, nonceSize, driver.GCMNonceSize)
	}
	if nonceSize == driver.GCMNonceSize {
		if c, ok := g.pool.Get().(cipher.AEAD); ok {
			return c, nil
		}
	}
	block, err := sm4.NewCipher(g.key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", driver.ErrKey, err)
	}
	return cipher.NewGCMWithNonceSize(block, nonceSize)
}

func (g *gcm) give(c cipher.AEAD) {
	if c.NonceSize() == driver.GCMNonceSize {
		g.pool.Put(c)
	}
}

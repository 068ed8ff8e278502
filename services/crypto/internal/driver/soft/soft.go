// Package soft is the driver on github.com/tjfoc/gmsm, behind a guard against
// what is wrong with that library.
//
// What is known to be wrong, and what is done about it here:
//
//   - Its Sm4GCM repeats keystreams, never checks the tag and panics; its
//     Sm4Cbc takes its IV from a global that is zero. Neither is called: GCM is
//     the standard library's over the library's SM4 block.
//   - Its SM4 block writes to scratch memory of its own, so two goroutines
//     with one block get wrong ciphertext. A pool gives each its own.
//   - Its SM3 Sum(b) hashes b too and leaves it out of the answer. Only
//     Sm3Sum is called; crypto/hmac over its New would be wrong.
//   - It takes any two integers for a public key. The guard checks length,
//     range and the curve equation.
//   - Its signature parser takes bytes after the end and several encodings of
//     one signature. The guard takes the one DER form.
//   - Its point addition answers infinity for P + P, and infinity has x = 0
//     there, so that r = e would verify. The guard refuses r = e.
//   - It panics on input it did not expect. Every call runs under recover, and
//     what comes with an error is dropped.
//
// It is not constant in time: SM4 looks up tables by secret bytes and SM2
// computes on math/big. Whoever can measure this process closely may learn
// keys; that is what the other drivers are for.
package soft

import (
	"fmt"

	"github.com/tjfoc/gmsm/sm3"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

// Driver is the software driver. Its zero value is ready.
type Driver struct{}

var (
	_ driver.Sealer   = Driver{}
	_ driver.Digester = Driver{}
	_ driver.Signer   = Driver{}
)

// Name returns "soft".
func (Driver) Name() string { return "soft" }

// Implementation returns the library and its version.
func (Driver) Implementation() string { return "github.com/tjfoc/gmsm v1.4.1" }

// DigestSM3 returns the SM3 digest of data (GB/T 32905).
func (Driver) DigestSM3(data []byte) ([driver.SM3Size]byte, error) {
	return guarded("digest sm3", func() ([driver.SM3Size]byte, error) {
		return [driver.SM3Size]byte(sm3.Sm3Sum(data)), nil
	})
}

// guarded runs a call into the library. A panic becomes ErrBroken, and with an
// error comes nothing else, whatever the library had ready.
func guarded[T any](op string, call func() (T, error)) (out T, err error) {
	var none T
	defer func() {
		if r := recover(); r != nil {
			out, err = none, fmt.Errorf("%w: %s: panic: %v", driver.ErrBroken, op, r)
		}
	}()
	out, err = call()
	if err != nil {
		return none, err
	}
	return out, nil
}

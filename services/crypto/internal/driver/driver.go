// Package driver says what an implementation of the national algorithms can
// do, checks that it does it, and chooses among several.
package driver

import "errors"

// Sizes of the algorithms, in bytes.
const (
	SM4KeySize    = 16 // GB/T 32907
	GCMNonceSize  = 12 // RFC 8998 section 2.2
	GCMTagSize    = 16 // RFC 8998 section 2.2
	SM3Size       = 32 // GB/T 32905
	SM2SecretSize = 32 // the scalar d, big endian, 1 to n-2 (GM/T 0003.1)
	SM2PublicSize = 65 // 0x04, x, y: the uncompressed point (GM/T 0003.1 4.2.9)
)

// DefaultID is the signer's identity that SM2 signatures are made with when
// the parties have agreed on none (GM/T 0009 section 10).
const DefaultID = "1234567812345678"

var (
	// ErrAuthentication says that a sealed text or its associated data is not
	// what was sealed. It says no more on purpose.
	ErrAuthentication = errors.New("message authentication failed")
	// ErrKey says that a secret key has the wrong size or range.
	ErrKey = errors.New("bad secret key")
	// ErrPublicKey says that a public key is not a point of the curve in
	// uncompressed form.
	ErrPublicKey = errors.New("bad public key")
	// ErrNonce says that a nonce has the wrong size.
	ErrNonce = errors.New("bad nonce")
	// ErrBroken says that the implementation panicked or gave a wrong answer.
	ErrBroken = errors.New("driver is broken")
	// ErrUnsupported says that no driver has a capability.
	ErrUnsupported = errors.New("no driver can")
)

// Capability is one thing a driver can do.
type Capability string

// Every capability that there is. Each stands for an interface of this
// package, so that a driver may have some and lack others.
const (
	CapSM4GCM Capability = "sm4-gcm"  // Sealer
	CapSM3    Capability = "sm3"      // Digester
	CapSM2    Capability = "sm2-sign" // Signer
)

// Driver is what every implementation tells about itself. What it can do
// stands in the interfaces below; it implements those it has.
//
// Every method of a driver, and of what a driver returns, may be called from
// many goroutines at once, returns an error instead of panicking, and keeps no
// slice that it was given.
type Driver interface {
	// Name is the driver's short name, for example "soft".
	Name() string
	// Implementation names the library behind it and its version.
	Implementation() string
}

// Sealer makes SM4-GCM ciphers.
type Sealer interface {
	// NewSM4GCM returns the cipher of a key of SM4KeySize bytes. Errors:
	// ErrKey.
	NewSM4GCM(key []byte) (AEAD, error)
}

// AEAD is SM4-GCM under one key (RFC 8998 section 2.2, NIST SP 800-38D).
type AEAD interface {
	// SealSM4GCM appends the ciphertext and its tag to dst. A nonce must
	// never come twice under one key. Errors: ErrNonce.
	SealSM4GCM(dst, nonce, plaintext, aad []byte) ([]byte, error)
	// OpenSM4GCM appends the plaintext to dst, or returns nil and an error:
	// ErrNonce, ErrAuthentication. No plaintext leaves it with an error.
	OpenSM4GCM(dst, nonce, sealed, aad []byte) ([]byte, error)
}

// Digester computes SM3 (GB/T 32905).
type Digester interface {
	DigestSM3(data []byte) ([SM3Size]byte, error)
}

// Signer makes and checks SM2 signatures (GM/T 0003.2) with DefaultID.
type Signer interface {
	// GenerateSM2 returns a new secret of SM2SecretSize bytes.
	GenerateSM2() (secret []byte, err error)
	// LoadSM2 returns the key of a secret. Errors: ErrKey.
	LoadSM2(secret []byte) (SM2Key, error)
	// VerifySM2 reports whether signature is the one canonical DER form
	// (X.690 section 10) of a signature over message. A signature that is
	// malformed is not valid; it is no error. Errors: ErrPublicKey.
	VerifySM2(public, message, signature []byte) (bool, error)
}

// SM2Key signs; it does not give out its secret.
type SM2Key interface {
	// Public returns the public key, SM2PublicSize bytes; a copy.
	Public() []byte
	// SignSM2 signs the message itself, not a digest, and returns DER.
	SignSM2(message []byte) ([]byte, error)
}

// Capabilities returns what a driver can do, in the order of the constants.
func Capabilities(d Driver) []Capability {
	var caps []Capability
	if _, ok := d.(Sealer); ok {
		caps = append(caps, CapSM4GCM)
	}
	if _, ok := d.(Digester); ok {
		caps = append(caps, CapSM3)
	}
	if _, ok := d.(Signer); ok {
		caps = append(caps, CapSM2)
	}
	return caps
}

package soft

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	"github.com/tjfoc/gmsm/sm2"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

// maxSignature is the longest DER form of two integers below n: 2 bytes of
// sequence header and twice 2 + 33.
const maxSignature = 72

var one = big.NewInt(1)

// signature is SM2Signature of GM/T 0009 section 7.3.
type signature struct{ R, S *big.Int }

// sm2Key signs with one secret.
type sm2Key struct {
	priv   *sm2.PrivateKey
	public []byte
}

// GenerateSM2 returns a new secret: 32 bytes, 1 to n-2.
func (Driver) GenerateSM2() ([]byte, error) {
	return guarded("generate sm2", func() ([]byte, error) {
		priv, err := sm2.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate sm2 key: %w", err)
		}
		return priv.D.FillBytes(make([]byte, driver.SM2SecretSize)), nil
	})
}

// LoadSM2 returns the key of a secret. Errors: driver.ErrKey.
func (Driver) LoadSM2(secret []byte) (driver.SM2Key, error) {
	return guarded("load sm2", func() (driver.SM2Key, error) {
		if len(secret) != driver.SM2SecretSize {
			return nil, fmt.Errorf("%w: SM2 secret of %d bytes, want %d", driver.ErrKey, len(secret), driver.SM2SecretSize)
		}
		curve := sm2.P256Sm2()
		d := new(big.Int).SetBytes(secret)
		// n-1 has no inverse of 1+d, which signing needs.
		if d.Sign() == 0 || d.Cmp(new(big.Int).Sub(curve.Params().N, one)) >= 0 {
			return nil, fmt.Errorf("%w: SM2 secret is not in 1 to n-2", driver.ErrKey)
		}
		priv := &sm2.PrivateKey{D: d}
		priv.Curve = curve
		priv.X, priv.Y = curve.ScalarBaseMult(secret) //nolint:staticcheck // crypto/ecdh does not know the curve, and tjfoc's keys are made this way
		public := make([]byte, driver.SM2PublicSize)
		public[0] = 4
		priv.X.FillBytes(public[1:33])
		priv.Y.FillBytes(public[33:])
		if _, err := parsePublic(public); err != nil {
			return nil, fmt.Errorf("%w: load sm2: %w", driver.ErrBroken, err)
		}
		return &sm2Key{priv: priv, public: public}, nil
	})
}

// Public returns a copy of the public key.
func (k *sm2Key) Public() []byte { return slices.Clone(k.public) }

// SignSM2 signs message with the default identity and returns DER.
func (k *sm2Key) SignSM2(message []byte) ([]byte, error) {
	return guarded("sign sm2", func() ([]byte, error) {
		r, s, err := sm2.Sm2Sign(k.priv, message, []byte(driver.DefaultID), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("sign sm2: %w", err)
		}
		return asn1.Marshal(signature{r, s})
	})
}

// VerifySM2 reports whether der signs message under public. Errors:
// driver.ErrPublicKey.
func (Driver) VerifySM2(public, message, der []byte) (bool, error) {
	return guarded("verify sm2", func() (bool, error) {
		pub, err := parsePublic(public)
		if err != nil {
			return false, err
		}
		n := pub.Params().N
		sig, ok := parseSignature(der, n)
		if !ok {
			return false, nil
		}
		hash, err := pub.Sm3Digest(message, []byte(driver.DefaultID))
		if err != nil {
			return false, fmt.Errorf("verify sm2: %w", err)
		}
		// r = e + x1 mod n. The library's x1 of infinity, and of P + P, is 0;
		// of a point that a signer meets it is 0 once in 2^256.
		e := new(big.Int).SetBytes(hash)
		if e.Mod(e, n).Cmp(sig.R) == 0 {
			return false, nil
		}
		return sm2.Verify(pub, hash, sig.R, sig.S), nil
	})
}

// parsePublic takes the uncompressed form of a point on the curve. The curve's
// cofactor is 1, so that every point but infinity, which this form does not
// have, is a good key.
func parsePublic(public []byte) (*sm2.PublicKey, error) {
	if len(public) != driver.SM2PublicSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", driver.ErrPublicKey, len(public), driver.SM2PublicSize)
	}
	if public[0] != 4 {
		return nil, fmt.Errorf("%w: begins with %#02x, want 0x04 (uncompressed)", driver.ErrPublicKey, public[0])
	}
	curve := sm2.P256Sm2()
	p, b := curve.Params().P, curve.Params().B
	x, y := new(big.Int).SetBytes(public[1:33]), new(big.Int).SetBytes(public[33:])
	if x.Cmp(p) >= 0 || y.Cmp(p) >= 0 {
		return nil, fmt.Errorf("%w: a coordinate is not below p", driver.ErrPublicKey)
	}
	// y² = x³ - 3x + b; by math/big, because the library reduces first and
	// compares after.
	left := new(big.Int).Mul(y, y)
	right := new(big.Int).Mul(x, x)
	right.Sub(right, big.NewInt(3)).Mul(right, x).Add(right, b)
	if left.Sub(left, right).Mod(left, p).Sign() != 0 {
		return nil, fmt.Errorf("%w: not on the curve", driver.ErrPublicKey)
	}
	return &sm2.PublicKey{Curve: curve, X: x, Y: y}, nil
}

// parseSignature takes the one DER form of two integers in 1 to n-1.
func parseSignature(der []byte, n *big.Int) (sig signature, ok bool) {
	if len(der) > maxSignature {
		return sig, false
	}
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) != 0 {
		return sig, false
	}
	for _, v := range []*big.Int{sig.R, sig.S} {
		if v.Sign() <= 0 || v.Cmp(n) >= 0 {
			return sig, false
		}
	}
	again, err := asn1.Marshal(sig)
	return sig, err == nil && bytes.Equal(again, der)
}

package soft_test

import (
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/tjfoc/gmsm/sm2"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

// The curve by the schoolbook, on math/big alone: slow, and easy to believe.
var (
	refP, _  = new(big.Int).SetString("fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff", 16)
	refN, _  = new(big.Int).SetString(order, 16)
	refGx, _ = new(big.Int).SetString("32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7", 16)
	refGy, _ = new(big.Int).SetString("bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0", 16)
)

type point struct{ x, y *big.Int } // x is nil for infinity

func (a point) add(b point) point {
	if a.x == nil {
		return b
	}
	if b.x == nil {
		return a
	}
	num, den := new(big.Int).Sub(b.y, a.y), new(big.Int).Sub(b.x, a.x)
	if den.Sign() == 0 {
		if num.Sign() != 0 {
			return point{}
		}
		num.Mul(a.x, a.x).Mul(num, big.NewInt(3)).Sub(num, big.NewInt(3))
		den.Lsh(a.y, 1)
	}
	l := num.Mul(num, den.ModInverse(den.Mod(den, refP), refP))
	x := new(big.Int).Mul(l, l)
	x.Sub(x, a.x).Sub(x, b.x).Mod(x, refP)
	y := new(big.Int).Sub(a.x, x)
	y.Mul(y, l).Sub(y, a.y).Mod(y, refP)
	return point{x, y}
}

// multiple returns d·G, uncompressed.
func multiple(d []byte) []byte {
	var sum point
	g := point{refGx, refGy}
	k := new(big.Int).SetBytes(d)
	for i := k.BitLen() - 1; i >= 0; i-- {
		sum = sum.add(sum)
		if k.Bit(i) == 1 {
			sum = sum.add(g)
		}
	}
	out := make([]byte, driver.SM2PublicSize)
	out[0] = 4
	sum.x.FillBytes(out[1:33])
	sum.y.FillBytes(out[33:])
	return out
}

// infinitySignature makes, with a secret at hand, a pair r = e, s such that
// sG and tP are equal (same) or opposite.
func infinitySignature(t *testing.T, same bool, message []byte) (public, signature []byte) {
	t.Helper()
	secret := raw(t, "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
	key, err := soft.Driver{}.LoadSM2(secret)
	if err != nil {
		t.Fatal(err)
	}
	public = key.Public()
	pub := &sm2.PublicKey{Curve: sm2.P256Sm2(), X: new(big.Int).SetBytes(public[1:33]), Y: new(big.Int).SetBytes(public[33:])}
	hash, err := pub.Sm3Digest(message, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := new(big.Int).SetBytes(secret)
	if !same {
		d.Neg(d)
	}
	// s = ±d(r+s), so s = ±dr / (1 ∓ d).
	r := new(big.Int).SetBytes(hash)
	r.Mod(r, refN)
	den := new(big.Int).Sub(big.NewInt(1), d)
	s := new(big.Int).Mul(d, r)
	s.Mul(s, den.ModInverse(den.Mod(den, refN), refN)).Mod(s, refN)
	if !sm2.Verify(pub, hash, r, s) {
		t.Logf("the library no longer takes this signature (same = %v)", same)
	}
	signature, err = asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return public, signature
}

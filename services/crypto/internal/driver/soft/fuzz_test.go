package soft_test

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

// FuzzOpen holds that nothing opens but what was sealed, and nothing panics.
func FuzzOpen(f *testing.F) {
	c := newGCM(f, []byte("0123456789abcdef"))
	nonce := []byte("nonce nonce!")
	sealed, err := c.SealSM4GCM(nil, nonce, []byte("plain"), []byte("aad"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(nonce, sealed, []byte("aad"))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add(nonce, sealed[:15], []byte("aad"))
	f.Fuzz(func(t *testing.T, n, s, aad []byte) {
		plain, err := c.OpenSM4GCM(nil, n, s, aad)
		if err != nil {
			if plain != nil {
				t.Fatalf("OpenSM4GCM gave %x with error %v", plain, err)
			}
			return
		}
		again, err := c.SealSM4GCM(nil, n, plain, aad)
		if err != nil || !bytes.Equal(again, s) {
			t.Fatalf("OpenSM4GCM(%x) = %x, which seals to %x, %v", s, plain, again, err)
		}
	})
}

// FuzzVerify holds that no bytes make it panic, and that a signature has one
// encoding.
func FuzzVerify(f *testing.F) {
	f.Add(raw(f, stdPublic), []byte("message digest"), raw(f, der(stdR, stdS)))
	f.Add(raw(f, sslPublic), []byte(sslMessage), raw(f, sslSignature))
	f.Add([]byte{4}, []byte{}, []byte{0x30, 0x06, 2, 1, 1, 2, 1, 1})
	f.Add(raw(f, stdPublic), []byte{}, []byte{0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, public, message, signature []byte) {
		ok, err := soft.Driver{}.VerifySM2(public, message, signature)
		if !ok || err != nil {
			return
		}
		var sig struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(signature, &sig); err != nil || len(rest) != 0 {
			t.Fatalf("VerifySM2 took %x, which is not DER: %v", signature, err)
		}
		if again, err := asn1.Marshal(sig); err != nil || !bytes.Equal(again, signature) {
			t.Fatalf("VerifySM2 took %x for %x", signature, again)
		}
	})
}

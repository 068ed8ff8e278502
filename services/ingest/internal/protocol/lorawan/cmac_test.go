package lorawan

import (
	"encoding/hex"
	"testing"
)

// TestCMAC takes the examples of RFC 4493 §4 that have a whole first block.
func TestCMAC(t *testing.T) {
	key, err := ParseKey("2b7e151628aed2a6abf7158809cf4f3c")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCMAC(key)
	if err != nil {
		t.Fatal(err)
	}
	const msg = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
	raw, err := hex.DecodeString(msg)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{16: "070a16b46b4d4144f79bdd9dd04a287c", 40: "dfa66747de9ae63030ca32611497c827", 64: "51f0bebf7e3b9d92fc49741779363cfe"} {
		head := [16]byte(raw)
		if got := hex.EncodeToString(c.sum(&head, raw[16:n])[:]); got != want {
			t.Errorf("CMAC of %d bytes = %s, want %s", n, got, want)
		}
	}
}

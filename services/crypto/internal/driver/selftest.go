package driver

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// The known answers that a driver must give before it is used.
const (
	// RFC 8998 appendix A.1.
	gcmKey    = "0123456789abcdeffedcba9876543210"
	gcmNonce  = "00001234567800000000abcd"
	gcmAAD    = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
	gcmPlain  = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
	gcmSealed = "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d" +
		"83de3541e4c2b58177e065a9bf7b62ec"
	// GB/T 32905-2016 appendix A.1.
	sm3Message = "abc"
	sm3Digest  = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
	// GM/T 0003.5-2012 appendix A.2, the signature as DER.
	sm2Message = "message digest"
	sm2Secret  = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
	sm2Public  = "04" +
		"09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020" +
		"ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
	sm2Signature = "3046" +
		"022100f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3" +
		"022100b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
)

// SelfTest runs a driver against known answers and against itself. It takes
// about a millisecond. Errors: ErrBroken, saying in what.
func SelfTest(d Driver) error {
	var errs []error
	if s, ok := d.(Sealer); ok {
		errs = append(errs, testSealer(s))
	}
	if g, ok := d.(Digester); ok {
		errs = append(errs, testDigester(g))
	}
	if s, ok := d.(Signer); ok {
		errs = append(errs, testSigner(s))
	}
	return errors.Join(errs...)
}

func testSealer(s Sealer) error {
	c, err := s.NewSM4GCM(raw(gcmKey))
	if err != nil {
		return fmt.Errorf("%w: %s: load key: %w", ErrBroken, CapSM4GCM, err)
	}
	sealed, err := c.SealSM4GCM(nil, raw(gcmNonce), raw(gcmPlain), raw(gcmAAD))
	if err != nil || !bytes.Equal(sealed, raw(gcmSealed)) {
		return fmt.Errorf("%w: %s: seal: got %x, error %v", ErrBroken, CapSM4GCM, sealed, err) //nolint:errorlint // it is told, not wrapped: it may be nil here
	}
	plain, err := c.OpenSM4GCM(nil, raw(gcmNonce), sealed, raw(gcmAAD))
	if err != nil || !bytes.Equal(plain, raw(gcmPlain)) {
		return fmt.Errorf("%w: %s: open: got %x, error %v", ErrBroken, CapSM4GCM, plain, err) //nolint:errorlint // it is told, not wrapped: it may be nil here
	}
	// A library that never looks at the tag passes everything above.
	sealed[len(sealed)-1] ^= 1
	if plain, err := c.OpenSM4GCM(nil, raw(gcmNonce), sealed, raw(gcmAAD)); !errors.Is(err, ErrAuthentication) || plain != nil {
		return fmt.Errorf("%w: %s: opened with a wrong tag, error %v", ErrBroken, CapSM4GCM, err) //nolint:errorlint // it is told, not wrapped: it may be nil here
	}
	return nil
}

func testDigester(g Digester) error {
	got, err := g.DigestSM3([]byte(sm3Message))
	if err != nil || !bytes.Equal(got[:], raw(sm3Digest)) {
		return fmt.Errorf("%w: %s: got %x, error %v", ErrBroken, CapSM3, got, err) //nolint:errorlint // it is told, not wrapped: it may be nil here
	}
	return nil
}

func testSigner(s Signer) error {
	key, err := s.LoadSM2(raw(sm2Secret))
	if err != nil {
		return fmt.Errorf("%w: %s: load key: %w", ErrBroken, CapSM2, err)
	}
	if !bytes.Equal(key.Public(), raw(sm2Public)) {
		return fmt.Errorf("%w: %s: public key is %x", ErrBroken, CapSM2, key.Public())
	}
	own, err := key.SignSM2([]byte(sm2Message))
	if err != nil {
		return fmt.Errorf("%w: %s: sign: %w", ErrBroken, CapSM2, err)
	}
	for _, v := range []struct {
		what      string
		message   string
		signature []byte
		want      bool
	}{
		{"the standard's signature", sm2Message, raw(sm2Signature), true},
		{"its own signature", sm2Message, own, true},
		{"a signature of another message", sm2Message + ".", raw(sm2Signature), false},
		{"a signature with a byte after it", sm2Message, append(raw(sm2Signature), 0), false},
	} {
		got, err := s.VerifySM2(raw(sm2Public), []byte(v.message), v.signature)
		if err != nil || got != v.want {
			return fmt.Errorf("%w: %s: verify %s: got %v, error %v", ErrBroken, CapSM2, v.what, got, err) //nolint:errorlint // it is told, not wrapped: it may be nil here
		}
	}
	return nil
}

// raw decodes the constants above, which the tests prove to be hex.
func raw(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

package driver_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

// digestOnly has one capability.
type digestOnly struct {
	name string
	flip byte
}

func (d digestOnly) Name() string           { return d.name }
func (d digestOnly) Implementation() string { return "test" }

func (d digestOnly) DigestSM3(data []byte) ([32]byte, error) {
	out, err := soft.Driver{}.DigestSM3(data)
	out[0] ^= d.flip
	return out, err
}

// tagless opens without looking at the tag, as one library does.
type tagless struct{ soft.Driver }

func (tagless) NewSM4GCM(key []byte) (driver.AEAD, error) {
	c, err := soft.Driver{}.NewSM4GCM(key)
	return taglessAEAD{c}, err
}

type taglessAEAD struct{ driver.AEAD }

func (a taglessAEAD) OpenSM4GCM(dst, nonce, sealed, aad []byte) ([]byte, error) {
	// GCM's keystream is the same for a text of zeros.
	body := sealed[:len(sealed)-driver.GCMTagSize]
	stream, err := a.SealSM4GCM(nil, nonce, make([]byte, len(body)), aad)
	for i := range body {
		dst = append(dst, body[i]^stream[i])
	}
	return dst, err
}

// lenient takes every signature.
type lenient struct{ soft.Driver }

func (lenient) VerifySM2(_, _, _ []byte) (bool, error) { return true, nil }

func TestSetRefuses(t *testing.T) {
	tests := []struct {
		name    string
		drivers []driver.Driver
		want    error
		text    string
	}{
		{"none", nil, driver.ErrUnsupported, "sm4-gcm"},
		{"one capability", []driver.Driver{digestOnly{name: "d"}}, driver.ErrUnsupported, "sm2-sign"},
		{"wrong digest", []driver.Driver{digestOnly{"d", 1}, soft.Driver{}}, driver.ErrBroken, `driver "d"`},
		{"no tag check", []driver.Driver{tagless{}}, driver.ErrBroken, "opened with a wrong tag"},
		{"every signature", []driver.Driver{lenient{}}, driver.ErrBroken, "a signature of another message"},
	}
	for _, tt := range tests {
		_, err := driver.NewSet(tt.drivers...)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: NewSet = %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
	}
}

func TestSetChoosesTheFirst(t *testing.T) {
	set, err := driver.NewSet(digestOnly{name: "fast"}, soft.Driver{}, digestOnly{name: "idle"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := set.Digester.(digestOnly); !ok {
		t.Errorf("Digester is %T, want the first that digests", set.Digester)
	}
	var got []string
	for _, m := range set.Members() {
		line := m.Driver.Name()
		for _, c := range driver.Capabilities(m.Driver) {
			line += " " + string(c)
		}
		if m.Active {
			line += " active"
		}
		got = append(got, line)
	}
	want := []string{"fast sm3 active", "soft sm4-gcm sm3 sm2-sign active", "idle sm3"}
	if !slices.Equal(got, want) {
		t.Errorf("Members = %q, want %q", got, want)
	}
	sum, err := set.DigestSM3([]byte("abc"))
	if err != nil || !bytes.HasPrefix(sum[:], []byte{0x66, 0xc7}) {
		t.Errorf("DigestSM3(abc) = %x, %v, want 66c7…", sum, err)
	}
}

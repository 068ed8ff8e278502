package soft_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

const (
	// GM/T 0003.5-2012 appendix A.2: key, "message digest" and signature.
	stdPublic = "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
	stdR      = "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
	stdS      = "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
	// Made by OpenSSL 3.0: pkeyutl -sign -rawin -digest sm3 -pkeyopt
	// distid:1234567812345678.
	sslPublic    = "0449353cf01d5bbab10067f8989cf56f80aa5e635cd8eb9a190045e84cd02a4bc2168e0bf86d5ce28d48f4aff4173c823ca579a673bbb5f42336a0e746beaff233"
	sslMessage   = "xinghuo reading 42"
	sslSignature = "3045022048caa80af9c2fac342babf997f7e799eaaa7ccb562bdb49afcf12a1e3b8ea563022100d88ba81442acbc3e8f8114b8b41dd736b450c01483fc04045a26d82c29867fcb"
	// The curve's order.
	order = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"
)

func der(r, s string) string {
	body := "0221" + "00" + r + "0221" + "00" + s
	return "3046" + body
}

func TestVerify(t *testing.T) {
	std := der(stdR, stdS)
	tests := []struct {
		name, public, message, signature string
		want                             bool
	}{
		{"standard", stdPublic, "message digest", std, true},
		{"openssl", sslPublic, sslMessage, sslSignature, true},
		{"other message", stdPublic, "message digesT", std, false},
		{"other key", sslPublic, "message digest", std, false},
		{"empty", stdPublic, "message digest", "", false},
		{"trailing byte", stdPublic, "message digest", std + "00", false},
		{"trailing byte inside", stdPublic, "message digest", "3047" + std[4:] + "00", false},
		{"truncated", stdPublic, "message digest", std[:len(std)-2], false},
		{"long length form", stdPublic, "message digest", "308146" + std[4:], false},
		{"indefinite length", stdPublic, "message digest", "3080" + std[4:] + "0000", false},
		{"padded integer", stdPublic, "message digest", "30470222" + "0000" + stdR + "022100" + stdS, false},
		{"negative integer", stdPublic, "message digest", "3045" + "0220" + stdR + "022100" + stdS, false},
		{"r = 0", stdPublic, "message digest", "3026" + "020100" + "022100" + stdS, false},
		{"s = 0", stdPublic, "message digest", "3026" + "022100" + stdR + "020100", false},
		{"r = n", stdPublic, "message digest", der(order, stdS), false},
		{"s = n", stdPublic, "message digest", der(stdR, order), false},
		{"r, s swapped", stdPublic, "message digest", der(stdS, stdR), false},
		{"huge integers", stdPublic, "message digest", "3082020a02820206" + strings.Repeat("7f", 0x206), false},
	}
	for _, tt := range tests {
		got, err := soft.Driver{}.VerifySM2(raw(t, tt.public), []byte(tt.message), raw(t, tt.signature))
		if got != tt.want || err != nil {
			t.Errorf("%s: VerifySM2 = %v, %v, want %v, nil", tt.name, got, err, tt.want)
		}
	}
}

// The library's sum of two equal points is infinity, whose x it gives as 0.
// With the secret d one can choose s = t·d so that this happens, and r = e
// would then verify.
func TestVerifyRefusesInfinity(t *testing.T) {
	for _, name := range []string{"P + P", "P - P"} {
		public, signature := infinitySignature(t, name == "P + P", []byte("forged"))
		if got, err := (soft.Driver{}).VerifySM2(public, []byte("forged"), signature); got || err != nil {
			t.Errorf("%s: VerifySM2 = %v, %v, want false, nil", name, got, err)
		}
	}
}

func TestPublicKeyRefused(t *testing.T) {
	p := "fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff"
	zero := strings.Repeat("00", 32)
	tests := map[string]string{
		"empty":              "",
		"short":              stdPublic[:128],
		"long":               stdPublic + "00",
		"compressed":         "02" + stdPublic[2:66],
		"compressed, padded": "02" + stdPublic[2:],
		"hybrid":             "06" + stdPublic[2:],
		"not on the curve":   stdPublic[:128] + "14",
		"origin":             "04" + zero + zero,
		"x = p":              "04" + p + stdPublic[66:],
		"y = p":              "04" + stdPublic[2:66] + p,
		"all ones":           "04" + strings.Repeat("ff", 64),
	}
	for name, public := range tests {
		if ok, err := (soft.Driver{}).VerifySM2(raw(t, public), []byte("m"), raw(t, der(stdR, stdS))); ok || !errors.Is(err, driver.ErrPublicKey) {
			t.Errorf("%s: VerifySM2 = %v, %v, want false, ErrPublicKey", name, ok, err)
		}
	}
}

func TestSecretRefused(t *testing.T) {
	last := []byte(order)
	tests := map[string]string{
		"empty": "",
		"short": strings.Repeat("01", 31),
		"long":  strings.Repeat("01", 33),
		"zero":  strings.Repeat("00", 32),
		"n - 1": string(append(last[:len(last)-1:len(last)-1], '2')),
		"n":     order,
		"ones":  strings.Repeat("ff", 32),
	}
	for name, secret := range tests {
		if _, err := (soft.Driver{}).LoadSM2(raw(t, secret)); !errors.Is(err, driver.ErrKey) {
			t.Errorf("%s: LoadSM2 = %v, want ErrKey", name, err)
		}
	}
}

func TestSignRoundTrip(t *testing.T) {
	d := soft.Driver{}
	for i := range 40 {
		secret, err := d.GenerateSM2()
		if err != nil {
			t.Fatal(err)
		}
		key, err := d.LoadSM2(secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := key.Public(), multiple(secret); !bytes.Equal(got, want) {
			t.Errorf("Public(%x) = %x, want %x", secret, got, want)
		}
		message := bytes.Repeat([]byte{byte(i)}, i*7)
		signature, err := key.SignSM2(message)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := d.VerifySM2(key.Public(), message, signature); !ok || err != nil {
			t.Errorf("VerifySM2(own signature %x) = %v, %v, want true", signature, ok, err)
		}
	}
}

func TestDigest(t *testing.T) {
	tests := map[string]string{ // GB/T 32905-2016 appendix A; the empty message: RFC draft-sca-cfrg-sm3
		"abc":                      "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
		strings.Repeat("abcd", 16): "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
		"":                         "1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b",
	}
	for message, want := range tests {
		got, err := soft.Driver{}.DigestSM3([]byte(message))
		if err != nil || hex.EncodeToString(got[:]) != want {
			t.Errorf("DigestSM3(%q) = %x, %v, want %s", message, got, err, want)
		}
	}
}

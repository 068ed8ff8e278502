package soft_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tjfoc/gmsm/sm4"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver/soft"
)

func raw(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("decode %q: %v", s, err)
	}
	return b
}

func newGCM(t testing.TB, key []byte) driver.AEAD {
	t.Helper()
	c, err := soft.Driver{}.NewSM4GCM(key)
	if err != nil {
		t.Fatalf("NewSM4GCM(%x) = %v", key, err)
	}
	return c
}

// GB/T 32907-2016 appendix A: one block, and the same block a million times.
func TestBlockVectors(t *testing.T) {
	block, err := sm4.NewCipher(raw(t, "0123456789abcdeffedcba9876543210"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		times int
		want  string
	}{
		{1, "681edf34d206965e86b3e94f536e4246"},
		{1_000_000, "595298c7c6fd271f0402f804c33d3f66"},
	} {
		got := raw(t, "0123456789abcdeffedcba9876543210")
		for range tt.times {
			block.Encrypt(got, got)
		}
		if hex.EncodeToString(got) != tt.want {
			t.Errorf("Encrypt, %d times = %x, want %s", tt.times, got, tt.want)
		}
	}
}

// RFC 8998 appendix A.1.
func TestGCMVector(t *testing.T) {
	c := newGCM(t, raw(t, "0123456789abcdeffedcba9876543210"))
	nonce, aad := raw(t, "00001234567800000000abcd"), raw(t, "feedfacedeadbeeffeedfacedeadbeefabaddad2")
	plain := raw(t, "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa")
	want := raw(t, "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec")
	got, err := c.SealSM4GCM([]byte("head"), nonce, plain, aad)
	if err != nil || !bytes.Equal(got, append([]byte("head"), want...)) {
		t.Errorf("SealSM4GCM = %x, %v, want head then %x", got, err, want)
	}
	for i := range len(want) * 8 {
		bad := bytes.Clone(want)
		bad[i/8] ^= 1 << (i % 8)
		if out, err := c.OpenSM4GCM(nil, nonce, bad, aad); out != nil || !errors.Is(err, driver.ErrAuthentication) {
			t.Fatalf("OpenSM4GCM with bit %d flipped = %x, %v, want nil, ErrAuthentication", i, out, err)
		}
	}
}

func TestGCMRefuses(t *testing.T) {
	for _, size := range []int{0, 15, 17, 32} {
		if _, err := (soft.Driver{}).NewSM4GCM(make([]byte, size)); !errors.Is(err, driver.ErrKey) {
			t.Errorf("NewSM4GCM(%d bytes) = %v, want ErrKey", size, err)
		}
	}
	c := newGCM(t, make([]byte, 16))
	for _, size := range []int{0, 258} {
		if out, err := c.SealSM4GCM(nil, make([]byte, size), []byte("x"), nil); out != nil || !errors.Is(err, driver.ErrNonce) {
			t.Errorf("SealSM4GCM(nonce of %d) = %x, %v, want nil, ErrNonce", size, out, err)
		}
	}
	for size := range driver.GCMTagSize + 1 {
		if out, err := c.OpenSM4GCM(nil, make([]byte, 12), make([]byte, size), nil); out != nil || !errors.Is(err, driver.ErrAuthentication) {
			t.Errorf("OpenSM4GCM(%d zero bytes) = %x, %v, want nil, ErrAuthentication", size, out, err)
		}
	}
	// Overlapping buffers make the standard library panic; here they are an error.
	buf := make([]byte, 64)
	if out, err := c.SealSM4GCM(buf[1:1], make([]byte, 12), buf[:32], nil); out != nil || !errors.Is(err, driver.ErrBroken) {
		t.Errorf("SealSM4GCM(overlapping) = %x, %v, want nil, ErrBroken", out, err)
	}
}

type wycheproof struct {
	TestGroups []struct {
		Tests []struct {
			ID     int    `json:"tcId"`
			Key    string `json:"key"`
			IV     string `json:"iv"`
			AAD    string `json:"aad"`
			Msg    string `json:"msg"`
			CT     string `json:"ct"`
			Tag    string `json:"tag"`
			Result string `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// sharedFile returns a file of the data that lies beside the repository, or
// skips the test.
func sharedFile(t *testing.T, name string) []byte {
	t.Helper()
	file := filepath.Join("..", "..", "..", "..", "..", "..", "shared", "data", name)
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("shared data %s is absent", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWycheproof(t *testing.T) {
	var suite wycheproof
	if err := json.Unmarshal(sharedFile(t, "wycheproof/sm4_gcm_test.json"), &suite); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, group := range suite.TestGroups {
		for _, v := range group.Tests {
			ran++
			c := newGCM(t, raw(t, v.Key))
			iv, aad, msg := raw(t, v.IV), raw(t, v.AAD), raw(t, v.Msg)
			sealed := append(raw(t, v.CT), raw(t, v.Tag)...)
			got, err := c.OpenSM4GCM(nil, iv, sealed, aad)
			if v.Result == "valid" {
				if err != nil || !bytes.Equal(got, msg) {
					t.Errorf("%d: open = %x, %v, want %x", v.ID, got, err, msg)
				}
				if got, err := c.SealSM4GCM(nil, iv, msg, aad); err != nil || !bytes.Equal(got, sealed) {
					t.Errorf("%d: seal = %x, %v, want %x", v.ID, got, err, sealed)
				}
			} else if err == nil || got != nil {
				t.Errorf("%d: open = %x, %v, want an error and nothing else", v.ID, got, err)
			}
		}
	}
	if ran != 104 {
		t.Errorf("ran %d vectors, want 104", ran)
	}
}

// One cipher, eight goroutines: the library's block alone fails this.
func TestGCMConcurrent(t *testing.T) {
	c := newGCM(t, []byte("0123456789abcdef"))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			nonce := make([]byte, 12)
			nonce[0] = byte(g)
			plain := bytes.Repeat([]byte{byte(g)}, 40)
			for i := range 500 {
				binary.BigEndian.PutUint64(nonce[4:], uint64(i))
				sealed, err := c.SealSM4GCM(nil, nonce, plain, nil)
				if err != nil {
					t.Errorf("goroutine %d seal %d: %v", g, i, err)
					return
				}
				if got, err := c.OpenSM4GCM(nil, nonce, sealed, nil); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("goroutine %d open %d = %x, %v", g, i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

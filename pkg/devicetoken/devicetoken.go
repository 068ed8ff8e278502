// Package devicetoken makes and checks the tokens by which devices open the
// node's door.
//
// A token is the base64url form of HMAC-SHA256 (RFC 2104) over the device's id
// under the node's token key. So each device has a token of its own, and the
// node keeps one key instead of a list.
package devicetoken

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// KeySize is the length of a token key in bytes.
const KeySize = 32

// context keeps a token from being anything else under the same key.
const context = "xinghuo-device-token.v1:"

// Key is a node's token key.
type Key [KeySize]byte

// Token returns the token of a device.
func (k *Key) Token(device string) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte(context + device))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Valid reports in constant time whether token is the device's.
func (k *Key) Valid(device, token string) bool {
	return hmac.Equal([]byte(k.Token(device)), []byte(token))
}

// Load reads a key file: 32 bytes, which only its owner may read or write.
func Load(path string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read token key: %w", err)
	}
	if info.Size() != KeySize {
		return nil, fmt.Errorf("read token key %s: must be %d bytes, is %d", path, KeySize, info.Size())
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("read token key %s: must not be open to others, mode is %04o", path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read token key: %w", err)
	}
	return (*Key)(raw), nil
}

// LoadOrCreate reads a key file, and draws a new key when there is none.
func LoadOrCreate(path string) (*Key, error) {
	k, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k = new(Key)
	if _, err := rand.Read(k[:]); err != nil {
		return nil, fmt.Errorf("draw token key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) { // another process was faster; its key is the node's
		return Load(path)
	}
	if err != nil {
		return nil, fmt.Errorf("create token key: %w", err)
	}
	_, werr := f.Write(k[:])
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write token key %s: %w", path, err)
	}
	return k, nil
}

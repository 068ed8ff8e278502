package keyring

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

const (
	keyMagic     = "XHK1"
	keyHeader    = 17
	nonceMagic   = "XHN1"
	nonceHeader  = 8
	counterBytes = 8
)

var errDamaged = errors.New("damaged, or sealed under another master key")

// record is a key as its file holds it.
type record struct {
	kind    Kind
	version uint32
	created time.Time
	secret  []byte
}

func secretSize(k Kind) int {
	if k == KindSM2 {
		return driver.SM2SecretSize
	}
	return driver.SM4KeySize
}

func (r record) seal(master driver.AEAD, handle string) ([]byte, error) {
	head := append(make([]byte, 0, maxFile), keyMagic...)
	head = append(head, byte(r.kind))
	head = binary.BigEndian.AppendUint32(head, r.version)
	head = binary.BigEndian.AppendUint64(head, uint64(r.created.UnixNano()))
	return sealFile(master, head, handle, r.secret)
}

func openRecord(master driver.AEAD, handle string, version uint32, data []byte) (record, error) {
	if len(data) < keyHeader || string(data[:4]) != keyMagic {
		return record{}, errDamaged
	}
	r := record{
		kind:    Kind(data[4]),
		version: binary.BigEndian.Uint32(data[5:]),
		created: time.Unix(0, int64(binary.BigEndian.Uint64(data[9:]))),
	}
	secret, err := openFile(master, data, keyHeader, handle)
	if err != nil {
		return record{}, err
	}
	if !r.kind.known() || r.version != version || len(secret) != secretSize(r.kind) {
		return record{}, errDamaged
	}
	r.secret = secret
	return r, nil
}

func sealReserved(master driver.AEAD, handle string, version uint32, reserved uint64) ([]byte, error) {
	head := append(make([]byte, 0, maxFile), nonceMagic...)
	head = binary.BigEndian.AppendUint32(head, version)
	return sealFile(master, head, handle, binary.BigEndian.AppendUint64(nil, reserved))
}

func openReserved(master driver.AEAD, handle string, version uint32, data []byte) (uint64, error) {
	if len(data) < nonceHeader || string(data[:4]) != nonceMagic || binary.BigEndian.Uint32(data[4:]) != version {
		return 0, errDamaged
	}
	plain, err := openFile(master, data, nonceHeader, handle)
	if err != nil {
		return 0, err
	}
	if len(plain) != counterBytes {
		return 0, errDamaged
	}
	return binary.BigEndian.Uint64(plain), nil
}

// sealFile seals a secret under the master key, bound to the file's header and
// to the handle, so that no file passes for another. The nonce is random: a
// file is written some times a second at most, and 2^32 of them are safe.
func sealFile(master driver.AEAD, head []byte, handle string, secret []byte) ([]byte, error) {
	nonce := make([]byte, driver.GCMNonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	aad := append(append([]byte(nil), head...), handle...)
	return master.SealSM4GCM(append(head, nonce...), nonce, secret, aad)
}

func openFile(master driver.AEAD, data []byte, head int, handle string) ([]byte, error) {
	if len(data) < head+driver.GCMNonceSize+driver.GCMTagSize {
		return nil, errDamaged
	}
	aad := append(append([]byte(nil), data[:head]...), handle...)
	body := data[head:]
	plain, err := master.OpenSM4GCM(nil, body[:driver.GCMNonceSize], body[driver.GCMNonceSize:], aad)
	if errors.Is(err, driver.ErrAuthentication) {
		return nil, errDamaged
	}
	return plain, err
}

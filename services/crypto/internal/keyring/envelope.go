package keyring

import (
	"encoding/binary"

	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
)

const (
	boxVersion  = 1
	boxSM4GCM   = 1
	boxHeader   = 6 + driver.GCMNonceSize
	boxOverhead = boxHeader + driver.GCMTagSize
)

// sealBox seals one item. The format stands in the package's comment.
func sealBox(c driver.AEAD, handle string, version uint32, nonce [driver.GCMNonceSize]byte, item Item) ([]byte, error) {
	box := make([]byte, 0, boxOverhead+len(item.Data))
	box = append(box, boxVersion, boxSM4GCM)
	box = binary.BigEndian.AppendUint32(box, version)
	box = append(box, nonce[:]...)
	return c.SealSM4GCM(box, nonce[:], item.Data, boxAAD(box, handle, item.AAD))
}

// boxKeyVersion returns the key version that a box names; false for what is
// no box of ours.
func boxKeyVersion(box []byte) (uint32, bool) {
	if len(box) < boxOverhead || box[0] != boxVersion || box[1] != boxSM4GCM {
		return 0, false
	}
	return binary.BigEndian.Uint32(box[2:]), true
}

// openBox opens one item that boxKeyVersion knows.
func openBox(c driver.AEAD, handle string, item Item) ([]byte, error) {
	head, body := item.Data[:boxHeader], item.Data[boxHeader:]
	return c.OpenSM4GCM(nil, head[6:], body, boxAAD(head, handle, item.AAD))
}

// boxAAD returns what the tag binds beside the plaintext. The handle's length
// keeps handle and associated data apart.
func boxAAD(head []byte, handle string, aad []byte) []byte {
	out := make([]byte, 0, len(head)+1+len(handle)+len(aad))
	out = append(out, head...)
	out = append(out, byte(len(handle)))
	out = append(out, handle...)
	return append(out, aad...)
}

package lorawan

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// Key is a session key of 128 bits.
type Key [aes.BlockSize]byte

// cmac computes AES-CMAC (RFC 4493). It keeps its working block, so that a
// computation allocates nothing; it is for one goroutine.
type cmac struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte
	x      [aes.BlockSize]byte
}

func newCMAC(key Key) (*cmac, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("make AES: %w", err)
	}
	c := &cmac{block: block}
	block.Encrypt(c.k1[:], c.k1[:])
	double(&c.k1)
	c.k2 = c.k1
	double(&c.k2)
	return c, nil
}

// double multiplies by x in GF(2¹²⁸), as the subkeys of RFC 4493 §2.3 need.
func double(b *[aes.BlockSize]byte) {
	carry := b[0] >> 7
	for i := range b[:aes.BlockSize-1] {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[aes.BlockSize-1] = b[aes.BlockSize-1]<<1 ^ carry*0x87
}

// sum returns the code of head, which is one block, followed by msg. The array
// it points to is the cmac's own.
func (c *cmac) sum(head *[aes.BlockSize]byte, msg []byte) *[aes.BlockSize]byte {
	x := &c.x
	*x = *head
	for len(msg) > aes.BlockSize {
		c.block.Encrypt(x[:], x[:])
		subtle.XORBytes(x[:], x[:], msg[:aes.BlockSize])
		msg = msg[aes.BlockSize:]
	}
	if len(msg) > 0 {
		c.block.Encrypt(x[:], x[:])
	}
	switch len(msg) {
	case 0: // head is the last block, and whole
		subtle.XORBytes(x[:], x[:], c.k1[:])
	case aes.BlockSize:
		subtle.XORBytes(x[:], x[:], msg)
		subtle.XORBytes(x[:], x[:], c.k1[:])
	default:
		subtle.XORBytes(x[:], x[:], msg)
		x[len(msg)] ^= 0x80
		subtle.XORBytes(x[:], x[:], c.k2[:])
	}
	c.block.Encrypt(x[:], x[:])
	return x
}

package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/driver"
	"github.com/xinghuo-edge/xinghuo/services/crypto/internal/limit"
)

// Item is one thing to seal or to open.
type Item struct {
	Data []byte // the plaintext, at most limit.MaxData; or the box
	AAD  []byte // bound to it and not in it, at most limit.MaxAAD
}

// Seal seals a batch, all of it or nothing. Errors: fault.ErrInvalid,
// fault.ErrNotFound, fault.ErrPrecondition for a key of another kind,
// fault.ErrExhausted after MaxSeals, the context's.
func (k *Keyring) Seal(ctx context.Context, handle string, items []Item) ([][]byte, error) {
	e, err := k.batch(handle, items, "plaintext", 0)
	if err != nil {
		return nil, err
	}
	boxes := make([][]byte, len(items))
	for i, item := range items {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("seal with key %q: %w", handle, err)
		}
		nonce, err := e.nonces.nonce(ctx)
		if err != nil {
			return nil, err
		}
		if boxes[i], err = sealBox(e.seal, handle, e.key.Version, nonce, item); err != nil {
			return nil, fmt.Errorf("seal with key %q: %w", handle, err)
		}
	}
	return boxes, nil
}

// Open opens a batch, all of it or nothing. Errors: as Seal; fault.ErrInvalid,
// naming the item and not the reason, for a box that does not open.
func (k *Keyring) Open(ctx context.Context, handle string, items []Item) ([][]byte, error) {
	e, err := k.batch(handle, items, "box", boxOverhead)
	if err != nil {
		return nil, err
	}
	plain := make([][]byte, len(items))
	for i, item := range items {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("open with key %q: %w", handle, err)
		}
		// A wrong header, a wrong version and a wrong tag look the same.
		refused := fault.Invalid(fmt.Sprintf("items[%d].box", i), "does not open")
		if version, ok := boxKeyVersion(item.Data); !ok || version != e.key.Version {
			return nil, refused
		}
		plain[i], err = openBox(e.seal, handle, item)
		if errors.Is(err, driver.ErrAuthentication) {
			return nil, refused
		}
		if err != nil {
			return nil, fmt.Errorf("open with key %q: %w", handle, err)
		}
	}
	return plain, nil
}

// batch finds the key and checks the limits.
func (k *Keyring) batch(handle string, items []Item, field string, extra int) (*entry, error) {
	sum, err := limit.NewBatch(len(items), field, extra)
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		if err := sum.Add(i, len(item.Data), len(item.AAD)); err != nil {
			return nil, err
		}
	}
	return k.getKind(handle, KindSM4)
}

// Sign signs a message with SM2 and returns DER. Errors: fault.ErrInvalid,
// fault.ErrNotFound, fault.ErrPrecondition for a key of another kind.
func (k *Keyring) Sign(handle string, message []byte) ([]byte, error) {
	if err := limit.Size("message", len(message), limit.MaxData); err != nil {
		return nil, err
	}
	e, err := k.getKind(handle, KindSM2)
	if err != nil {
		return nil, err
	}
	signature, err := e.sign.SignSM2(message)
	if err != nil {
		return nil, fmt.Errorf("sign with key %q: %w", handle, err)
	}
	return signature, nil
}

// Verify reports whether a signature is the key's over the message. Errors: as
// Sign.
func (k *Keyring) Verify(handle string, message, signature []byte) (bool, error) {
	if err := limit.Size("message", len(message), limit.MaxData); err != nil {
		return false, err
	}
	e, err := k.getKind(handle, KindSM2)
	if err != nil {
		return false, err
	}
	return k.crypto.VerifySM2(e.key.Public, message, signature)
}

func (k *Keyring) getKind(handle string, kind Kind) (*entry, error) {
	e, err := k.get("key_handle", handle)
	if err != nil {
		return nil, err
	}
	if e.key.Kind != kind {
		return nil, fmt.Errorf("%w: key %q is for %v, this call needs %v", fault.ErrPrecondition, handle, e.key.Kind, kind)
	}
	return e, nil
}

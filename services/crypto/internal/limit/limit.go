// Package limit says how much the crypto service takes, and refuses more by
// naming the field, the limit and the value.
package limit

import (
	"fmt"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// What one call may carry. A batch at its limit, sealed, stays below the 4 MiB
// of a gRPC message.
const (
	MaxData   = 1 << 20  // bytes of one plaintext or message
	MaxAAD    = 64 << 10 // bytes of associated data of one item
	MaxItems  = 1024     // items of a batch
	MaxBatch  = 3 << 20  // bytes of a batch: plaintexts and associated data
	MaxHandle = 64       // bytes of a key's handle
)

// Handle checks a key's handle: 1 to 64 of [A-Za-z0-9_-]. A handle is part of
// a file name, so nothing else may pass. Errors: fault.ErrInvalid.
func Handle(field, value string) error {
	if len(value) < 1 || len(value) > MaxHandle {
		return fault.Invalid(field, "must be 1 to %d bytes, is %d", MaxHandle, len(value))
	}
	for i := range len(value) {
		if c := value[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return fault.Invalid(field, "must be of [A-Za-z0-9_-], has %q at byte %d", c, i)
		}
	}
	return nil
}

// Size checks a number of bytes. Errors: fault.ErrInvalid.
func Size(field string, size, limit int) error {
	if size > limit {
		return fault.Invalid(field, "must be at most %d bytes, is %d", limit, size)
	}
	return nil
}

// Batch adds up a batch's items.
type Batch struct {
	data  string // the name of an item's first field
	extra int    // bytes of it that its sealing added
	total int
}

// NewBatch checks the number of items. The name is that of the items' first
// field; extra is how many bytes of it do not count. Errors: fault.ErrInvalid.
func NewBatch(items int, name string, extra int) (*Batch, error) {
	if items < 1 || items > MaxItems {
		return nil, fault.Invalid("items", "must be 1 to %d items, is %d", MaxItems, items)
	}
	return &Batch{data: name, extra: extra}, nil
}

// Add checks item i, and the sum of the items so far. Errors: fault.ErrInvalid.
func (b *Batch) Add(i, data, aad int) error {
	if err := Size(fmt.Sprintf("items[%d].%s", i, b.data), data, MaxData+b.extra); err != nil {
		return err
	}
	if err := Size(fmt.Sprintf("items[%d].associated_data", i), aad, MaxAAD); err != nil {
		return err
	}
	b.total += max(0, data-b.extra) + aad
	return Size("items", b.total, MaxBatch)
}

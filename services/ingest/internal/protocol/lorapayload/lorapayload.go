// Package lorapayload reads what LoRaWAN sensors send to their application:
// one decoder a model, by the makers' published formats.
package lorapayload

import (
	"errors"
	"fmt"
	"slices"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

// Errors of decoding. They are matched with errors.Is.
var (
	// ErrPort means that the model sends nothing on the port.
	ErrPort = errors.New("lorapayload: unknown port")
	// ErrPayload means that the payload is not of the model's format.
	ErrPayload = errors.New("lorapayload: malformed payload")
	// ErrStored means that the payload holds measurements of earlier, sent again
	// because they were asked for or lost: they have their own times and are not
	// what is measured now.
	ErrStored = errors.New("lorapayload: stored measurements")
	// ErrModel means that there is no decoder for the model.
	ErrModel = errors.New("lorapayload: unknown model")
)

// Decoder appends the values in a payload of 0 to 242 bytes to dst. On an error
// dst comes back as it was. A payload that tells only of the device itself, as
// after a join, has no values. Numbers allocate nothing when dst has room.
type Decoder func(dst []protocol.Value, port uint8, payload []byte) ([]protocol.Value, error)

var decoders = map[string]Decoder{
	"dragino-lht65":      LHT65,
	"milesight-em300-th": EM300TH,
}

// Lookup returns the decoder for a model: `dragino-lht65` or
// `milesight-em300-th`.
func Lookup(model string) (Decoder, error) {
	d, ok := decoders[model]
	if !ok {
		return nil, fmt.Errorf("%w: must be one of %v, is %.40q", ErrModel, Models(), model)
	}
	return d, nil
}

// Models returns the names that Lookup knows, sorted.
func Models() []string {
	var names []string
	for name := range decoders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

package lorapayload

import (
	"encoding/binary"
	"fmt"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

// The ports of an EM300-TH: the one in the published examples, and the one it
// has when it leaves the factory.
const em300Port, em300FactoryPort = 1, 85

// em300Channels are the channels of an EM300-TH, by channel and type, with the
// length of what follows. Those without a name tell of the device itself.
var em300Channels = map[uint16]struct {
	size int
	name string
}{
	0x0175: {1, "battery_percent"},
	0x0367: {2, "temperature_celsius"},
	0x0468: {1, "humidity_percent"},
	0xFF01: {1, ""}, // protocol version
	0xFF09: {2, ""}, // hardware version
	0xFF0A: {2, ""}, // firmware version
	0xFF0B: {1, ""}, // power on
	0xFF0F: {1, ""}, // LoRaWAN class
	0xFF16: {8, ""}, // serial number
	0xFFFE: {1, ""}, // reset
	0xFFFF: {2, ""}, // version of the description
}

const em300History = 0x20CE

// EM300TH decodes the Milesight EM300-TH temperature and humidity sensor: ports
// 1 and 85, a row of channels, little-endian: battery in percent, temperature
// in 1/10 °C, humidity in 1/2 %. Format: the maker's page in
// Milesight-IoT/SensorDecoders. An unknown channel has no known length: it
// refuses the payload.
func EM300TH(dst []protocol.Value, port uint8, p []byte) ([]protocol.Value, error) {
	if port != em300Port && port != em300FactoryPort {
		return dst, fmt.Errorf("%w: EM300-TH sends on port %d or %d, this is port %d", ErrPort, em300Port, em300FactoryPort, port)
	}
	out := dst
	for at := 0; at < len(p); {
		if len(p)-at < 2 {
			return dst, fmt.Errorf("%w: EM300-TH ends within a channel, at byte %d", ErrPayload, at)
		}
		id := binary.BigEndian.Uint16(p[at:])
		if id == em300History {
			return dst, fmt.Errorf("%w: of EM300-TH", ErrStored)
		}
		c, ok := em300Channels[id]
		if !ok {
			return dst, fmt.Errorf("%w: EM300-TH with channel %04X at byte %d", ErrPayload, id, at)
		}
		at += 2
		if len(p)-at < c.size {
			return dst, fmt.Errorf("%w: EM300-TH ends within channel %04X", ErrPayload, id)
		}
		v := protocol.Value{Name: c.name}
		switch id {
		case 0x0175:
			v.Number = float64(p[at])
		case 0x0367:
			v.Number = float64(int16(binary.LittleEndian.Uint16(p[at:]))) / 10
		case 0x0468:
			v.Number = float64(p[at]) / 2
		}
		if v.Name != "" {
			for _, before := range out[len(dst):] {
				if before.Name == v.Name {
					return dst, fmt.Errorf("%w: EM300-TH with channel %04X twice", ErrPayload, id)
				}
			}
			out = append(out, v)
		}
		at += c.size
	}
	return out, nil
}

package lorapayload

import (
	"encoding/binary"
	"fmt"

	"github.com/xinghuo-edge/xinghuo/services/ingest/internal/protocol"
)

const (
	lht65Port = 2
	lht65Size = 11

	lht65Stored  = 0x40 // of the byte for the external sensor: an answer to a poll
	lht65Missing = 0x80 // the external sensor is not connected
	lht65Kind    = 0x0F
)

// lht65NoValue is what the thermometers of an LHT65 give when they have nothing.
const lht65NoValue = 0x7FFF

// LHT65 decodes the Dragino LHT65 temperature and humidity sensor: port 2, 11
// bytes, big-endian: battery (2 bits of status, 14 of mV), temperature (1/100
// °C), humidity (1/10 %), the kind of external sensor, and 4 bytes of it.
// Format: the maker's decoder in TheThingsNetwork/lorawan-devices.
func LHT65(dst []protocol.Value, port uint8, p []byte) ([]protocol.Value, error) {
	if port != lht65Port {
		return dst, fmt.Errorf("%w: LHT65 sends on port %d, this is port %d", ErrPort, lht65Port, port)
	}
	if len(p) != lht65Size {
		return dst, fmt.Errorf("%w: LHT65 sends %d bytes, these are %d", ErrPayload, lht65Size, len(p))
	}
	if p[6]&lht65Stored != 0 {
		return dst, fmt.Errorf("%w: of LHT65", ErrStored)
	}
	out, kind := dst, p[6]&lht65Kind
	number := func(name string, v float64) { out = append(out, protocol.Value{Name: name, Number: v}) }
	text := func(name, s string) { out = append(out, protocol.Value{Name: name, Text: s}) }
	celsius := func(name string, at int) {
		if v := int16(binary.BigEndian.Uint16(p[at:])); v != lht65NoValue {
			number(name, float64(v)/100)
		}
	}

	if kind == 9 { // the battery makes room for a time
		number("battery_status", float64(p[4]>>6))
	} else {
		number("battery_volts", float64(binary.BigEndian.Uint16(p)&0x3FFF)/1000)
		number("battery_status", float64(p[0]>>6))
	}
	if kind != 15 {
		celsius("temperature_celsius", 2)
		number("humidity_percent", float64(binary.BigEndian.Uint16(p[4:])&0x0FFF)/10)
	}
	if p[6]&lht65Missing != 0 {
		text("external_sensor", "not_connected")
		return out, nil
	}
	switch kind {
	case 0:
		text("external_sensor", "none")
	case 1:
		text("external_sensor", "temperature")
		celsius("external_temperature_celsius", 7)
	case 4:
		text("external_sensor", "interrupt")
		number("interrupt_level", bit(p[7]))
		number("interrupt_raised", bit(p[8]))
	case 5:
		text("external_sensor", "illumination")
		number("illumination_lux", float64(binary.BigEndian.Uint16(p[7:])))
	case 6:
		text("external_sensor", "adc")
		number("external_volts", float64(binary.BigEndian.Uint16(p[7:]))/1000)
	case 7:
		text("external_sensor", "count")
		number("interrupt_count", float64(binary.BigEndian.Uint16(p[7:])))
	case 8:
		text("external_sensor", "count")
		number("interrupt_count", float64(binary.BigEndian.Uint32(p[7:])))
	case 9:
		text("external_sensor", "temperature_and_time")
		celsius("external_temperature_celsius", 0)
		number("measured_unix_seconds", float64(binary.BigEndian.Uint32(p[7:])))
	case 15:
		text("external_sensor", "identity")
		text("external_sensor_id", fmt.Sprintf("%X%X", p[2:6], p[7:11]))
	default:
		return dst, fmt.Errorf("%w: LHT65 with external sensor %d", ErrPayload, kind)
	}
	return out, nil
}

func bit(b byte) float64 {
	if b != 0 {
		return 1
	}
	return 0
}

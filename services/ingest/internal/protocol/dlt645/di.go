package dlt645

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// DI is a data identifier, DI3 in its highest byte, as the standard prints it:
// 02010100H is the voltage of phase A.
type DI uint32

// ParseDI reads eight hexadecimal digits, for example `02010100`.
func ParseDI(s string) (DI, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 8 {
		return 0, fmt.Errorf("data identifier: must have 8 hexadecimal digits, is %.40q", s)
	}
	return DI(n), nil
}

// String returns the eight hexadecimal digits.
func (di DI) String() string { return fmt.Sprintf("%08X", uint32(di)) }

func (di DI) at(i int) byte { return byte(di >> (8 * i)) }

func (di DI) wire() [4]byte {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(di))
	return b
}

// FrameDI returns the data identifier at the start of a reply to a read, and
// what follows it. ok is false when the frame has less than four bytes of data.
func (f *Frame) FrameDI() (di DI, data []byte, ok bool) {
	if f.n < 4 {
		return 0, nil, false
	}
	return DI(binary.LittleEndian.Uint32(f.data[:4])), f.data[4:f.n], true
}

// The highest byte of the identifiers that Lookup knows, and the byte that
// stands for a whole block.
const (
	diEnergy    = 0x00
	diDemand    = 0x01
	diVariable  = 0x02
	diParameter = 0x04
	diBlock     = 0xFF

	maxRate = 0x3F // tariff rates 1 to 63 (annex A.1)
	maxLast = 0x0C // settlement days 1 to 12 ago
)

// quantity is what tables A.1 and A.2 of the standard count, by DI2.
type quantity struct {
	name   string // before _energy or _max_demand
	energy string // unit of the energy
	power  string // unit of the demand
	signed bool   // the highest bit is the sign
}

var quantities = [...]quantity{
	0x00: {"combined_active", "kilowatt_hours", "", true},
	0x01: {"forward_active", "kilowatt_hours", "kilowatts", false},
	0x02: {"reverse_active", "kilowatt_hours", "kilowatts", false},
	0x03: {"combined_reactive_1", "kilovar_hours", "kilovars", true},
	0x04: {"combined_reactive_2", "kilovar_hours", "kilovars", true},
	0x05: {"quadrant_1_reactive", "kilovar_hours", "kilovars", false},
	0x06: {"quadrant_2_reactive", "kilovar_hours", "kilovars", false},
	0x07: {"quadrant_3_reactive", "kilovar_hours", "kilovars", false},
	0x08: {"quadrant_4_reactive", "kilovar_hours", "kilovars", false},
	0x09: {"forward_apparent", "kilovolt_ampere_hours", "kilovolt_amperes", false},
	0x0A: {"reverse_apparent", "kilovolt_ampere_hours", "kilovolt_amperes", false},
}

// phases are where DI2 of a phase's own quantities starts; the ten from
// forward active to reverse apparent follow in the order of quantities.
var phases = [...]struct {
	first  byte
	suffix string
}{{0x15, "_a"}, {0x29, "_b"}, {0x3D, "_c"}}

// quantityOf returns the quantity that DI2 names, and the suffix of its phase.
func quantityOf(di2 byte) (q quantity, phase string, ok bool) {
	if int(di2) < len(quantities) {
		return quantities[di2], "", true
	}
	for _, p := range phases {
		if di2 >= p.first && int(di2-p.first) < len(quantities)-1 {
			return quantities[di2-p.first+1], p.suffix, true
		}
	}
	return quantity{}, "", false
}

// variable is a line of table A.3: DI2, and its elements from DI1 = first on.
type variable struct {
	stem     string   // of the name, before the phase
	phases   []string // suffixes
	first    byte     // DI1 of phases[0]
	unit     string
	size     int
	decimals int
	signed   bool
}

var (
	threePhases    = []string{"_a", "_b", "_c"}
	totalAndPhases = []string{"", "_a", "_b", "_c"}
	variables      = [...]variable{
		0x01: {"voltage", threePhases, 1, "volts", 2, 1, false},
		0x02: {"current", threePhases, 1, "amperes", 3, 3, true},
		0x03: {"active_power", totalAndPhases, 0, "kilowatts", 3, 4, true},
		0x04: {"reactive_power", totalAndPhases, 0, "kilovars", 3, 4, true},
		0x05: {"apparent_power", totalAndPhases, 0, "kilovolt_amperes", 3, 4, true},
		0x06: {"power_factor", totalAndPhases, 0, "", 2, 3, true},
		0x07: {"phase_angle", threePhases, 1, "degrees", 2, 1, false},
		0x08: {"voltage_distortion", threePhases, 1, "percent", 2, 2, false},
		0x09: {"current_distortion", threePhases, 1, "percent", 2, 2, false},
	}
)

// single is an identifier that stands alone.
type single struct {
	name     string
	kind     kind
	size     int
	decimals int
	signed   bool
}

// singles are the rest of table A.3 (0280…) and of table A.5 (0400…) that
// tell what a meter measures or which it is.
var singles = map[DI]single{
	0x02800001: {"neutral_current_amperes", number, 3, 3, true},
	0x02800002: {"frequency_hertz", number, 2, 2, false},
	0x02800003: {"active_power_minute_mean_kilowatts", number, 3, 4, true},
	0x02800004: {"active_demand_kilowatts", number, 3, 4, true},
	0x02800005: {"reactive_demand_kilovars", number, 3, 4, true},
	0x02800006: {"apparent_demand_kilovolt_amperes", number, 3, 4, true},
	0x02800007: {"meter_temperature_celsius", number, 2, 1, true},
	0x02800008: {"clock_battery_volts", number, 2, 2, false},
	0x02800009: {"reading_battery_volts", number, 2, 2, false},
	0x0280000A: {"battery_used_minutes", number, 4, 0, false},
	0x04000101: {"meter_date", date, 4, 0, false},
	0x04000102: {"meter_time", clock, 3, 0, false},
	0x04000401: {"meter_address", digits, 6, 0, false},
	0x04000402: {"meter_number", digits, 6, 0, false},
}

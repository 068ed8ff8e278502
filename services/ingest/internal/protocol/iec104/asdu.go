package iec104

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Type is the type identification of an ASDU.
type Type uint8

// The types that this package understands.
const (
	SinglePoint       Type = 1   // M_SP_NA_1
	DoublePoint       Type = 3   // M_DP_NA_1
	Normalised        Type = 9   // M_ME_NA_1
	Scaled            Type = 11  // M_ME_NB_1
	ShortFloat        Type = 13  // M_ME_NC_1
	SinglePointTime   Type = 30  // M_SP_TB_1
	DoublePointTime   Type = 31  // M_DP_TB_1
	NormalisedTime    Type = 34  // M_ME_TD_1
	ScaledTime        Type = 35  // M_ME_TE_1
	ShortFloatTime    Type = 36  // M_ME_TF_1
	EndOfInit         Type = 70  // M_EI_NA_1
	InterrogationType Type = 100 // C_IC_NA_1
)

// layout is what the objects of a type look like.
type layout struct {
	name  string
	size  int // bytes of an object behind its address, with quality and time
	timed bool
}

var layouts = [...]layout{
	SinglePoint:       {"M_SP_NA_1", 1, false},
	DoublePoint:       {"M_DP_NA_1", 1, false},
	Normalised:        {"M_ME_NA_1", 3, false},
	Scaled:            {"M_ME_NB_1", 3, false},
	ShortFloat:        {"M_ME_NC_1", 5, false},
	SinglePointTime:   {"M_SP_TB_1", 1 + timeSize, true},
	DoublePointTime:   {"M_DP_TB_1", 1 + timeSize, true},
	NormalisedTime:    {"M_ME_TD_1", 3 + timeSize, true},
	ScaledTime:        {"M_ME_TE_1", 3 + timeSize, true},
	ShortFloatTime:    {"M_ME_TF_1", 5 + timeSize, true},
	EndOfInit:         {"M_EI_NA_1", 1, false},
	InterrogationType: {"C_IC_NA_1", 1, false},
}

func (t Type) layout() (layout, bool) {
	if int(t) >= len(layouts) || layouts[t].size == 0 {
		return layout{}, false
	}
	return layouts[t], true
}

// String returns the name that the standard gives the type.
func (t Type) String() string {
	if l, ok := t.layout(); ok {
		return l.name
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Cause is the cause of transmission, 0 to 63.
type Cause uint8

// Some causes.
const (
	Periodic              Cause = 1
	Spontaneous           Cause = 3
	Activation            Cause = 6
	ActivationConfirm     Cause = 7
	ActivationTermination Cause = 10
	Interrogated          Cause = 20
	UnknownType           Cause = 44
	UnknownCause          Cause = 45
	UnknownCommonAddress  Cause = 46
	UnknownObjectAddress  Cause = 47
)

const (
	asduHead    = 6 // type, qualifier, cause, originator, common address
	addressSize = 3
	// MaxObjects is the most objects of an ASDU.
	MaxObjects = 127
	// maxASDU is the longest ASDU.
	maxASDU = MaxAPDU - apciSize
)

// Errors of data units. They are matched with errors.Is.
var (
	// ErrUnknownType means that the type is not one of this package's. The frame
	// is in order: the connection goes on.
	ErrUnknownType = errors.New("iec104: unknown type")
	// ErrASDU means that an ASDU does not hold what its head says.
	ErrASDU = errors.New("iec104: malformed data unit")
)

// ASDU is one data unit. It lies in the bytes that were parsed.
type ASDU struct {
	// Type says what the objects are.
	Type Type
	// Count is the number of objects, 1 to 127.
	Count int
	// Cause is why it was sent.
	Cause Cause
	// Negative is the P/N bit: a request was refused.
	Negative bool
	// Test is the T bit: it was sent for a test and is not to be acted on.
	Test bool
	// Originator is the address of the station that asked, 0 when not used.
	Originator uint8
	// Common is the common address: which station, or part of one.
	Common uint16

	sequence bool
	layout   layout
	body     []byte
}

// ParseASDU reads a data unit. Its objects are then known to be there in full.
func ParseASDU(raw []byte) (ASDU, error) {
	if len(raw) < asduHead || len(raw) > maxASDU {
		return ASDU{}, fmt.Errorf("%w: must have %d to %d bytes, has %d", ErrASDU, asduHead, maxASDU, len(raw))
	}
	a := ASDU{
		Type:       Type(raw[0]),
		Count:      int(raw[1] & 0x7F),
		Cause:      Cause(raw[2] & 0x3F),
		Negative:   raw[2]&0x40 != 0,
		Test:       raw[2]&0x80 != 0,
		Originator: raw[3],
		Common:     binary.LittleEndian.Uint16(raw[4:]),
		sequence:   raw[1]&0x80 != 0,
		body:       raw[asduHead:],
	}
	l, ok := a.Type.layout()
	if !ok {
		return a, fmt.Errorf("%w: %d", ErrUnknownType, a.Type)
	}
	a.layout = l
	want := a.Count * (addressSize + l.size)
	if a.sequence {
		want = addressSize + a.Count*l.size
	}
	if a.Count == 0 || len(a.body) != want {
		return a, fmt.Errorf("%w: %v with %d objects must have %d bytes of them, has %d", ErrASDU, a.Type, a.Count, want, len(a.body))
	}
	if a.sequence && a.address(0)+uint32(a.Count) > 1<<24 {
		return a, fmt.Errorf("%w: %d objects from address %d", ErrASDU, a.Count, a.address(0))
	}
	return a, nil
}

func (a *ASDU) address(at int) uint32 {
	b := a.body[at : at+addressSize]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
}

// Object is one information object.
type Object struct {
	// Address is the information object address, 0 to 16777215.
	Address uint32
	// Value is 0 or 1 of a single point; 0 (between), 1 (off), 2 (on) or 3
	// (undetermined) of a double point; −1 to 1−2⁻¹⁵ normalised; −32768 to 32767
	// scaled; any float, NaN included; the qualifier of an interrogation or the
	// cause of an initialisation.
	Value float64
	// Quality is what the station says of the value.
	Quality Quality
	// Time is when the value changed; only with Timed.
	Time Time
	// Timed reports that the type carries a time. A time with a field out of its
	// range has Invalid set.
	Timed bool
}

// Object returns object i, 0 to Count-1.
func (a *ASDU) Object(i int) Object {
	var o Object
	at := addressSize + i*a.layout.size
	if a.sequence {
		o.Address = a.address(0) + uint32(i)
	} else {
		at += i * addressSize
		o.Address = a.address(at - addressSize)
	}
	b := a.body[at : at+a.layout.size]
	switch a.Type {
	case SinglePoint, SinglePointTime:
		o.Value, o.Quality = float64(b[0]&1), Quality(b[0]&pointQuality)
	case DoublePoint, DoublePointTime:
		o.Value, o.Quality = float64(b[0]&3), Quality(b[0]&pointQuality)
	case Normalised, NormalisedTime:
		o.Value, o.Quality = float64(int16(binary.LittleEndian.Uint16(b)))/modulus, Quality(b[2]&measuredQuality)
	case Scaled, ScaledTime:
		o.Value, o.Quality = float64(int16(binary.LittleEndian.Uint16(b))), Quality(b[2]&measuredQuality)
	case ShortFloat, ShortFloatTime:
		o.Value, o.Quality = float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), Quality(b[4]&measuredQuality)
	case EndOfInit, InterrogationType:
		o.Value = float64(b[0])
	}
	if a.layout.timed {
		t, ok := parseTime(b[len(b)-timeSize:])
		t.Invalid = t.Invalid || !ok
		o.Time, o.Timed = t, true
	}
	return o
}

// interrogation appends the ASDU that asks a station for all its values.
func interrogation(dst []byte, common uint16, originator uint8) []byte {
	dst = append(dst, byte(InterrogationType), 1, byte(Activation), originator)
	dst = binary.LittleEndian.AppendUint16(dst, common)
	return append(dst, 0, 0, 0, stationInterrogation)
}

// stationInterrogation is the qualifier for all of a station (QOI 20).
const stationInterrogation = 20

package abi

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

// The limits of a reading, in bytes and values.
const (
	MaxDevice = 64
	MaxSource = 64
	MaxName   = 64
	MaxText   = 256
	MaxValues = 64
)

const (
	headerSize = 24
	entrySize  = 4
	kindNumber = 0
	kindText   = 1
)

// Reading is what a device measured at one moment.
type Reading struct {
	Device   string
	Source   string
	Sequence uint64
	UnixNano int64 // 0 is unset
	Values   []Value
}

// Value is one measured quantity.
type Value struct {
	Name   string
	Number float64 // in the unit that the name states; not read when IsText
	Text   string
	IsText bool
}

// Append writes r in the form of doc.go. The error is a fault.FieldError.
func Append(dst []byte, r *Reading) ([]byte, error) {
	if err := check("device_id", r.Device, 1, MaxDevice); err != nil {
		return dst, err
	}
	if err := check("source", r.Source, 0, MaxSource); err != nil {
		return dst, err
	}
	if n := len(r.Values); n < 1 || n > MaxValues {
		return dst, fault.Invalid("reading.values", "must be 1 to %d values, are %d", MaxValues, n)
	}
	le := binary.LittleEndian
	dst = le.AppendUint64(dst, r.Sequence)
	dst = le.AppendUint64(dst, uint64(r.UnixNano))
	dst = le.AppendUint16(dst, uint16(len(r.Device)))
	dst = le.AppendUint16(dst, uint16(len(r.Source)))
	dst = le.AppendUint16(dst, uint16(len(r.Values)))
	dst = le.AppendUint16(dst, 0)
	dst = append(dst, r.Device...)
	dst = append(dst, r.Source...)
	for i := range r.Values {
		v := &r.Values[i]
		if len(v.Name) < 1 || len(v.Name) > MaxName {
			return dst, check(fmt.Sprintf("reading.values[%d].name", i), v.Name, 1, MaxName)
		}
		if !v.IsText {
			dst = append(dst, kindNumber, byte(len(v.Name)), 8, 0)
			dst = append(dst, v.Name...)
			dst = le.AppendUint64(dst, math.Float64bits(v.Number))
			continue
		}
		if len(v.Text) < 1 || len(v.Text) > MaxText {
			return dst, check(fmt.Sprintf("reading.values[%d].text", i), v.Text, 1, MaxText)
		}
		dst = append(dst, kindText, byte(len(v.Name)))
		dst = le.AppendUint16(dst, uint16(len(v.Text)))
		dst = append(dst, v.Name...)
		dst = append(dst, v.Text...)
	}
	return dst, nil
}

func check(field, s string, low, high int) error {
	if len(s) < low || len(s) > high {
		return fault.Invalid(field, "must be %d to %d bytes, is %d", low, high, len(s))
	}
	return nil
}

// errMalformed is bytes that are no reading.
var errMalformed = fmt.Errorf("%w: not a reading of xinghuo.policy.v1", fault.ErrInvalid)

// Parse is the inverse of Append. It is what a guest does, for tests and for a
// rewritten reading.
func Parse(raw []byte) (*Reading, error) {
	if len(raw) < headerSize {
		return nil, errMalformed
	}
	le := binary.LittleEndian
	device, source := int(le.Uint16(raw[16:])), int(le.Uint16(raw[18:]))
	count := int(le.Uint16(raw[20:]))
	r := &Reading{Sequence: le.Uint64(raw), UnixNano: int64(le.Uint64(raw[8:]))}
	rest := raw[headerSize:]
	if len(rest) < device+source || count > MaxValues || le.Uint16(raw[22:]) != 0 {
		return nil, errMalformed
	}
	r.Device, r.Source, rest = string(rest[:device]), string(rest[device:device+source]), rest[device+source:]
	for range count {
		if len(rest) < entrySize {
			return nil, errMalformed
		}
		kind, name, size := rest[0], int(rest[1]), int(le.Uint16(rest[2:]))
		rest = rest[entrySize:]
		if len(rest) < name+size {
			return nil, errMalformed
		}
		v := Value{Name: string(rest[:name])}
		payload := rest[name : name+size]
		rest = rest[name+size:]
		switch {
		case kind == kindNumber && size == 8:
			v.Number = math.Float64frombits(le.Uint64(payload))
		case kind == kindText:
			v.Text, v.IsText = string(payload), true
		default:
			return nil, errMalformed
		}
		r.Values = append(r.Values, v)
	}
	if len(rest) != 0 {
		return nil, errMalformed
	}
	return r, nil
}

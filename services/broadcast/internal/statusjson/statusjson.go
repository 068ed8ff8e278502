// Package statusjson writes a device's status as the JSON that leaves the node.
//
// The fields stand in this order:
//
//	{"device":"m1","time":"2026-01-02T03:04:05.6Z","connected":true,"sequence":7,"values":{"voltage_volts":231.4,"mode":"eco"}}
//
// time is RFC 3339 in UTC with as many digits as it needs. sequence is a number
// of up to 64 bits. A value is a number, written so that it reads back as the
// same float64, or a string. JSON has no NaN and no infinities: they are the
// strings "NaN", "Infinity" and "-Infinity", as in protojson.
package statusjson

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	telemetryv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/telemetry/v1"
)

// Status is what is written.
type Status struct {
	Device    string // a token; it is written as it is
	Time      time.Time
	Connected bool
	Sequence  uint64
	Values    []*telemetryv1.Value // names of [a-z0-9_]; they are written as they are
}

// Size returns how long Append's result will be at most for values without
// text that needs escapes, and about how long for others.
func Size(s *Status) int {
	const fixed, number = 130, 30
	n := fixed + len(s.Device)
	for _, v := range s.Values {
		n += len(v.GetName()) + len(v.GetText()) + number
	}
	return n
}

// Append appends the JSON of s to dst.
func Append(dst []byte, s *Status) []byte {
	dst = append(dst, `{"device":"`...)
	dst = append(dst, s.Device...)
	dst = append(dst, `","time":"`...)
	dst = s.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","connected":`...)
	dst = strconv.AppendBool(dst, s.Connected)
	dst = append(dst, `,"sequence":`...)
	dst = strconv.AppendUint(dst, s.Sequence, 10)
	dst = append(dst, `,"values":{`...)
	for i, v := range s.Values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, v.GetName()...)
		dst = append(dst, '"', ':')
		if text := v.GetText(); text != "" {
			dst = appendString(dst, text)
		} else {
			dst = appendNumber(dst, v.GetNumber())
		}
	}
	return append(dst, '}', '}')
}

func appendNumber(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	// The bounds of ECMA-262, as in encoding/json: people read 0.000001 and
	// 1000000, but not 300 digits.
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// appendString writes a JSON string (RFC 8259, section 7). Bytes that are no
// UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r) // RuneError for what is no UTF-8
			i += size
			continue
		}
		i++
	}
	return append(dst, '"')
}
